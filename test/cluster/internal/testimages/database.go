package testimages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"keepset/test/cluster/internal/image"
	"keepset/test/cluster/internal/mounts"
)

// database is an image made of a Debian suite and one entry point script.
type database struct {
	name     string // of the image
	suite    string
	packages []string
	// unpack are packages that are unpacked without running their scripts, which would start a server.
	unpack []string
	// dependencies: and so is what they need that is not there yet.
	dependencies bool
	server       string // the program that runs
	script       string // the entry point, in files
	user         string // whom the server runs as
	// extra are the image's own files beside the entry point.
	extra map[string]image.File
	port  string
	data  string // the volume
	env   []string
	stop  string // the signal that ends the server at once, unless it is SIGTERM
	// initialise makes an empty database in the directory emptyDatabase of the
	// root file system, so that no container spends seconds on it.
	initialise []string
}

// emptyDatabase is where the entry point finds what a new volume begins with.
const emptyDatabase = "/usr/share/empty-database"

// MariaDB is the server of Debian 12, with its client and the usual
// behaviour of the official image: see files/database-entrypoint.sh.
func (b Builder) MariaDB(ctx context.Context) (Archive, error) {
	return b.database(ctx, mysqlLike(database{
		name: "keepset-test/mariadb:10.11", suite: "bookworm", server: "mariadbd",
		packages: []string{"mariadb-server-core", "mariadb-client", "mariadb-backup", "tzdata"},
		initialise: []string{
			"mariadb-install-db", "--no-defaults", "--force", "--user=mysql", "--auth-root-authentication-method=normal",
			"--skip-test-db", "--skip-name-resolve", "--datadir=" + emptyDatabase,
		},
	}))
}

// MySQL is the server of Debian's unstable suite, with the same entry point.
func (b Builder) MySQL(ctx context.Context) (Archive, error) {
	return b.database(ctx, mysqlLike(database{
		name: "keepset-test/mysql:9.7", suite: "sid", server: "mysqld",
		packages:   []string{"mysql-server-core", "mysql-client", "tzdata"},
		initialise: []string{"mysqld", "--no-defaults", "--user=mysql", "--initialize-insecure", "--datadir=" + emptyDatabase},
	}))
}

