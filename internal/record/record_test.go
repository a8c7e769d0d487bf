package record_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

// key returns the same key on every run.
func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(k[ed25519.SeedSize:]) }

// as returns a sample as what it is.
func as[T record.Record](s map[string]record.Record, name string) T {
	r, ok := s[name].(T)
	if !ok {
		panic(name + " is of another type")
	}
	return r
}

func sum(s string) record.Hash { return sha256.Sum256([]byte(s)) }

var (
	at      = time.Date(2026, 11, 20, 13, 17, 30, 0, time.UTC)
	set     = record.SetID{Namespace: "shop", Name: "mysql"}
	id      = record.BackupID("20261120T131730Z-1a2b3c4d")
	attempt = record.AttemptID("0f0e0d0c-1111-2222-3333-444455556666")
	member  = record.PlannedMember{
		Ordinal: 2, Name: "mysql-2", Address: "10.0.0.7:3306", Node: "node-a", Role: "follower",
		Claims: []record.Claim{{Name: "data-mysql-2", Template: "data", Volume: "pvc-7", StorageClass: "gp3", AccessModes: []string{"ReadWriteOnce"}, Size: "10Gi"}},
	}
	report = record.Report{
		Engine: "mysql", Layout: "mysql/1", Flavor: "mariadb", Version: "10.11.19", Consistency: "backup-stage", CapturedAt: at,
		Coordinates: record.Coordinates{GTID: "0-1-42", File: "bin.000003", Position: 1234},
		Objects:     []record.Object{{Kind: "table", Schema: "shop", Name: "orders", DDL: "shop/orders.sql", Data: []string{"shop/orders.0000.tsv"}, Rows: 3}},
		Rows:        3, Bytes: 99,
	}
)

func header(k record.Kind) record.Header { return record.NewHeader(k) }

