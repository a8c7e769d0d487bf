package repository

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares data with a file of testdata.
func golden(t *testing.T, name string, data []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, data), "%s has changed: version 1 is what it is", path)
}

func TestGoldenBinaryStructures(t *testing.T) {
	golden(t, "packtable.v1.bin", sampleTable())
	golden(t, "part.v1.bin", encodePart([nonceSize]byte{1}, sampleEntries()))
	golden(t, "memos.v1.bin", encodeMemos([nonceSize]byte{1}, 7, sampleMemos()))
	frames, err := parseTable(sampleTable())
	require.NoError(t, err)
	require.Len(t, frames, 2)
	require.Equal(t, uint32(5), frames[0].Chunks[1].Length)
}

// TestGoldenChunks pins where version 1 cuts.
func TestGoldenChunks(t *testing.T) {
	c := record.Chunker{Algorithm: "fastcdc", Min: 1 << 10, Average: 4 << 10, Max: 16 << 10}
	data, err := json.Marshal(cuts(randomBytes(7, 200<<10), 1000, c))
	require.NoError(t, err)
	golden(t, "chunks.v1.json", append(data, '\n'))
}

func TestGoldenKeys(t *testing.T) {
	l, id := layout{testSet}, record.BackupID("20261120T131730Z-1a2b3c4d")
	var b bytes.Buffer
	for _, key := range []string{
		keyConfig(0), keyKeyFile(1, "0123456789abcdef"), l.origin(), l.plan(id), l.checkpoint(id, 2, "a-1", 3), l.pack(hash{1}), l.part(hash{2}),
		l.mapOf(hash{3}), l.ref(hash{4}), l.commit(id, 2, "a-1"), l.report(id, "a-1"), l.prunes() + "20261120T131730Z",
	} {
		b.WriteString(key + "\n")
	}
	golden(t, "keys.v1.txt", b.Bytes())
}

// goldenRemembered is a stream that a later backup can take over.
const goldenRemembered = "volume"

// goldenRepository is a whole repository, with the keys to read it.
type goldenRepository struct {
	Stored  time.Time         `json:"stored"`
	Restore []Value           `json:"restore"`
	Writer  []Value           `json:"writer"`
	Objects map[string][]byte `json:"objects"`
}

func goldenContent() content {
	return content{
		"schemas/shop/tables/orders.sql": []byte("CREATE TABLE orders (id INT)"),
		"schemas/shop/data/orders.tsv":   text(1, 20<<10),
		"disk":                           slices.Concat(randomBytes(2, 3000), make([]byte, 100<<10), randomBytes(3, 500)),
		"empty":                          {},
		"secret":                         []byte("hunter2"),
	}
}

// TestGoldenRepository reads repositories that the first version wrote.
func TestGoldenRepository(t *testing.T) {
	for _, name := range []string{"plain", "encrypted"} {
		path := filepath.Join("testdata", "repository-"+name+".v1.json")
		if *update {
			writeGolden(t, path, name == "encrypted")
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		var g goldenRepository
		require.NoError(t, json.Unmarshal(data, &g))
		store := mem.New(mem.Options{Now: func() time.Time { return g.Stored }})
		for key, object := range g.Objects {
			require.NoError(t, store.Put(t.Context(), key, bytes.NewReader(object)))
		}
		r := open(t, store, keysOf(t, g.Restore), Options{})
		info, err := r.Resolve(t.Context(), testSet, Selector{})
		require.NoError(t, err)
		got, err := readMember(t.Context(), r, info.ID, 0)
		require.NoError(t, err)
		want := goldenContent()
		want[goldenRemembered] = want["disk"]
		requireContent(t, want, got)
		report, err := r.Verify(t.Context(), VerifyOptions{ReadData: 100})
		require.NoError(t, err)
		require.Empty(t, report.Damages)
		require.Empty(t, report.Problems)
		requireReusable(t, store, g, want[goldenRemembered])
	}
}

// requireReusable: the next backup reads nothing of the remembered stream.
func requireReusable(t *testing.T, store storage.Store, g goldenRepository, want []byte) {
	t.Helper()
	o := small()
	o.Clock = func() time.Time { return g.Stored }
	b, err := open(t, store, keysOf(t, g.Writer), o).Begin(t.Context(), planAt(g.Stored.Add(time.Second), "2b3c4d5e", 0), "attempt-2")
	require.NoError(t, err)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	e, found, err := w.Recall(t.Context(), "volume", []byte("snap-1"))
	require.NoError(t, err)
	require.True(t, found)
	s, err := w.Create(t.Context(), "disk", StreamOptions{})
	require.NoError(t, err)
	n, err := s.Reuse(e, 0, e.Size())
	require.NoError(t, err)
	require.EqualValues(t, len(want), n)
	require.NoError(t, s.Close())
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	got, err := readMember(t.Context(), open(t, store, keysOf(t, g.Restore), Options{}), b.Plan().ID, 0)
	require.NoError(t, err)
	requireContent(t, content{"disk": want}, got)
}

func writeGolden(t *testing.T, path string, encrypted bool) {
	t.Helper()
	g := goldenRepository{Stored: newClock().now, Objects: make(map[string][]byte)}
	m := plainMode()
	if encrypted {
		set, err := Keygen(nil)
		require.NoError(t, err)
		g.Restore, g.Writer = set.Restore, set.Writer
		m = mode{writer: keysOf(t, set.Writer)}
	}
	c := newClock()
	store := initAt(t, m, c)
	o := small()
	o.Clock = c.Now
	b, err := open(t, store, m.writer, o).Begin(t.Context(), planAt(c.now, "1a2b3c4d", 0), "attempt-1")
	require.NoError(t, err)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	remembered := goldenContent()["disk"]
	s, err := w.Create(t.Context(), goldenRemembered, blockOptions("snap-1"))
	require.NoError(t, err)
	require.NoError(t, writeAll(s, remembered))
	require.NoError(t, w.AddVolumeSnapshots([]record.VolumeSnapshot{testVolumeSnapshot("snap-1")}))
	_, err = writeContent(t.Context(), w, goldenContent())
	require.NoError(t, err)
	require.NoError(t, b.Close())
	for _, key := range keysBelow(t, store, "") {
		g.Objects[key] = readObject(t, store, key)
	}
	data, err := json.MarshalIndent(g, "", " ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(data, '\n'), 0o644))
}