// mysqlLike adds what the images of MariaDB and MySQL have in common.
func mysqlLike(db database) database {
	db.script, db.user, db.port, db.data = "database-entrypoint.sh", "mysql", "3306/tcp", "/var/lib/mysql"
	db.env = []string{"PATH=" + systemPath}
	db.extra = map[string]image.File{
		"etc/mysql/conf.d": {Mode: fs.ModeDir | 0o755},
		// As in the official images: no reverse lookups, and every address.
		"etc/mysql/conf.d/00-image.cnf": {Mode: 0o644, Data: []byte("[mysqld]\nskip-name-resolve\nbind-address = *\npid-file = /run/mysqld/mysqld.pid\nsocket = /run/mysqld/mysqld.sock\ndatadir = /var/lib/mysql\n")},
		"run/mysqld":                    {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		"var/lib/mysql":                 {Mode: fs.ModeDir | 0o777},
		"var/lib/mysql-files":           {Mode: fs.ModeDir | 0o777}, // mysqld's default of secure_file_priv must exist
	}
	return db
}

// Postgres is the server of Debian 12, with its client programs and the usual
// behaviour of the official image: see files/postgres-entrypoint.sh. The
// server's package is only unpacked, with the libraries that it needs named:
// its scripts would make a cluster and start it. Without LLVM it does not
// compile queries, which no test needs.
func (b Builder) Postgres(ctx context.Context) (Archive, error) {
	return b.database(ctx, postgres())
}

// Postgres18 is the same of Debian's unstable suite. As in the official image from
// that version on, its files are in a directory of the version's.
func (b Builder) Postgres18(ctx context.Context) (Archive, error) {
	return b.database(ctx, postgres18())
}

func postgres18() database {
	db := postgres()
	const data = "/var/lib/postgresql/18/docker"
	// Names of libraries change in that suite with their versions: they are found by the server's own package.
	db.name, db.suite, db.packages, db.unpack, db.dependencies = "keepset-test/postgres:18", "sid", []string{"tzdata"}, []string{"postgresql-18"}, true
	db.data, db.env = "/var/lib/postgresql", []string{"PATH=/usr/lib/postgresql/18/bin:" + systemPath, "PGDATA=" + data}
	db.extra = map[string]image.File{
		"run/postgresql":     {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		"var/lib/postgresql": {Mode: fs.ModeDir | 0o777},
	}
	return db
}

func postgres() database {
	const programs = "/usr/lib/postgresql/15/bin"
	return database{
		name: "keepset-test/postgres:15", suite: "bookworm", server: "postgres", script: "postgres-entrypoint.sh", user: "postgres",
		packages: []string{"postgresql-client-15", "libgssapi-krb5-2", "libicu72", "libldap-2.5-0", "libxml2", "libxslt1.1", "tzdata"},
		unpack:   []string{"postgresql-15"},
		port:     "5432/tcp", data: "/var/lib/postgresql/data", stop: "SIGINT", // SIGTERM waits for clients
		env: []string{"PATH=" + programs + ":" + systemPath, "PGDATA=/var/lib/postgresql/data"},
		extra: map[string]image.File{
			"run/postgresql":          {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
			"var/lib/postgresql/data": {Mode: fs.ModeDir | 0o777},
		},
	}
}

// systemPath is where programs are in Debian.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (b Builder) database(ctx context.Context, db database) (Archive, error) {
	script, err := files.ReadFile("files/" + db.script)
	if err != nil {
		return Archive{}, err
	}
	key := fmt.Sprintf("2 %s %s %x", db.suite, db.packages, sha256.Sum256(script)) // count up when what follows changes
	return b.cached(db.name, key, func(work, dest string) error {
		base, err := b.root(ctx, work, db)
		if err != nil {
			return err
		}
		content := map[string]image.File{
			"usr/local/bin/docker-entrypoint.sh": {Data: script, Mode: 0o755},
			"docker-entrypoint-initdb.d":         {Mode: fs.ModeDir | 0o755},
		}
		maps.Copy(content, db.extra)
		own, err := image.FilesLayer(filepath.Join(work, "own.tar"), false, content)
		if err != nil {
			return err
		}
		return image.WriteFile(dest, db.name, image.Image{
			Architecture: runtime.GOARCH,
			Layers:       []image.Layer{base, own},
			Config: image.Config{
				Entrypoint:   []string{"docker-entrypoint.sh"},
				Cmd:          []string{db.server},
				Env:          append(slices.Clone(db.env), "LANG=C.UTF-8"),
				ExposedPorts: map[string]struct{}{db.port: {}},
				Volumes:      map[string]struct{}{db.data: {}},
				StopSignal:   db.stop,
			},
		})
	})
}

// root returns a layer with the packages of a suite. The layer is kept apart
// from the image: it takes a minute, and does not change with the script.
func (b Builder) root(ctx context.Context, work string, db database) (image.Layer, error) {
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat(db.packages, db.initialise, db.unpack), " ")))
	kept := filepath.Join(b.Toolchain.Cache, "images", fmt.Sprintf("root-%s-%x.layer.tar", db.suite, sum[:6]))
	if _, err := os.Stat(kept); err == nil {
		return image.OpenLayer(kept)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return image.Layer{}, fmt.Errorf("look for root file system: %w", err)
	}
	dir := filepath.Join(work, "root")
	if err := b.debootstrap(ctx, dir, db); err != nil {
		return image.Layer{}, err
	}
	if err := addUser(dir, db); err != nil {
		return image.Layer{}, err
	}
	if err := unpack(ctx, dir, db); err != nil {
		return image.Layer{}, err
	}
	if err := initialise(ctx, dir, db); err != nil {
		return image.Layer{}, err
	}
	layer, err := image.TreeLayer(filepath.Join(work, "root.tar"), dir, unneeded)
	if err != nil {
		return image.Layer{}, err
	}
	if err := os.Rename(layer.Path, kept); err != nil {
		return image.Layer{}, fmt.Errorf("keep root file system: %w", err)
	}
	layer.Path = kept
	return layer, nil
}