// samples are one valid record of each kind, by the name of its golden file.
func samples() map[string]record.Record {
	return map[string]record.Record{
		"config": &record.Config{
			Header: header(record.KindConfig), Repository: "r1", CreatedAt: at, Tool: "v1", Hash: "sha256", Compression: "zstd",
			Chunker:       record.Chunker{Algorithm: "fastcdc", Min: 256 << 10, Average: 1 << 20, Max: 4 << 20},
			LongestBackup: 86400, Slack: 3600, Writers: []string{"0123456789abcdef"},
			Epochs: []record.Epoch{{Number: 1, Data: "aa", Index: "bb", Recipients: []string{"cc"}}},
		},
		"config-retired": &record.Config{
			Header:     record.Header{Format: record.Format, Kind: record.KindConfig, Critical: []string{record.FeatureRetired}},
			Repository: "r1", CreatedAt: at, Tool: "v1", Hash: "sha256", Compression: "zstd",
			Chunker:       record.Chunker{Algorithm: "fastcdc", Min: 256 << 10, Average: 1 << 20, Max: 4 << 20},
			LongestBackup: 86400, Slack: 3600, Writers: []string{"89abcdef01234567"},
			Retired: []record.RetiredWriter{{Key: "0123456789abcdef", Until: at.Add(time.Hour)}},
			Epochs: []record.Epoch{
				{Number: 1, Data: "aa", Index: "bb", Recipients: []string{"cc"}},
				{Number: 3, Data: "dd", Index: "ee", Recipients: []string{"cc", "ff"}},
			},
		},
		"key":    &record.KeyFile{Header: header(record.KindKey), Epoch: 1, Data: "AGE-SECRET-KEY-1D", Index: "AGE-SECRET-KEY-1I"},
		"origin": &record.Origin{Header: header(record.KindOrigin), Set: set, Origin: "sha256:abc"},
		"plan": &record.Plan{
			Header: header(record.KindPlan), Repository: "r1", ID: id, Set: set, Origin: "sha256:abc", CreatedAt: at, Method: record.MethodDump,
			Engine: "mysql", Members: []record.PlannedMember{member}, Replicas: 3, Databases: []string{"a<b>&c"}, Tool: "v1",
		},
		"plan-epoch": &record.Plan{
			Header: header(record.KindPlan), Repository: "r1", ID: id, Set: set, CreatedAt: at, Method: record.MethodFiles,
			Members: []record.PlannedMember{{Ordinal: 0, Name: "www"}}, Replicas: 1, Epoch: 3,
		},
		"checkpoint": &record.Checkpoint{
			Header: header(record.KindCheckpoint), Repository: "r1", Backup: id, Set: set, Ordinal: 2, Attempt: attempt, Sequence: 1,
			Parts: []record.ObjectRef{{SHA256: sum("p"), Size: 7}},
			Memos: []record.MemberMemos{{Ordinal: 2, Objects: []record.ObjectRef{{SHA256: sum("memo"), Size: 9}}}},
		},
		"map": &record.Map{
			Header: header(record.KindMap), Repository: "r1", Backup: id, Set: set, Ordinal: 2, Attempt: attempt, Member: member, Report: report,
			Pieces: []record.PieceRef{{SHA256: sum("piece"), Segments: 2}},
			Streams: []record.Stream{
				{Name: "empty", Ranges: []record.Range{}},
				{Name: "shop/orders.0000.tsv", Size: 99, CRC32C: 0xdeadbeef, Ranges: []record.Range{{Piece: 0, First: 0, Count: 2}}},
			},
		},
		"piece": &record.Piece{
			Header: header(record.KindPiece), Backup: id, Ordinal: 2, Attempt: attempt, Packs: []record.Hash{sum("pack")},
			Segments: []record.Segment{{Pack: 0, At: 5, Stored: 10, Skip: 3, Length: 20, SHA256: sum("chunk")}, {Hole: 1 << 40}},
		},
		"refs": &record.Refs{
			Header: header(record.KindRefs), Repository: "r1", Backup: id, Set: set, Ordinal: 2, Attempt: attempt, Map: sum("map"),
			Maps: []record.ObjectRef{{SHA256: sum("map"), Size: 5}}, Parts: []record.ObjectRef{{SHA256: sum("part"), Size: 6}},
			Packs: []record.ObjectRef{{SHA256: sum("pack"), Size: 7}}, Memos: []record.ObjectRef{{SHA256: sum("memo"), Size: 9}},
			VolumeSnapshots: []record.VolumeSnapshot{{
				Provider: record.ProviderEBS, ID: "snap-0a1b", Cut: "20261120T131730Z-1a2b3c4d.2.p1", Driver: "ebs.csi.aws.com", Region: "eu-central-1",
				Claim: "data-mysql-2", Template: "data", Volume: "vol-0c1d", Zone: "eu-central-1a", Size: 8 << 30, FSType: "ext4",
				Encrypted: true, KMSKey: "arn:aws:kms:eu-central-1:1:key/1", CutAt: at, Stream: "volumes/data-mysql-2",
			}},
		},
		"commit": &record.Commit{
			Header: header(record.KindCommit), Repository: "r1", Backup: id, Set: set, Ordinal: 2, Attempt: attempt, PlanSHA256: sum("plan"),
			Refs: sum("refs"), RefsSize: 8, Status: record.StatusSuspect, Reasons: []string{"half of the rows are gone"}, Rows: 3, Bytes: 99,
			Stored: 50, Streams: 2, Objects: 1, StartedAt: at, CapturedAt: at, FinishedAt: at,
		},
		"prune": &record.Prune{Header: header(record.KindPrune), Repository: "r1", Set: set, Backups: []record.BackupID{id}, Packs: []record.Hash{sum("pack")}},
		"accept": &record.Accept{
			Header: header(record.KindAccept), Repository: "r1", Set: set, Backup: id, Doubt: record.DoubtSuspect,
			PlanSHA256: sum("plan"), Commits: []record.Hash{sum("1"), sum("2")}, CreatedAt: at, Reason: "archived",
		},
		"proof": &record.Proof{
			Header: header(record.KindProof), Repository: "r1", Set: set, Backup: id, PlanSHA256: sum("plan"), Commit: sum("1"), Ordinal: 2, Passed: true,
			Checks: []record.ProofCheck{{Check: "load", State: record.ProofOK}, {Check: "sql", State: record.ProofSkipped}},
			Rows:   3, Bytes: 99, Objects: 1, RestoreSeconds: 1.5, Seconds: 2, Server: "mariadb 10.11.19", CreatedAt: at, Tool: "v1",
		},
		"pin": &record.Pin{Header: header(record.KindPin), Repository: "r1", Set: set, Backup: id, CreatedAt: at, Reason: "before the migration"},
	}
}

