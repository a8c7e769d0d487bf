package testimages

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
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
	server   string // the program that runs
}

// MariaDB is the server of Debian 12, with its client and the usual
// behaviour of the official image: see files/database-entrypoint.sh.
func (b Builder) MariaDB(ctx context.Context) (Archive, error) {
	return b.database(ctx, database{
		name: "keepset-test/mariadb:10.11", suite: "bookworm", server: "mariadbd",
		packages: []string{"mariadb-server-core", "mariadb-client", "mariadb-backup", "tzdata"},
	})
}

// MySQL is the server of Debian's unstable suite, with the same entry point.
func (b Builder) MySQL(ctx context.Context) (Archive, error) {
	return b.database(ctx, database{
		name: "keepset-test/mysql:9.7", suite: "sid", server: "mysqld",
		packages: []string{"mysql-server-core", "mysql-client", "tzdata"},
	})
}

func (b Builder) database(ctx context.Context, db database) (Archive, error) {
	script, err := files.ReadFile("files/database-entrypoint.sh")
	if err != nil {
		return Archive{}, err
	}
	key := fmt.Sprintf("2 %s %s %x", db.suite, db.packages, sha256.Sum256(script)) // count up when what follows changes
	return b.cached(db.name, key, func(work, dest string) error {
		base, err := b.root(ctx, work, db)
		if err != nil {
			return err
		}
		own, err := image.FilesLayer(filepath.Join(work, "own.tar"), false, map[string]image.File{
			"usr/local/bin/docker-entrypoint.sh": {Data: script, Mode: 0o755},
			"docker-entrypoint-initdb.d":         {Mode: fs.ModeDir | 0o755},
			"etc/mysql/conf.d":                   {Mode: fs.ModeDir | 0o755},
			// As in the official images: no reverse lookups, and every address.
			"etc/mysql/conf.d/00-image.cnf": {Mode: 0o644, Data: []byte("[mysqld]\nskip-name-resolve\nbind-address = *\npid-file = /run/mysqld/mysqld.pid\nsocket = /run/mysqld/mysqld.sock\ndatadir = /var/lib/mysql\n")},
			"run/mysqld":                    {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
			"var/lib/mysql":                 {Mode: fs.ModeDir | 0o777},
			"var/lib/mysql-files":           {Mode: fs.ModeDir | 0o777}, // mysqld's default of secure_file_priv must exist
		})
		if err != nil {
			return err
		}
		return image.WriteFile(dest, db.name, image.Image{
			Architecture: runtime.GOARCH,
			Layers:       []image.Layer{base, own},
			Config: image.Config{
				Entrypoint:   []string{"docker-entrypoint.sh"},
				Cmd:          []string{db.server},
				Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
				ExposedPorts: map[string]struct{}{"3306/tcp": {}},
				Volumes:      map[string]struct{}{"/var/lib/mysql": {}},
			},
		})
	})
}

// root returns a layer with the packages of a suite. The layer is kept apart
// from the image: it takes a minute, and does not change with the script.
func (b Builder) root(ctx context.Context, work string, db database) (image.Layer, error) {
	sum := sha256.Sum256([]byte(strings.Join(db.packages, " ")))
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
	if err := addUser(dir); err != nil {
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
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive")
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
func addUser(root string) error {
	for file, line := range map[string]string{
		"etc/passwd": "mysql:x:999:999:database server:/var/lib/mysql:/usr/sbin/nologin\n",
		"etc/group":  "mysql:x:999:\n",
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

// unneeded tells what of a root file system no container needs.
func unneeded(name string) bool {
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "var/cache", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/lib/python3"} {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return slices.Contains([]string{"debootstrap"}, name)
}