// debootstrap installs a suite and packages into dir.
func (b Builder) debootstrap(ctx context.Context, dir string, db database) error {
	cmd := exec.CommandContext(ctx, b.Tools.Path("debootstrap"), "--variant=minbase",
		"--include="+strings.Join(db.packages, ","), db.suite, dir, "http://deb.debian.org/debian")
	cmd.Env = append(os.Environ(),
		"DEBOOTSTRAP_DIR="+filepath.Join(b.Tools.Debian, "usr/share/debootstrap"),
		"PATH="+systemPath, "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	// It mounts /proc for the packages' scripts, and leaves it when it fails.
	err = errors.Join(err, mounts.UnmountBelow(dir))
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if log, readErr := os.ReadFile(filepath.Join(dir, "debootstrap", "debootstrap.log")); readErr == nil {
			lines = append(lines, strings.Split(strings.TrimSpace(string(log)), "\n")...)
		}
		return fmt.Errorf("debootstrap %s: %w: %s", db.suite, err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	return nil
}

// addUser adds the account that the server runs under. The packages without
// services do not make it; the official images give it this number.
func addUser(root string, db database) error {
	for file, line := range map[string]string{
		"etc/passwd": db.user + ":x:999:999:database server:" + db.data + ":/usr/sbin/nologin\n",
		"etc/group":  db.user + ":x:999:\n",
	} {
		f, err := os.OpenFile(filepath.Join(root, file), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("add database user: %w", err)
		}
		_, err = f.WriteString(line)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("add database user: %w", err)
		}
	}
	return nil
}

// unpack puts packages into a root file system by its own apt, as they are.
func unpack(ctx context.Context, root string, db database) error {
	if len(db.unpack) == 0 {
		return nil
	}
	script := `set -e; cd "$(mktemp -d)"; apt-get -qq update; apt-get -qq download "$@"; for deb in ./*.deb; do dpkg -x "$deb" /; done`
	if db.dependencies {
		script = `set -e; cd "$(mktemp -d)"; mkdir partial; apt-get -qq -o Acquire::Check-Valid-Until=false update
			apt-get -qq -y --no-install-recommends --download-only -o Dir::Cache::archives="$PWD" install "$@"
			for deb in ./*.deb; do dpkg -x "$deb" /; done; ldconfig`
	}
	if out, err := inRoot(ctx, root, append([]string{"sh", "-c", script, "unpack"}, db.unpack...)); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", strings.Join(db.unpack, ", "), err, bytes.TrimSpace(out))
	}
	return nil
}

// inRoot runs a program in a root file system and returns all it writes.
func inRoot(ctx context.Context, root string, command []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "chroot", append([]string{root}, command...)...)
	cmd.Env = []string{"PATH=" + systemPath, "LANG=C.UTF-8"}
	return cmd.CombinedOutput()
}

// initialise makes the empty database, without what identifies a server.
func initialise(ctx context.Context, root string, db database) error {
	if len(db.initialise) == 0 {
		return nil
	}
	empty := filepath.Join(root, emptyDatabase)
	if err := os.Mkdir(empty, 0o755); err != nil {
		return fmt.Errorf("make directory of empty database: %w", err)
	}
	if err := os.Chown(empty, 999, 999); err != nil {
		return fmt.Errorf("make directory of empty database: %w", err)
	}
	if out, err := inRoot(ctx, root, db.initialise); err != nil {
		return fmt.Errorf("make empty database of %s: %w: %s", db.name, err, bytes.TrimSpace(out))
	}
	if err := os.Remove(filepath.Join(empty, "auto.cnf")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove identity of empty database: %w", err)
	}
	return nil
}

// unneeded tells what of a root file system no container needs.
func unneeded(name string) bool {
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "var/cache", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/lib/python3"} {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return slices.Contains([]string{
		"debootstrap", "usr/lib/postgresql/15/lib/bitcode", "usr/lib/postgresql/15/lib/llvmjit.so", "usr/lib/postgresql/18/lib/bitcode", "usr/lib/postgresql/18/lib/llvmjit.so",
	}, name)
}