func fresh(r record.Record) record.Record {
	f, ok := reflect.TypeAssert[record.Record](reflect.New(reflect.TypeOf(r).Elem()))
	if !ok {
		panic("not a record")
	}
	return f
}

// TestGolden pins the bytes of version 1, and that they are read back.
func TestGolden(t *testing.T) {
	for name, r := range samples() {
		data, err := record.Encode(r, key(1))
		require.NoError(t, err, name)
		path := filepath.Join("testdata", name+".v1.json")
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(path, data, 0o644))
		}
		golden, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(golden), string(data), name)
		got := fresh(r)
		signer, err := record.Decode(golden, got, []ed25519.PublicKey{public(key(2)), public(key(1))})
		require.NoError(t, err, name)
		require.Equal(t, record.KeyID(public(key(1))), signer)
		require.Equal(t, r, got)
	}
}

func TestSignatures(t *testing.T) {
	plan := samples()["plan"]
	signedBytes, err := record.Encode(plan, key(1))
	require.NoError(t, err)
	unsigned, err := record.Encode(plan, nil)
	require.NoError(t, err)
	trusted := []ed25519.PublicKey{public(key(1))}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"unsigned":          {unsigned, record.ErrUnsigned},
		"line 1 changed":    {bytes.Replace(signedBytes, []byte(`"replicas":3`), []byte(`"replicas":9`), 1), record.ErrSignature},
		"by another":        {mustEncode(t, plan, key(2)), record.ErrUntrusted},
		"signature cut off": {signedBytes[:len(signedBytes)-2], record.ErrSignature},
		"something behind":  {append(bytes.Clone(signedBytes), '\n'), record.ErrSignature},
		"two signatures":    {append(bytes.Clone(signedBytes), signedBytes[len(unsigned):]...), record.ErrSignature},
		"cut in line 1":     {unsigned[:40], record.ErrInvalid},
		"empty":             {nil, record.ErrInvalid},
	} {
		_, err := record.Decode(c.data, &record.Plan{}, trusted)
		require.ErrorIs(t, err, c.want, name)
	}
	_, err = record.Decode(signedBytes, &record.Plan{}, trusted)
	require.NoError(t, err)
	signer, err := record.Decode(signedBytes, &record.Plan{}, nil)
	require.NoError(t, err)
	require.Empty(t, signer, "nobody has checked it")
}

// TestASignatureIsForOneKind: the same line as another kind is not signed.
func TestASignatureIsForOneKind(t *testing.T) {
	data := mustEncode(t, samples()["origin"], key(1))
	_, err := record.Decode(data, &record.Prune{}, []ed25519.PublicKey{public(key(1))})
	require.ErrorIs(t, err, record.ErrSignature)
	_, err = record.Decode(data, &record.Prune{}, nil)
	require.ErrorIs(t, err, record.ErrInvalid)
}

func mustEncode(t *testing.T, r record.Record, k ed25519.PrivateKey) []byte {
	t.Helper()
	data, err := record.Encode(r, k)
	require.NoError(t, err)
	return data
}

func TestNewerFormatsAreRefused(t *testing.T) {
	for name, r := range samples() {
		data := strings.Replace(string(mustEncode(t, r, nil)), `"critical":["retired-writers"],`, "", 1)
		for _, newer := range []string{
			strings.Replace(data, `"format":1`, `"format":2`, 1),
			strings.Replace(data, `"format":1`, `"format":1,"critical":["x"]`, 1),
			`{"format":2,"kind":{"of":"another type"}}` + "\n",
		} {
			_, err := record.Decode([]byte(newer), fresh(r), nil)
			require.ErrorIs(t, err, record.ErrNewerFormat, name)
		}
		data = strings.Replace(string(mustEncode(t, r, nil)), `"format":1`, `"format":1,"unknown":{"is":"fine"}`, 1)
		_, err := record.Decode([]byte(data), fresh(r), nil)
		require.NoError(t, err, name)
	}
}

