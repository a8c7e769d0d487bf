// Package testimages builds the images that tests run in the cluster, without
// a registry: the pause image, database servers from Debian's packages, an S3
// server, stand-ins for products that cannot run here, and Keepset itself. A [Builder] leaves each as an archive in the
// cache; one that is there already is not built again, save Keepset's.
package testimages

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"keepset/test/cluster/internal/image"
	"keepset/test/cluster/internal/toolchain"
)

//go:embed files
var files embed.FS

// Builder builds images into the cache.
type Builder struct {
	Toolchain toolchain.Toolchain
	Tools     toolchain.Tools
	Log       *slog.Logger
}

// Archive is a built image.
type Archive struct {
	Name string // REPOSITORY:TAG
	Path string
}

// All builds every image that does not depend on Keepset's sources.
func (b Builder) All(ctx context.Context) ([]Archive, error) {
	var built []Archive
	for _, build := range []func(context.Context) (Archive, error){b.Pause, b.VersityGW, b.MariaDB, b.MySQL, b.Postgres, b.Postgres18, b.StandIns} {
		archive, err := build(ctx)
		if err != nil {
			return nil, err
		}
		built = append(built, archive)
	}
	return built, nil
}

// Pause is the image of a pod's sandbox.
func (b Builder) Pause(ctx context.Context) (Archive, error) {
	binary, err := b.Toolchain.Build(ctx, toolchain.Binary{
		Name: "pause", Dir: b.Toolchain.Source, Package: "./cmd/pause", Arch: runtime.GOARCH,
	})
	if err != nil {
		return Archive{}, err
	}
	return b.static(ctx, "keepset-test/pause:1", binary, image.Config{User: "65535:65535", Entrypoint: []string{"/pause"}},
		map[string]image.File{"pause": {Source: binary, Mode: 0o755}})
}

// versityGWVersion is the version of the S3 server.
const versityGWVersion = "v1.8.0"

// VersityGW is an S3 server that keeps objects as files in /data. Its root
// account is taken from ROOT_ACCESS_KEY_ID and ROOT_SECRET_ACCESS_KEY.
func (b Builder) VersityGW(ctx context.Context) (Archive, error) {
	binary, err := b.Toolchain.Install(ctx, "versitygw", "github.com/versity/versitygw/cmd/versitygw@"+versityGWVersion)
	if err != nil {
		return Archive{}, err
	}
	config := image.Config{
		Entrypoint:   []string{"/usr/local/bin/versitygw"},
		Cmd:          []string{"--port", ":7070", "posix", "/data"},
		ExposedPorts: map[string]struct{}{"7070/tcp": {}},
		Volumes:      map[string]struct{}{"/data": {}},
		Env:          []string{"PATH=/usr/local/bin"},
	}
	return b.static(ctx, "keepset-test/versitygw:"+versityGWVersion, binary, config, map[string]image.File{
		"usr/local/bin/versitygw": {Source: binary, Mode: 0o755},
		"data":                    {Mode: fs.ModeDir | 0o777},
		"tmp":                     {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	})
}

// static makes an image of a few files, known by the path of the binary, which
// holds the hash of what it was built from.
func (b Builder) static(_ context.Context, name, key string, config image.Config, content map[string]image.File) (Archive, error) {
	return b.cached(name, key, func(work, dest string) error {
		layer, err := image.FilesLayer(filepath.Join(work, "layer.tar"), false, content)
		if err != nil {
			return err
		}
		return image.WriteFile(dest, name, image.Image{Architecture: runtime.GOARCH, Config: config, Layers: []image.Layer{layer}})
	})
}

// cached returns the archive of that name and key, built if it is not there.
// build has a scratch directory, and writes the archive to dest whole.
func (b Builder) cached(name, key string, build func(work, dest string) error) (Archive, error) {
	dir := filepath.Join(b.Toolchain.Cache, "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Archive{}, fmt.Errorf("create image cache: %w", err)
	}
	sum := sha256.Sum256([]byte(name + "\n" + key))
	base := strings.ReplaceAll(filepath.Base(name), ":", "-")
	dest := filepath.Join(dir, fmt.Sprintf("%s-%s.tar", base, hex.EncodeToString(sum[:])[:12]))
	if _, err := os.Stat(dest); err == nil {
		return Archive{Name: name, Path: dest}, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Archive{}, fmt.Errorf("look for image: %w", err)
	}
	b.Log.Info("building image", "image", name)
	work, err := os.MkdirTemp(dir, "tmp.")
	if err != nil {
		return Archive{}, fmt.Errorf("create work directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // what stays behind does no harm
	if err := build(work, dest); err != nil {
		return Archive{}, fmt.Errorf("build image %s: %w", name, err)
	}
	return Archive{Name: name, Path: dest}, removeOlder(dest)
}

// removeOlder removes the archives that a new one replaces: they are large.
func removeOlder(dest string) error {
	name := filepath.Base(dest)
	pattern := filepath.Join(filepath.Dir(dest), name[:strings.LastIndexByte(name, '-')]+"-????????????.tar")
	older, _ := filepath.Glob(pattern) // the only error is a bad pattern
	for _, file := range older {
		if file == dest {
			continue
		}
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove replaced image: %w", err)
		}
	}
	return nil
}
