package dir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/storage"
	"keepset/internal/storage/dir"
	"keepset/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, base string) *dir.Store {
	t.Helper()
	s, err := dir.New(dir.Options{Path: base})
	require.NoError(t, err)
	return s
}

func keys(t *testing.T, s storage.Store) []string {
	t.Helper()
	found := []string{}
	for o, err := range s.List(t.Context(), "") {
		require.NoError(t, err)
		found = append(found, o.Key)
	}
	return found
}

func put(t *testing.T, s storage.Store, key string) {
	t.Helper()
	require.NoError(t, s.Put(t.Context(), key, strings.NewReader(key)))
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return open(t, t.TempDir()) })
}

func TestObjectsAreFilesNamedAfterTheirKey(t *testing.T) {
	base := t.TempDir()
	put(t, open(t, base), "sets/ns/db/plan")
	data, err := os.ReadFile(filepath.Join(base, "sets/ns/db/plan"))
	require.NoError(t, err)
	require.Equal(t, "sets/ns/db/plan", string(data))
}

func TestModes(t *testing.T) {
	base := filepath.Join(t.TempDir(), "a", "base")
	s, err := dir.Create(dir.Options{Path: base})
	require.NoError(t, err)
	put(t, s, "packs/ab")
	for name, want := range map[string]fs.FileMode{
		"": 0o700, "packs": 0o700, "packs/ab": 0o600, ".keepset-tmp": 0o700,
	} {
		info, err := os.Stat(filepath.Join(base, name))
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm(), "%q", name)
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	base := t.TempDir()
	put(t, open(t, base), "k")
	s, err := dir.Create(dir.Options{Path: base})
	require.NoError(t, err)
	require.Equal(t, []string{"k"}, keys(t, s))
}

func TestPathMustBeAbsolute(t *testing.T) {
	_, err := dir.New(dir.Options{Path: "backup"})
	require.ErrorIs(t, err, storage.ErrInvalid)
}

// A volume that is not mounted must never look like an empty repository, nor
// be filled in its place.
func TestMissingBase(t *testing.T) {
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, base := range map[string]string{
		"missing": filepath.Join(parent, "not", "mounted"), "a file": file,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, base)
			check := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, storage.ErrNoContainer)
				require.NotErrorIs(t, err, fs.ErrNotExist)
				require.ErrorContains(t, err, base)
			}
			check(s.Put(t.Context(), "a/b", strings.NewReader("x")))
			check(s.Put(t.Context(), "a", strings.NewReader("x")))
			_, err := s.Get(t.Context(), "a", 0, -1)
			check(err)
			_, err = s.Stat(t.Context(), "a/b")
			check(err)
			check(s.Delete(t.Context(), "a"))
			for _, err := range s.List(t.Context(), "a/") {
				check(err)
			}
			_, err = os.Stat(filepath.Join(parent, "not"))
			require.ErrorIs(t, err, fs.ErrNotExist, "nothing was created")
		})
	}
}

func TestBaseThatVanishesDuringAListing(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	s, err := dir.Create(dir.Options{Path: base})
	require.NoError(t, err)
	for _, key := range []string{"a/1", "b/1", "c/1"} {
		put(t, s, key)
	}
	var last error
	for _, err := range s.List(t.Context(), "") {
		if last = err; err == nil {
			require.NoError(t, os.RemoveAll(base))
		}
	}
	require.ErrorIs(t, last, storage.ErrNoContainer, "a shortened listing must not look whole")
}

func TestDeleteRemovesEmptyDirectories(t *testing.T) {
	base := t.TempDir()
	s := open(t, base)
	put(t, s, "a/b/c")
	put(t, s, "a/d")
	require.NoError(t, s.Delete(t.Context(), "a/b/c"))
	require.NoDirExists(t, filepath.Join(base, "a/b"))
	require.NoError(t, s.Delete(t.Context(), "a/d"))
	require.NoDirExists(t, filepath.Join(base, "a"))
	require.DirExists(t, base)
	put(t, s, "a/b/c")
}

func TestDirectoriesInTheWay(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "a/b")
	require.ErrorIs(t, s.Put(t.Context(), "a", strings.NewReader("x")), storage.ErrInvalid)
	require.Error(t, s.Put(t.Context(), "a/b/c", strings.NewReader("x")))
	require.Equal(t, []string{"a/b"}, keys(t, s))
}

// The root of a volume holds things that are nobody's objects.
func TestForeignFilesArePassedOver(t *testing.T) {
	base := t.TempDir()
	s := open(t, base)
	put(t, s, "packs/ab")
	for _, name := range []string{
		"lost+found/#123", ".snapshot/hourly/packs/ab", ".zfs/snapshot/x", "packs/.nfs000000012", ".keepset-tmp/half", "new\nline",
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(base, filepath.Dir(name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(base, name), []byte("x"), 0o600))
	}
	require.NoError(t, os.Symlink("packs/ab", filepath.Join(base, "link")))
	require.Equal(t, []string{"packs/ab"}, keys(t, s))
	_, err := s.Stat(t.Context(), "link")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.Get(t.Context(), "link", 0, -1)
	require.Error(t, err)
	require.ErrorIs(t, s.Put(t.Context(), "lost+found/x", strings.NewReader("x")), storage.ErrInvalid)
}

func TestTruncatedFile(t *testing.T) {
	base := t.TempDir()
	s := open(t, base)
	put(t, s, "k")
	r, err := s.Get(t.Context(), "k", 0, -1)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(filepath.Join(base, "k"), 0))
	_, err = r.Read(make([]byte, 10))
	require.ErrorContains(t, err, "unexpected EOF")
	require.NoError(t, r.Close())
}

// temporaries returns the names in the directory of half-written files.
func temporaries(t *testing.T, base string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(base, ".keepset-tmp"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

func TestNothingTemporaryRemains(t *testing.T) {
	base := t.TempDir()
	s := open(t, base)
	put(t, s, "k")
	require.ErrorIs(t, s.Put(t.Context(), "k", strings.NewReader("x")), storage.ErrExists)
	_, err := s.Probe(t.Context(), "k", strings.NewReader("k"))
	require.NoError(t, err)
	require.Empty(t, temporaries(t, base))
}