// TestInvalid changes one field of a valid record at a time.
func TestInvalid(t *testing.T) {
	for name, change := range map[string]func(map[string]record.Record){
		"plan id":      func(s map[string]record.Record) { as[*record.Plan](s, "plan").ID = "20261120T131730Z" },
		"plan set":     func(s map[string]record.Record) { as[*record.Plan](s, "plan").Set.Name = "../x" },
		"plan method":  func(s map[string]record.Record) { as[*record.Plan](s, "plan").Method = "magic" },
		"plan members": func(s map[string]record.Record) { as[*record.Plan](s, "plan").Members = nil },
		"plan member twice": func(s map[string]record.Record) {
			p := as[*record.Plan](s, "plan")
			p.Members = append(p.Members, p.Members[0])
		},
		"commit status":        func(s map[string]record.Record) { as[*record.Commit](s, "commit").Status = "fine" },
		"commit reasons":       func(s map[string]record.Record) { as[*record.Commit](s, "commit").Reasons = nil },
		"commit refs":          func(s map[string]record.Record) { as[*record.Commit](s, "commit").Refs = record.Hash{} },
		"commit totals":        func(s map[string]record.Record) { as[*record.Commit](s, "commit").Rows = -1 },
		"commit attempt":       func(s map[string]record.Record) { as[*record.Commit](s, "commit").Attempt = "a.b" },
		"refs without map":     func(s map[string]record.Record) { as[*record.Refs](s, "refs").Maps = nil },
		"refs empty object":    func(s map[string]record.Record) { as[*record.Refs](s, "refs").Packs[0].Size = 0 },
		"refs memo of no size": func(s map[string]record.Record) { as[*record.Refs](s, "refs").Memos[0].Size = 0 },
		"checkpoint memos": func(s map[string]record.Record) {
			c := as[*record.Checkpoint](s, "checkpoint")
			c.Memos = append(c.Memos, c.Memos[0])
		},
		"checkpoint memo of no size": func(s map[string]record.Record) {
			as[*record.Checkpoint](s, "checkpoint").Memos[0].Objects[0].Size = 0
		},
		"refs volume snapshot": func(s map[string]record.Record) {
			as[*record.Refs](s, "refs").VolumeSnapshots[0].Provider = "tape"
		},
		"map order":       func(s map[string]record.Record) { m := as[*record.Map](s, "map"); m.Streams[0].Name = "z" },
		"map range":       func(s map[string]record.Record) { as[*record.Map](s, "map").Streams[1].Ranges[0].Count = 3 },
		"map range piece": func(s map[string]record.Record) { as[*record.Map](s, "map").Streams[1].Ranges[0].Piece = 1 },
		"piece pack":      func(s map[string]record.Record) { as[*record.Piece](s, "piece").Segments[0].Pack = 1 },
		"piece hole":      func(s map[string]record.Record) { as[*record.Piece](s, "piece").Segments[1].Length = 1 },
		"piece frame":     func(s map[string]record.Record) { as[*record.Piece](s, "piece").Segments[0].Length = 1 << 31 },
		"piece at":        func(s map[string]record.Record) { as[*record.Piece](s, "piece").Segments[0].At = 1 << 31 },
		"config chunker":  func(s map[string]record.Record) { as[*record.Config](s, "config").Chunker.Average = 3 },
		"config epochs":   func(s map[string]record.Record) { as[*record.Config](s, "config").Epochs[0].Number = 2 },
		"config limits":   func(s map[string]record.Record) { as[*record.Config](s, "config").LongestBackup = 0 },
		"config-retired no time": func(s map[string]record.Record) {
			as[*record.Config](s, "config-retired").Retired[0].Until = time.Time{}
		},
		"config-retired not critical": func(s map[string]record.Record) {
			as[*record.Config](s, "config-retired").Critical = nil
		},
		"config-retired order": func(s map[string]record.Record) {
			as[*record.Config](s, "config-retired").Epochs[1].Number = 1
		},
		"plan-epoch epoch": func(s map[string]record.Record) { as[*record.Plan](s, "plan-epoch").Epoch = -1 },
		"checkpoint seq":   func(s map[string]record.Record) { as[*record.Checkpoint](s, "checkpoint").Sequence = -1 },
		"prune id":         func(s map[string]record.Record) { as[*record.Prune](s, "prune").Backups[0] = "x" },
		"pin id":           func(s map[string]record.Record) { as[*record.Pin](s, "pin").Backup = "x" },
		"accept id":        func(s map[string]record.Record) { as[*record.Accept](s, "accept").Backup = "x" },
		"accept time":      func(s map[string]record.Record) { as[*record.Accept](s, "accept").CreatedAt = time.Time{} },
		"proof id":         func(s map[string]record.Record) { as[*record.Proof](s, "proof").Backup = "x" },
		"proof set":        func(s map[string]record.Record) { as[*record.Proof](s, "proof").Set.Name = "../x" },
		"proof time":       func(s map[string]record.Record) { as[*record.Proof](s, "proof").CreatedAt = time.Time{} },
		"proof no commit":  func(s map[string]record.Record) { as[*record.Proof](s, "proof").Commit = record.Hash{} },
		"proof no plan":    func(s map[string]record.Record) { as[*record.Proof](s, "proof").PlanSHA256 = record.Hash{} },
		"proof totals":     func(s map[string]record.Record) { as[*record.Proof](s, "proof").Rows = -1 },
		"proof of nothing": func(s map[string]record.Record) { as[*record.Proof](s, "proof").Checks = nil },
		"proof state":      func(s map[string]record.Record) { as[*record.Proof](s, "proof").Checks[0].State = "fine" },
		"proof that lies":  func(s map[string]record.Record) { as[*record.Proof](s, "proof").Checks[0].State = record.ProofFailed },
		"accept nothing":   func(s map[string]record.Record) { as[*record.Accept](s, "accept").Commits = nil },
		"accept no plan":   func(s map[string]record.Record) { as[*record.Accept](s, "accept").PlanSHA256 = record.Hash{} },
		"accept order":     func(s map[string]record.Record) { slices.Reverse(as[*record.Accept](s, "accept").Commits) },
		"pin without time": func(s map[string]record.Record) { as[*record.Pin](s, "pin").CreatedAt = time.Time{} },
		"key epoch":        func(s map[string]record.Record) { as[*record.KeyFile](s, "key").Epoch = 0 },
		"origin set":       func(s map[string]record.Record) { as[*record.Origin](s, "origin").Set.Namespace = "" },
	} {
		s := samples()
		change(s)
		kind, _, _ := strings.Cut(name, " ")
		require.ErrorIs(t, s[kind].Validate(), record.ErrInvalid, name)
		_, err := record.Encode(s[kind], nil)
		require.ErrorIs(t, err, record.ErrInvalid, name)
	}
}

