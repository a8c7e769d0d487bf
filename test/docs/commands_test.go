package docs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/test/programs"
)

const root = "../../"

// followed are the pages whose commands are run word for word, by which test.
var followed = map[string]string{
	"docs/install.md":             "test/e2e/pages_test.go: TestPages",
	"docs/restore.md":             "test/e2e/pages_test.go: TestPages",
	"docs/objects.md":             "test/e2e/fromnothing_test.go: TestFromNothing",
	"docs/ebs.md":                 "test/e2e/snapshot_proof2_test.go: TestSnapshotProof2EBS",
	"docs/csi.md":                 "test/e2e/snapshot_proof2_test.go: TestSnapshotProof2CSI",
	"docs/commands-engine.md":     "test/docs/commands_engine_test.go: TestCommandsEnginePage",
	"docs/servers.md":             "test/docs/servers_test.go: TestServersPage",
	"docs/mysql-physical.md":      "test/docs/mysql_physical_test.go: TestMariaDBPhysicalPage",
	"docs/postgres.md":            "test/docs/postgres_test.go: TestPostgresPage",
	"docs/postgres-kubernetes.md": "test/e2e/todo_test.go: TestTodoDB",
	"docs/postgres-physical.md":   "test/e2e/todo_physical_test.go: TestTodoDBPhysical",
	"docs/timesten-kubernetes.md": "test/e2e/timesten_test.go: TestTimesTen",
	"docs/altibase-kubernetes.md": "test/e2e/altibase_test.go: TestAltibase",
	"docs/files.md":               "test/docs/files_test.go: TestFilesPage",
	"docs/files-kubernetes.md":    "test/e2e/files_test.go: TestFiles",
	"docs/drill.md":               "test/docs/drill_test.go: TestDrillPage",
	"docs/monitoring.md":          "test/docs/monitoring_test.go: TestMonitoringPage",
	"docs/restore-by-hand.md":     "test/byhand/byhand_test.go: TestRestoreByHand",
	"docs/write-once.md":          "test/docs/writeonce_test.go: TestWriteOncePage",
	"docs/keys.md":                "test/docs/keys_test.go: TestKeysPage",
}

// elsewhere are the commands that stand on other pages only, and what runs them.
var elsewhere = map[string]string{
	"make demo": "test/demo/main_test.go: TestDemo",
	"make test": ".ci/run: make test",
}

// pages are the README and what is in docs, without what the programs write.
func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(root + "docs/*.md")
	require.NoError(t, err)
	list = append(list, root+"README.md")
	require.Greater(t, len(list), 8)
	for i := range list {
		list[i] = strings.TrimPrefix(list[i], root)
	}
	return list
}

// written are the pages that the programs write about themselves.
var written = []string{"docs/commands/backup.md", "docs/commands/restore.md"}

func read(t *testing.T, page string) Page {
	t.Helper()
	p, err := Read(root + page)
	require.NoError(t, err)
	return p
}

// recorded lets bash read a page's commands with programs in its path that do
// nothing but write down how they were called, and returns that.
func recorded(t *testing.T, code string) [][]string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o700))
	const stub = "#!/bin/bash\n{ printf '%s\\0' \"${0##*/}\" \"$@\"; echo; } >> \"$CALLS\"\n"
	for _, name := range []string{"backup", "restore", "kubectl", "make"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte(stub), 0o700))
	}
	for _, name := range []string{"sed", "jq", "base64", "tar", "awk", "aws", "psql", "age-keygen", "cat", "cut", "mariadb-backup", "xtrabackup"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/bash\n"), 0o700))
	}
	calls := filepath.Join(dir, "calls")
	// Files with keys are not there; the lines after go on.
	cmd := exec.CommandContext(t.Context(), "/bin/bash", "-c", "set -u\n"+code)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + bin, "CALLS=" + calls, "KEEPSET_KEY_FILES="}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.NotContains(t, string(out), "command not found", "a program that the test does not know")
	text, err := os.ReadFile(calls)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	var list [][]string
	for line := range strings.Lines(string(text)) {
		list = append(list, strings.Split(strings.TrimSuffix(line, "\x00\n"), "\x00"))
	}
	slices.SortFunc(list, slices.Compare) // a pipe's parts come in any order
	return list
}

// TestEveryCommandIsRun: a command that a page shows is run by a test: its
// page is followed word for word, or another one that has the same command.
func TestEveryCommandIsRun(t *testing.T) {
	run := map[string]bool{}
	for page, where := range followed {
		requireTest(t, where)
		if page == "docs/restore-by-hand.md" {
			continue // has no command of ours
		}
		for _, c := range recorded(t, read(t, page).In("sh")) {
			run[strings.Join(c, " ")] = true
		}
	}
	for command, where := range elsewhere {
		requireTest(t, where)
		run[command] = true
	}
	seen := 0
	for _, page := range pages(t) {
		if _, ok := followed[page]; ok {
			continue
		}
		for _, c := range recorded(t, read(t, page).In("sh")) {
			seen++
			assert.True(t, run[strings.Join(c, " ")], "%s shows a command that no test runs: %s", page, strings.Join(c, " "))
		}
	}
	require.Greater(t, seen, 15)
	require.Greater(t, len(run), 40)
}

// requireTest finds "file: text", text being the name of a test in a Go file.
func requireTest(t *testing.T, where string) {
	t.Helper()
	file, text, _ := strings.Cut(where, ": ")
	if strings.HasSuffix(file, ".go") {
		text = "func " + text + "(t *testing.T)"
	}
	content, err := os.ReadFile(root + file)
	require.NoError(t, err)
	require.Contains(t, string(content), text)
}

// TestBlocksAreKnown: a block in a language that no test looks at would go
// unread.
func TestBlocksAreKnown(t *testing.T) {
	for _, page := range pages(t) {
		for _, k := range read(t, page).Blocks {
			assert.Contains(t, []string{"sh", "sql", "yaml", "json", ""}, k.Language, "%s:%d", page, k.Line)
			if k.Language == "" {
				assert.NotRegexp(t, `(?m)^(\$ )?(backup|restore|kubectl|make) `, k.Code, "%s:%d is not marked as sh", page, k.Line)
			}
		}
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(asAWS) != "" {
		os.Exit(awsMain(os.Args[1:]))
	}
	if os.Getenv(asAgeKeygen) != "" {
		os.Exit(ageKeygenMain(os.Args[1:]))
	}
	os.Exit(programs.Main(m))
}

// TestCommandsParse: the programs know every command and flag that a page
// shows in a block, their own help's examples among them.
func TestCommandsParse(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	done := map[string]bool{}
	for _, page := range append(pages(t), written...) {
		if page == "docs/restore-by-hand.md" {
			continue
		}
		for _, c := range recorded(t, read(t, page).In("sh")) {
			line := strings.Join(c, " ")
			if c[0] != "backup" && c[0] != "restore" || done[line] {
				continue
			}
			done[line] = true
			require.Greater(t, len(c), 1, page)
			// Flags and their values are read before --help counts.
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin, c[0]), append(c[1:], "--help")...)
			out, err := cmd.CombinedOutput()
			if assert.NoError(t, err, "%s shows %q: %s", page, line, out) {
				assert.Contains(t, string(out), "Usage:\n  "+c[0]+" "+c[1], "%s shows %q", page, line)
			}
		}
	}
	require.Greater(t, len(done), 40)
}
