package repository

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

func TestMain(m *testing.M) {
	if slowdown > 1 {
		if err := flag.Set("rapid.checks", "10"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

var testSet = record.SetID{Namespace: "shop", Name: "mysql"}

// mode is one way to run a repository: plain, or encrypted.
type mode struct {
	name            string
	writer, restore Keys
}

func plainMode() mode { return mode{name: "plain"} }

func encryptedMode(t testing.TB) mode {
	t.Helper()
	set, err := Keygen(nil)
	require.NoError(t, err)
	return mode{name: "encrypted", writer: keysOf(t, set.Writer), restore: keysOf(t, set.Restore)}
}

func modes(t testing.TB) []mode { return []mode{plainMode(), encryptedMode(t)} }

func keysOf(t testing.TB, values []Value) Keys {
	t.Helper()
	keys, err := LoadKeys(func(name string) string {
		for _, v := range values {
			if v.Name == name {
				return v.Value
			}
		}
		return ""
	})
	require.NoError(t, err)
	return keys
}

// small makes packs, and thereby repositories, small enough for tests.
func small() Options {
	return Options{PackBytes: 1 << 20, Workers: 2, Checkpoint: time.Hour}
}

func initStore(t testing.TB, m mode) storage.Store {
	t.Helper()
	store := mem.New(mem.Options{})
	_, err := Init(t.Context(), store, InitOptions{Keys: m.writer, Tool: "test"})
	require.NoError(t, err)
	return store
}

func open(t testing.TB, store storage.Store, keys Keys, o Options) *Repository {
	t.Helper()
	r, err := Open(t.Context(), store, keys, o)
	require.NoError(t, err)
	return r
}

// backupTime lets each backup of a test have an ID of its own.
func testPlan(n int, ordinals ...int) record.Plan {
	at := time.Now().Add(time.Duration(n) * time.Second).UTC()
	plan := record.Plan{
		ID: record.NewBackupID(at, fmt.Sprintf("job%05d", n)), Set: testSet, Origin: "test", CreatedAt: at,
		Method: record.MethodDump, Engine: "mysql", Replicas: len(ordinals), Tool: "test",
	}
	for _, ordinal := range ordinals {
		plan.Members = append(plan.Members, record.PlannedMember{Ordinal: ordinal, Name: fmt.Sprintf("mysql-%d", ordinal)})
	}
	return plan
}

// content is streams by name.
type content map[string][]byte

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = source.Read(b)
	return b
}

// text is compressible bytes.
func text(seed uint64, n int) []byte {
	var b bytes.Buffer
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d\t%d\trow %x of the table\t%d\n", i, r.Uint32(), r.Uint64(), r.IntN(100))
	}
	return b.Bytes()[:n]
}

func testContent() content {
	c := content{
		"schema/shop.sql":       []byte("CREATE DATABASE shop"),
		"data/shop/orders/0000": text(1, 5<<20/raceScale),
		"data/shop/orders/0001": text(2, 3<<20/raceScale+17),
		"data/shop/blobs/0000":  randomBytes(3, 6<<20/raceScale),
		"data/shop/empty/0000":  {},
	}
	for i := range 200 {
		c[fmt.Sprintf("data/small/t%03d", i)] = text(uint64(1000+i), 50+i*37)
	}
	holes := append(randomBytes(4, 300<<10), make([]byte, 1<<20)...)
	holes = append(append(holes, randomBytes(5, 1<<20)...), make([]byte, 70<<10)...)
	c["disk"] = holes
	return c
}

func writeMember(t testing.TB, b *Backup, ordinal int, c content) record.Commit {
	t.Helper()
	w, err := b.Member(t.Context(), ordinal)
	require.NoError(t, err)
	commit, err := writeContent(t.Context(), w, c)
	require.NoError(t, err)
	return commit
}

func writeContent(ctx context.Context, w *MemberWriter, c content) (record.Commit, error) {
	defer w.Abort()
	for name, data := range c {
		s, err := w.Create(ctx, name, StreamOptions{Secret: name == "secret"})
		if err != nil {
			return record.Commit{}, err
		}
		for len(data) > 0 {
			n := min(len(data), 100_000)
			if _, err := s.Write(data[:n]); err != nil {
				s.Abort(err)
				return record.Commit{}, err
			}
			data = data[n:]
		}
		if err := s.Close(); err != nil {
			return record.Commit{}, err
		}
	}
	return w.Commit(ctx, testReport(), CommitStatus{})
}

func writeBackup(t testing.TB, r *Repository, members ...content) record.BackupID {
	t.Helper()
	ordinals := make([]int, len(members))
	for i := range members {
		ordinals[i] = i
	}
	b, err := r.Begin(t.Context(), testPlan(0, ordinals...), "attempt-1")
	require.NoError(t, err)
	for i, c := range members {
		writeMember(t, b, i, c)
	}
	require.NoError(t, b.Close())
	return b.Plan().ID
}

func readMember(ctx context.Context, r *Repository, id record.BackupID, ordinal int) (content, error) {
	info, err := r.Resolve(ctx, testSet, Selector{ID: id, Allow: true})
	if err != nil {
		return nil, err
	}
	m, err := r.OpenMember(ctx, info, ordinal)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Close() }()
	c := make(content)
	for _, s := range m.Map().Streams {
		body, err := m.Open(ctx, s.Name)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(body)
		_ = body.Close()
		if err != nil {
			return nil, err
		}
		c[s.Name] = data
	}
	return c, nil
}

func requireContent(t testing.TB, want, got content) {
	t.Helper()
	require.Len(t, got, len(want))
	for name, data := range want {
		require.True(t, bytes.Equal(data, got[name]), "stream %s differs", name)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			want := testContent()
			id := writeBackup(t, open(t, store, m.writer, small()), want, want)
			r := open(t, store, m.restore, Options{})
			for ordinal := range 2 {
				got, err := readMember(t.Context(), r, id, ordinal)
				require.NoError(t, err)
				requireContent(t, want, got)
			}
			info, err := r.Resolve(t.Context(), testSet, Selector{})
			require.NoError(t, err)
			require.Equal(t, id, info.ID)
			require.Equal(t, StatusComplete, info.Status)
			require.Empty(t, info.Problems)
			require.Less(t, info.Members[1].Commit.Stored, int64(100), "the second member repeats the first")
		})
	}
}

func TestSecondBackupStoresOnlyWhatChanged(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			first := testContent()
			writeBackup(t, open(t, store, m.writer, small()), first)
			second := testContent()
			second["data/shop/orders/0001"] = append(second["data/shop/orders/0001"], "one more row\n"...)
			r := open(t, store, m.writer, small())
			b, err := r.Begin(t.Context(), testPlan(1, 0), "attempt-1")
			require.NoError(t, err)
			commit := writeMember(t, b, 0, second)
			require.NoError(t, b.Close())
			require.Less(t, commit.Stored, int64(1<<20))
			got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), b.Plan().ID, 0)
			require.NoError(t, err)
			requireContent(t, second, got)
		})
	}
}

func testChunker() record.Chunker {
	return record.Chunker{Algorithm: "fastcdc", Min: chunkMin, Average: chunkAverage, Max: chunkMax}
}

func testReport() record.Report {
	return record.Report{Engine: "mysql", Layout: "mysql/1", CapturedAt: time.Now(), Rows: 7}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
