package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fuzzed says which fuzz target, of the same package, holds which parser: a
// function that makes structure of what came from outside (objects of a store,
// answers of servers, what users write, what stands in Kubernetes objects).
// Those that are not called parse, decode or unmarshal stand here as well.
var fuzzed = map[string]string{
	"cli: ParseServerURL": "FuzzServerURL", "cli: SplitHostPort": "FuzzSplitHostPort", "cli: parseMemoryLimit": "FuzzMemoryLimit",
	"cli: split": "FuzzSet", "cli: Secret": "FuzzSecret", "cli: writeTermination": "FuzzTerminationMessage", "cli: misspelt": "FuzzEditDistance",
	"cli: options": "FuzzRename", "cli: parseLocal": "FuzzLocal",

	"cli: parseDirectoryURL": "FuzzDirectoryURL", "cli: parseTablespaces": "FuzzTablespaces",

	"filetree: ParsePatterns": "FuzzPattern", "filetree: parsePatterns": "FuzzPattern", "filetree: parsePattern": "FuzzPattern",
	"filetree: next": "FuzzArchive", "filetree: parseBlock": "FuzzArchive", "filetree: parseRecords": "FuzzRecords",
	"filetree: parseDecimal": "FuzzNumbers", "filetree: parseOctal": "FuzzNumbers", "filetree: parseID": "FuzzNumbers",
	"filetree: parseTime": "FuzzNumbers", "filetree: aclText": "FuzzACL",

	"job: ParseOrdinals": "FuzzOrdinals", "job: parseOrdinal": "FuzzOrdinals", "job: parseRestorePlan": "FuzzRestorePlan",

	"record: Decode": "FuzzDecode", "record: verify": "FuzzSignature", "record: UnmarshalText": "FuzzHash", "record: ParseHash": "FuzzIDs",
	"record: ParseSetID": "FuzzIDs", "record: ParseBackupID": "FuzzIDs", "record: parse": "FuzzNewBackupID",
	"record: ParseLabels": "FuzzLabels", "record: ParseLabelSelectors": "FuzzLabels",

	"repository: ParseSelector": "FuzzSelectorTime", "repository: LoadKeys": "FuzzKeyErrors", "repository: parseTrusted": "FuzzKeyErrors",
	"repository: parseIndex": "FuzzKeyErrors", "repository: parseData": "FuzzKeyErrors", "repository: parseKeyFiles": "FuzzKeyErrors",
	"repository: parseWriterSecret": "FuzzWriterKeys", "repository: parseWriterPublic": "FuzzWriterKeys", "repository: parseSecret": "FuzzWriterKeys",
	"repository: parseProverSecret": "FuzzWriterKeys", "repository: parseProverPublic": "FuzzWriterKeys", "repository: parseProvers": "FuzzKeyErrors",
	"repository: decodeKey": "FuzzWriterKeys",
	"repository: parsePart": "FuzzPartIsCanonical", "repository: parseMemos": "FuzzMemos", "repository: parseMemo": "FuzzMemos",
	"repository: parseMemoSegment": "FuzzMemos", "repository: parseTable": "FuzzPackTable", "repository: parseFrame": "FuzzPackTable",
	"repository: parseConfigKey": "FuzzKeys", "repository: parseSetKey": "FuzzKeys", "repository: parseBackupKey": "FuzzKeys",
	"repository: parseCheckpoint": "FuzzKeys", "repository: parseCommitKey": "FuzzKeys", "repository: parseHashKey": "FuzzKeys",
	"repository: parseNumber": "FuzzKeys", "repository: openAge": "FuzzAgeRange", "repository: open": "FuzzCodec",

	"repository: parsePinKey": "FuzzKeys", "repository: parseReportKey": "FuzzKeys", "repository: parseOriginKey": "FuzzKeys",
	"repository: parseAccept": "FuzzKeys", "repository: parseProofKey": "FuzzKeys", "repository: parseNamed": "FuzzKeys",
	"repository: parseKeyFileKey": "FuzzKeys", "repository: decodeKeyFile": "FuzzKeyFile",
	"repository: decodeSigned": "FuzzDecodeSigned",

	"retention: ParseSpan": "FuzzParseSpan",

	"schedule: Parse": "FuzzParse", "schedule: Explain": "FuzzExplain",

	"statefulset: suffixOrdinal": "FuzzSuffixOrdinal", "statefulset: newSeedInfo": "FuzzSeedInfo", "statefulset: applyPatch": "FuzzSeedPatch",
	"statefulset: resolveLabels": "FuzzResolveLabels", "statefulset: setArgument": "FuzzSetArgument", "statefulset: newRun": "FuzzRun",
	"statefulset: ParseObjects": "FuzzObjects", "statefulset: parseObject": "FuzzObjects", "statefulset: podAt": "FuzzPodAt",
	"statefulset: explain": "FuzzExplain", "statefulset: Run": "FuzzHolder", "statefulset: Event": "FuzzEvent",

	"snapshot/csi: decodeRecord": "FuzzDecodeRecord", "snapshot/csi: snapshotName": "FuzzObjectName",
	"snapshot/ebs: parse": "FuzzClassParameters", "snapshot/ebs: parseInTree": "FuzzHandle",

	"storage: ParseURL": "FuzzParseURL", "storage: parseS3": "FuzzParseURL", "storage: parseFile": "FuzzParseURL", "storage: CheckKey": "FuzzCheckKey",
	"storage: CheckRange": "FuzzCheckRange", "storage/s3: wholeSHA256": "FuzzWholeSHA256",

	"dbdump/command: ParseLine": "FuzzLine", "dbdump/command: parseMark": "FuzzMark",
	"dbdump/command/timesten: parseInstance": "FuzzInstance", "dbdump/command/timesten: parseRows": "FuzzBackupStatus",
	"dbdump/command/timesten: parseBackupStatus": "FuzzBackupStatus", "dbdump/command/timesten: parseVersion": "FuzzVersion",

	"dbdump/mysql: parseStoredName": "FuzzStoredName", "dbdump/mysql: parseProperties": "FuzzCopyInfo", "dbdump/mysql: parseBinlogInfo": "FuzzCopyInfo",
	"dbdump/mysql: parseSlaveInfo": "FuzzCopyInfo", "dbdump/mysql: parseProgramVersion": "FuzzProgramVersion",
	"dbdump/mysql: parseMySQLBinlogInfo": "FuzzCopyInfo", "dbdump/mysql: parseMySQLSlaveInfo": "FuzzCopyInfo", "dbdump/mysql: parseGTIDSet": "FuzzCopyInfo",
	"dbdump/mysql/xbstream: Next": "FuzzReader",
	"dbdump/mysql: parseDocument": "FuzzDocument", "dbdump/mysql: typedDocument": "FuzzDocument", "dbdump/mysql: parseChannel": "FuzzChannel",
	"dbdump/mysql: parseMariaDB": "FuzzMariaDBGTID", "dbdump/mysql: parseVersion": "FuzzVersion", "dbdump/mysql: parse": "FuzzGrants",
	"dbdump/mysql: grantFor": "FuzzGrantLines", "dbdump/mysql: withoutAuthentication": "FuzzGrantLines", "dbdump/mysql: splitTable": "FuzzSplitTable",
	"dbdump/mysql: nextAutoIncrement": "FuzzNextAutoIncrement", "dbdump/mysql: literalEnd": "FuzzLiteral", "dbdump/mysql: tokenize": "FuzzLiteral",
	"dbdump/mysql: viewReferences": "FuzzView", "dbdump/mysql: withOwnDefiner": "FuzzView", "dbdump/mysql: renameIn": "FuzzRename",
	"dbdump/mysql: splitScript": "FuzzSplitScript", "dbdump/mysql: eachStatement": "FuzzScript", "dbdump/mysql: readLine": "FuzzReadLine",
	"dbdump/mysql: appendRow": "FuzzRowToInsert", "dbdump/mysql: appendField": "FuzzRowRoundTrip", "dbdump/mysql: appendEscaped": "FuzzEscaped",
	"dbdump/mysql: appendDouble": "FuzzDouble", "dbdump/mysql: rows": "FuzzWireRows", "dbdump/mysql: packet": "FuzzWire",
	"dbdump/mysql: escapeElement": "FuzzNames", "dbdump/mysql: cutPattern": "FuzzFilter",

	"dbdump/postgres: parseProgramVersion": "FuzzProgramVersion", "dbdump/postgres: next": "FuzzScript", "dbdump/postgres: understand": "FuzzStatement",
	"dbdump/postgres: tokensOf": "FuzzStatement", "dbdump/postgres: renameDatabase": "FuzzRename", "dbdump/postgres: escapeElement": "FuzzNames",
	"dbdump/postgres: covers": "FuzzFilter", "dbdump/postgres: majorOf": "FuzzProgramVersion", "dbdump/postgres: readManifest": "FuzzManifest",
	"dbdump/postgres: parseLSN": "FuzzLSN", "dbdump/postgres: segmentOf": "FuzzLSN",
	"dbdump/postgres: attached": "FuzzStatement", "dbdump/postgres: unquoteNames": "FuzzNames",
}

