package job_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/filetree"
	"keepset/internal/filetree/filetreetest"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage"
	"keepset/internal/storage/storagetest"
)

// soaking says that tests run at full size.
func soaking() bool { return os.Getenv("KEEPSET_SOAK") != "" }

// plant makes a tree of so many small files, 100 in a directory, the same for
// the same seed.
func plant(t *testing.T, seed uint64, files int) string {
	t.Helper()
	root := t.TempDir()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range files {
		dir := fmt.Sprintf("%s/%d/%d", root, i/10_000, i/100)
		if i%100 == 0 {
			require.NoError(t, os.MkdirAll(dir, 0o755))
		}
		content := fmt.Sprintf("file %d\n%s", i, strings.Repeat("line of text\n", r.IntN(300)))
		require.NoError(t, os.WriteFile(fmt.Sprintf("%s/%d", dir, i), []byte(content), 0o644))
	}
	return root
}

// kinds is how many entries of every kind a tree has beside its small files.
const kinds = 120

// plantKinds is plant, and entries of every kind there is.
func plantKinds(t *testing.T, seed uint64, files int) string {
	t.Helper()
	root := plant(t, seed, files)
	require.NoError(t, os.Mkdir(root+"/kinds", 0o755))
	filetreetest.GrowAt(t, root+"/kinds", seed, kinds)
	return root
}

// files returns a job over directories. Its clock is ahead of the files' times.
func (w *world) files(paths ...string) *job.Backup {
	b := w.backup()
	b.Plan.Method, b.Plan.Engine = record.MethodFiles, ""
	b.Discover = job.Directories(paths)
	b.Files = &filetree.SaveOptions{Workers: 2, Clock: func() time.Time { return time.Now().Add(time.Hour) }}
	return b
}

func (w *world) loadFiles(to string) *job.LoadFiles {
	return &job.LoadFiles{
		Repository: w.repo, Set: testSet, Choice: job.Choice{Whole: true, Ordinals: []int{0}}, Clock: w.clock.Now, Log: w.backup().Log,
		Options: filetree.RestoreOptions{Path: to, Workers: 2},
	}
}

func (w *world) restoreFiles(t *testing.T) string {
	t.Helper()
	to := t.TempDir() + "/restored"
	_, err := w.loadFiles(to).Run(t.Context())
	require.NoError(t, err)
	return to
}

// TestFiles: directories are backed up, what has not changed is not read again,
// and comes back all the same.
func TestFiles(t *testing.T) {
	files := 2_000
	if soaking() {
		files = 200_000
	}
	w := newWorld(t)
	root := plantKinds(t, 1, files)
	start := time.Now()
	report, err := w.files(root).Run(t.Context())
	require.NoError(t, err)
	first := report.Members[0]
	t.Logf("measured: first backup of %d files: %d bytes, %d stored, in %.1f s", files, first.Bytes, first.Stored, time.Since(start).Seconds())
	require.Greater(t, first.Rows, int64(files))

	for i := 0; i < files; i += files / 10 {
		path := fmt.Sprintf("%s/%d/%d/%d", root, i/10_000, i/100, i)
		require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "changed %d", i), 0o644))
	}
	want := filetreetest.Lines(t, root)
	start = time.Now()
	report, err = w.files(root).Run(t.Context())
	require.NoError(t, err)
	second := report.Members[0]
	member, counts := w.open(t)
	t.Logf("measured: second backup: %d of %d files read, %d bytes stored, in %.1f s", counts.Files-counts.Unchanged, counts.Files, second.Stored, time.Since(start).Seconds())
	require.Greater(t, counts.Files, int64(files))
	require.EqualValues(t, 10, counts.Files-counts.Unchanged)
	require.Less(t, second.Stored, first.Stored/10)
	// Two are of directories and of the rest, each reader of files ends with one that is not full, and large files have their own.
	require.Less(t, int64(len(member.Map().Streams)), 5+kinds+second.Bytes/(32<<20), "many files share a stream")
	require.NoError(t, member.Close())

	start = time.Now()
	to := w.restoreFiles(t)
	t.Logf("measured: restored in %.1f s", time.Since(start).Seconds())
	filetreetest.RequireSame(t, want, to)
}

// TestReadAsOfTheCut: what changed within a minute before the snapshot was cut that it is
// read from is read again by the next backup, and that is not the time of the reading.
func TestReadAsOfTheCut(t *testing.T) {
	for after, unchanged := range map[time.Duration]int64{0: 0, 20 * time.Second: 0, time.Hour: 3} {
		w := newWorld(t)
		root := plant(t, 1, 3)
		cut := time.Now().Add(after)
		for range 2 {
			b := w.files(root)
			b.FromSnapshot = &job.FromSnapshot{Name: "vs", CutAt: cut}
			_, err := b.Run(t.Context())
			require.NoError(t, err)
		}
		member, counts := w.open(t)
		require.NoError(t, member.Close())
		require.Equal(t, unchanged, counts.Unchanged, "%s after they were written", after)
	}
}

// open opens the newest backup.
func (w *world) open(t *testing.T) (*repository.MemberReader, filetree.Counts) {
	t.Helper()
	member, err := w.repo.OpenMember(t.Context(), w.list()[0], 0)
	require.NoError(t, err)
	counts, err := filetree.CountsOf(member.Report())
	require.NoError(t, err)
	return member, counts
}

