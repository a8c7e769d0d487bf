package servers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The parts of the cache, named as hack/servers.sh names them: change both.
const (
	bookworm  = "debian-bookworm-1"
	bullseye  = "debian-bullseye-1"
	trixie    = "debian-trixie-1"
	sid       = "debian-sid-1"
	versitygw = "versitygw-v1.8.0"

	postgresBookworm = "postgres-bookworm-3"
	postgresSid      = "postgres-sid-3"
)

// ErrNotInstalled is returned when a program is missing from the cache.
var ErrNotInstalled = errors.New("run 'make servers' to install it into the cache")

// CacheDir returns the folder that `make servers` fills: $KEEPSET_CACHE, else keepset in the user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("KEEPSET_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return filepath.Join(dir, "keepset"), nil
}

// FindTool returns the path of a program of the cache. The names are those of the packages: age, age-keygen, curl, jq,
// zstd, mariadb, mariadb-dump, mariadb-admin, mariadb-backup, mbstream, mydumper, myloader, sysbench, mysql, mysqldump,
// mysqladmin, restic, and the servers mariadbd, mysqld and versitygw. MariaDB's are those of version 10.11. The error
// wraps ErrNotInstalled.
func FindTool(name string) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	for _, dir := range []string{
		filepath.Join(cache, bookworm, "tools"),
		filepath.Join(cache, sid, "tools"),
		filepath.Join(cache, versitygw),
	} {
		path := filepath.Join(dir, name)
		switch _, err := os.Stat(path); {
		case err == nil:
			return path, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("find %s: %w", name, err)
		}
	}
	return "", fmt.Errorf("%s is not in %s: %w", name, cache, ErrNotInstalled)
}

// Tool is FindTool for a test: it fails the test when the program is missing.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := FindTool(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// packageRoot returns the folder into which a set of Debian packages is unpacked.
func packageRoot(name string) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	root := filepath.Join(cache, name)
	if _, err := os.Stat(root); err != nil {
		return "", fmt.Errorf("%s: %w", root, ErrNotInstalled)
	}
	return root, nil
}

// once returns the folder $cache/name, which build fills on the first call on this machine. Processes that ask for
// the same folder at once wait for the one that builds it; a build that fails leaves nothing behind.
func once(ctx context.Context, name string, build func(ctx context.Context, dir string) error) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, name)
	lock, err := os.OpenFile(final+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", fmt.Errorf("lock %s: %w", name, err)
	}
	defer lock.Close() //nolint:errcheck // closing releases the lock, and nothing was written
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", name, err)
	}
	switch _, err := os.Stat(final); {
	case err == nil:
		return final, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	temporary, err := os.MkdirTemp(cache, "tmp.")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if err := build(ctx, temporary); err != nil {
		return "", errors.Join(fmt.Errorf("build %s: %w", name, err), os.RemoveAll(temporary))
	}
	if err := os.Rename(temporary, final); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return final, nil
}