// looksLike is what a parser is mostly called.
var looksLike = regexp.MustCompile(`^(?i:parse|decode|unmarshal)`)

// TestEveryParserIsFuzzed: a parser has a fuzz target in its package, the
// table above says which, and it says nothing of what there is not.
func TestEveryParserIsFuzzed(t *testing.T) {
	functions, targets := map[string]bool{}, map[string]bool{}
	internal := filepath.Join(root, "internal")
	require.NoError(t, filepath.WalkDir(internal, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(filepath.Dir(path), "test") { // a package for tests
			return err
		}
		dir, err := filepath.Rel(internal, filepath.Dir(path))
		require.NoError(t, err)
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			switch {
			case ok && strings.HasSuffix(path, "_test.go"):
				targets[dir+": "+f.Name.Name] = strings.HasPrefix(f.Name.Name, "Fuzz")
			case ok:
				functions[dir+": "+f.Name.Name] = true
				if looksLike.MatchString(f.Name.Name) {
					assert.NotEmpty(t, fuzzed[dir+": "+f.Name.Name], "%s: %s has no fuzz target: write one, and say which it is here", path, f.Name)
				}
			}
		}
		return nil
	}))
	named := map[string]bool{}
	for function, target := range fuzzed {
		dir, _, _ := strings.Cut(function, ": ")
		assert.True(t, functions[function], "%s is gone", function)
		assert.True(t, targets[dir+": "+target], "%s: there is no %s", function, target)
		named[dir+": "+target] = true
	}
	for target, fuzz := range targets {
		other := []string{"repository: FuzzAgeFile", "repository: FuzzLoadKeys", "repository: FuzzPart", "repository: FuzzSelector"} // more of the same
		if fuzz && !named[target] {
			assert.Contains(t, other, target, "the table does not say what this target is for")
		}
	}
}