// TestFilesAfterLostPacks: what the store has lost is read and stored again.
func TestFilesAfterLostPacks(t *testing.T) {
	w := newWorld(t)
	root := plant(t, 2, 500)
	_, err := w.files(root).Run(t.Context())
	require.NoError(t, err)
	for o, err := range w.store.List(t.Context(), "sets/"+testSet.String()+"/packs/") {
		require.NoError(t, err)
		require.NoError(t, w.store.Delete(t.Context(), o.Key))
	}
	_, err = w.files(root).Run(t.Context())
	require.NoError(t, err)
	filetreetest.RequireSame(t, filetreetest.Lines(t, root), w.restoreFiles(t))
}

// TestFilesOfOnePath: a backup of a part, taken by hand, does not have the next
// one read everything again.
func TestFilesOfOnePath(t *testing.T) {
	w := newWorld(t)
	root := plant(t, 7, 300)
	_, err := w.files(root).Run(t.Context())
	require.NoError(t, err)
	part := w.files(root)
	part.Plan.Paths = []string{"0/1"}
	part.Files.Patterns, err = filetree.ParsePatterns(part.Plan.Paths, nil)
	require.NoError(t, err)
	_, err = part.Run(t.Context())
	require.NoError(t, err)
	member, counts := w.open(t)
	require.NoError(t, member.Close())
	require.EqualValues(t, 100, counts.Files)
	require.EqualValues(t, 100, counts.Unchanged)
	// Nor is it what a restore of the whole takes.
	filetreetest.RequireSame(t, filetreetest.Lines(t, root), w.restoreFiles(t))
	_, err = w.files(root).Run(t.Context())
	require.NoError(t, err)
	member, counts = w.open(t)
	require.NoError(t, member.Close())
	require.EqualValues(t, 300, counts.Unchanged)
	filetreetest.RequireSame(t, filetreetest.Lines(t, root), w.restoreFiles(t))
}

// TestFilesKilled: whichever request to the store is the last one, the next
// attempt at the same backup completes it, and it is exact.
func TestFilesKilled(t *testing.T) {
	sizes := []struct{ files, kills int }{{400, 12}}
	if soaking() {
		sizes = []struct{ files, kills int }{{20_000, 60}, {200_000, 2}}
	}
	for _, size := range sizes {
		killFiles(t, size.files, size.kills)
	}
}

// killFiles kills backups of so many files at random requests to the store, as many
// as a backup that nobody harms has.
func killFiles(t *testing.T, files, kills int) {
	root := plantKinds(t, 3, files)
	want := filetreetest.Lines(t, root)
	r := rand.New(rand.NewPCG(4, 4))
	unharmed := newWorld(t)
	counted := storagetest.NewFaulty(unharmed.store)
	b := unharmed.files(root)
	b.Repository = unharmed.reopen(t, counted)
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	requests := 0
	for _, on := range []storagetest.Operation{storagetest.Put, storagetest.Get, storagetest.Stat, storagetest.List} {
		requests += counted.Calls(on)
	}
	for range kills {
		w := newWorld(t)
		b := w.files(root)
		last := r.IntN(requests)
		faulty := storagetest.NewFaulty(w.store)
		b.Repository = w.reopen(t, faulty)
		faulty.Inject(storagetest.Fault{Skip: last, Times: -1, Err: errors.New("killed")})
		if _, err := b.Run(t.Context()); err == nil {
			t.Logf("attempt with %d of %d requests was through", last, requests)
		}
		again := w.files(root)
		again.ID = b.ID
		_, err := again.Run(t.Context())
		require.NoError(t, err)
		filetreetest.RequireSame(t, want, w.restoreFiles(t))
	}
}

// reopen opens the world's repository over another store.
func (w *world) reopen(t *testing.T, store storage.Store) *repository.Repository {
	t.Helper()
	r, err := repository.Open(t.Context(), store, repository.Keys{}, repository.Options{Clock: w.clock.Now})
	require.NoError(t, err)
	return r
}

// TestFilesSuspect: an empty directory, one that has lost most of its entries,
// and one that could not be read whole.
func TestFilesSuspect(t *testing.T) {
	w := newWorld(t)
	root := plant(t, 5, 300)
	empty := t.TempDir()
	_, err := w.files(empty).Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	require.ErrorContains(t, err, "the directory is empty")

	_, err = w.files(root).Run(t.Context())
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(root+"/0/0"))
	require.NoError(t, os.RemoveAll(root+"/0/1"))
	_, err = w.files(root).Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	require.ErrorContains(t, err, "entries fell from 305 to 103")

	reasons := job.SuspectRules{}.Judge(record.Report{Layout: filetree.Layout, Rows: 9, Doubts: []string{"1 entries could not be read"}}, nil)
	require.Equal(t, []string{"1 entries could not be read"}, reasons)
}

// TestFilesOfAnotherMethod: a server's dump is not unpacked as files, nor files
// loaded into a server.
func TestFilesOfAnotherMethod(t *testing.T) {
	w := newWorld(t, 10)
	_, err := w.backup().Run(t.Context())
	require.NoError(t, err)
	_, err = w.loadFiles(t.TempDir()).Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)

	_, err = w.files(plant(t, 6, 10)).Run(t.Context())
	require.NoError(t, err)
	l := &job.Load{Repository: w.repo, Set: testSet, Choice: job.Choice{Ordinals: []int{0}}, Clock: w.clock.Now, Log: w.backup().Log}
	_, err = l.Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "restore load --target file:///dir")
}