func TestIDs(t *testing.T) {
	require.Equal(t, id, record.NewBackupID(at, "1A2B3C4D-5e6f-7081"))
	require.Equal(t, at, id.Time())
	require.NotEqual(t, record.NewBackupID(at, ""), record.NewBackupID(at, ""))
	require.NoError(t, record.NewBackupID(at, "").Validate())
	require.NoError(t, record.NewAttemptID().Validate())
	for _, bad := range []record.BackupID{"", "x", "20261120T131730Z-1a2b3c4", "20261120T131730Z-1A2b3c4d", "20261399T131730Z-1a2b3c4d", "20261120T131730Z-1a2b3c/d"} {
		require.ErrorIs(t, bad.Validate(), record.ErrInvalid, bad)
		require.True(t, bad.Time().IsZero())
	}
	for text, want := range map[string]record.SetID{"shop/mysql": set, "mysql": {Namespace: "_", Name: "mysql"}} {
		got, err := record.ParseSetID(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{"", "/", "a/", "/a", "a/b/c", "../a", "a/..", "a b", strings.Repeat("a", 300)} {
		_, err := record.ParseSetID(bad)
		require.ErrorIs(t, err, record.ErrInvalid, bad)
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range samples() {
		data, err := record.Encode(r, key(1))
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, r := range samples() {
			got := fresh(r)
			if _, err := record.Decode(data, got, nil); err != nil {
				continue
			}
			again, err := record.Encode(got, nil)
			require.NoError(t, err, "what was read is valid, so it can be written")
			back := fresh(r)
			_, err = record.Decode(again, back, nil)
			require.NoError(t, err)
			twice, err := record.Encode(back, nil)
			require.NoError(t, err)
			require.Equal(t, string(again), string(twice))
		}
	})
}

func FuzzIDs(f *testing.F) {
	f.Add("20261120T131730Z-1a2b3c4d")
	f.Add("shop/mysql")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := record.ParseBackupID(text); err == nil {
			require.False(t, id.Time().IsZero())
			require.NotContains(t, string(id), "/")
		}
		if s, err := record.ParseSetID(text); err == nil {
			require.Equal(t, 1, strings.Count(s.String(), "/"))
		}
		if h, err := record.ParseHash(text); err == nil {
			require.Equal(t, text, h.String())
		}
	})
}
