package testimages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"keepset/test/cluster/internal/image"
)

// certificates is where Debian, and Go's crypto/x509, keep the public CAs.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// Keepset writes the product's image, as the Dockerfile makes it, for each
// architecture (GOARCH): from the sources as they are, every time.
func (b Builder) Keepset(ctx context.Context, name, dest string, architectures ...string) (Archive, error) {
	if _, err := os.Stat(certificates); err != nil {
		return Archive{}, fmt.Errorf("read public CAs: %w; install the package ca-certificates", err)
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return Archive{}, fmt.Errorf("create directory of image: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dest), "tmp.")
	if err != nil {
		return Archive{}, fmt.Errorf("create work directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // what stays behind does no harm
	var images []image.Image
	for _, arch := range architectures {
		img, err := b.keepsetFor(ctx, filepath.Join(work, arch), arch)
		if err != nil {
			return Archive{}, fmt.Errorf("build image %s for %s: %w", name, arch, err)
		}
		images = append(images, img)
	}
	if err := image.WriteFile(dest, name, images...); err != nil {
		return Archive{}, err
	}
	return Archive{Name: name, Path: dest}, nil
}

// keepsetFor builds the binaries of one architecture and the layer with them.
func (b Builder) keepsetFor(ctx context.Context, work, arch string) (image.Image, error) {
	if err := os.MkdirAll(work, 0o755); err != nil {
		return image.Image{}, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=auto", "-ldflags", "-s -w", "-o", work+"/", "./cmd/backup", "./cmd/restore")
	cmd.Dir = filepath.Join(b.Toolchain.Source, "..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return image.Image{}, errors.New(string(out))
	}
	layer, err := image.FilesLayer(filepath.Join(work, "layer.tar.gz"), true, map[string]image.File{
		"usr/local/bin/backup":              {Source: filepath.Join(work, "backup"), Mode: 0o755},
		"usr/local/bin/restore":             {Source: filepath.Join(work, "restore"), Mode: 0o755},
		"etc/ssl/certs/ca-certificates.crt": {Source: certificates, Mode: 0o644},
		"etc/passwd":                        {Data: []byte("keepset:x:65532:65532:keepset:/:/sbin/nologin\n"), Mode: 0o644},
		"etc/group":                         {Data: []byte("keepset:x:65532:\n"), Mode: 0o644},
		"tmp":                               {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	})
	if err != nil {
		return image.Image{}, err
	}
	return image.Image{
		Architecture: arch,
		Layers:       []image.Layer{layer},
		Config: image.Config{
			User:       "65532:65532",
			Env:        []string{"PATH=/usr/local/bin"},
			Cmd:        []string{"backup", "--help"},
			WorkingDir: "/",
			Labels:     map[string]string{"org.opencontainers.image.title": "keepset", "org.opencontainers.image.licenses": "Apache-2.0"},
		},
	}, nil
}
