// Package image writes container images as files: no registry, no daemon, no
// builder. An [Image] is a platform, a configuration and layers; [Write] puts
// one or more of them into an archive that `docker load`, `podman load`,
// `skopeo copy oci-archive:` and containerd's `ctr images import` all read: an
// OCI layout (https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md)
// that for a single image also carries the manifest.json of `docker save`.
//
// The same input gives the same bytes: no clock and no directory order enters
// an archive.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// Config is what a container starts from, in the names of the OCI image
// configuration.
type Config struct {
	User         string              `json:"User,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
}

// Image is one platform's image. Layers are finished layer files, lowest first.
type Image struct {
	Architecture string // GOARCH; the operating system is linux
	Config       Config
	Layers       []Layer
}

// Layer is a layer in a file of the caller, which must outlive [Write].
type Layer struct {
	Path   string
	Size   int64
	Digest string // sha256:... of the file
	DiffID string // sha256:... of the uncompressed tar
	Gzip   bool
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type imageConfig struct {
	Created      string `json:"created"`
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       Config `json:"config"`
	RootFS       rootFS `json:"rootfs"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// dockerManifest is an entry of the manifest.json of `docker save`.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// WriteFile writes the archive so that a file of that name is always complete.
func WriteFile(path, name string, images ...Image) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return fmt.Errorf("create image archive: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name()) // the error that matters is the first
		}
	}()
	if err := Write(file, name, images...); err != nil {
		_ = file.Close()
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return fmt.Errorf("set mode of image archive: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("close image archive: %w", err)
	}
	return os.Rename(file.Name(), path)
}

// Write writes an archive of the images under one name, REPOSITORY:TAG. Several
// images are the platforms of one multi-platform image.
func Write(w io.Writer, name string, images ...Image) error {
	full, tag, err := fullName(name)
	if err != nil {
		return err
	}
	if len(images) == 0 {
		return fmt.Errorf("write image %s: no platform given", name)
	}
	a := &archive{tw: tar.NewWriter(w), written: map[string]bool{}}
	var top []descriptor
	for _, img := range images {
		d, docker, err := a.image(img)
		if err != nil {
			return fmt.Errorf("write image %s: %w", name, err)
		}
		top = append(top, d)
		if len(images) == 1 {
			docker.RepoTags = []string{name}
			a.json("manifest.json", []dockerManifest{docker})
		}
	}
	if len(images) > 1 {
		// One name for all platforms needs an index of their own below the layout's.
		top = []descriptor{a.blob(mediaIndex, index{SchemaVersion: 2, MediaType: mediaIndex, Manifests: top})}
	}
	top[0].Annotations = map[string]string{
		"io.containerd.image.name":          full,
		"org.opencontainers.image.ref.name": tag,
	}
	a.json("index.json", index{SchemaVersion: 2, MediaType: mediaIndex, Manifests: top})
	a.json("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
	if a.err == nil {
		a.err = a.tw.Close()
	}
	if a.err != nil {
		return fmt.Errorf("write image %s: %w", name, a.err)
	}
	return nil
}

// fullName is the name as containerd stores it, with the registry and the
// library/ that docker leaves out.
func fullName(name string) (full, tag string, err error) {
	at := strings.LastIndexByte(name, ':')
	if at <= 0 || at == len(name)-1 || strings.Contains(name[at:], "/") {
		return "", "", fmt.Errorf("image name %q: want REPOSITORY:TAG", name)
	}
	full, tag = name, name[at+1:]
	first, _, slash := strings.Cut(name, "/")
	switch {
	case !slash:
		full = "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:"):
		full = "docker.io/" + name
	}
	return full, tag, nil
}

// archive is the tar being written. The first error sticks.
type archive struct {
	tw      *tar.Writer
	written map[string]bool
	err     error
}

// image writes the blobs of one platform.
func (a *archive) image(img Image) (descriptor, dockerManifest, error) {
	config := imageConfig{
		Created:      time.Unix(0, 0).UTC().Format(time.RFC3339),
		Architecture: img.Architecture,
		OS:           "linux",
		Config:       img.Config,
		RootFS:       rootFS{Type: "layers", DiffIDs: []string{}},
	}
	m := manifest{SchemaVersion: 2, MediaType: mediaManifest, Layers: []descriptor{}}
	var docker dockerManifest
	for _, layer := range img.Layers {
		d, err := a.layer(layer)
		if err != nil {
			return descriptor{}, dockerManifest{}, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.DiffID)
		m.Layers = append(m.Layers, d)
		docker.Layers = append(docker.Layers, blobPath(d.Digest))
	}
	m.Config = a.blob(mediaConfig, config)
	docker.Config = blobPath(m.Config.Digest)
	d := a.blob(mediaManifest, m)
	d.Platform = &platform{Architecture: img.Architecture, OS: "linux"}
	return d, docker, a.err
}

// layer copies a layer's file into the archive, and checks on the way that it
// still is what it was digested as.
func (a *archive) layer(layer Layer) (descriptor, error) {
	d := descriptor{MediaType: mediaLayer, Digest: layer.Digest, Size: layer.Size}
	if layer.Gzip {
		d.MediaType += "+gzip"
	}
	if a.err != nil || a.written[layer.Digest] {
		return d, a.err
	}
	file, err := os.Open(layer.Path)
	if err != nil {
		return d, fmt.Errorf("open layer: %w", err)
	}
	defer func() { _ = file.Close() }() // read only
	hash := sha256.New()
	a.header(blobPath(layer.Digest), layer.Size)
	if a.err == nil {
		if _, err := io.Copy(a.tw, io.TeeReader(file, hash)); err != nil {
			return d, fmt.Errorf("copy layer %s: %w", layer.Path, err)
		}
	}
	if got := digest(hash.Sum(nil)); a.err == nil && got != layer.Digest {
		return d, fmt.Errorf("layer %s changed while it was used: digest %s, want %s", layer.Path, got, layer.Digest)
	}
	a.written[layer.Digest] = true
	return d, a.err
}

// blob writes a document under its digest.
func (a *archive) blob(mediaType string, v any) descriptor {
	data, err := json.Marshal(v)
	if err != nil && a.err == nil {
		a.err = err
	}
	sum := sha256.Sum256(data)
	d := descriptor{MediaType: mediaType, Digest: digest(sum[:]), Size: int64(len(data))}
	if !a.written[d.Digest] {
		a.written[d.Digest] = true
		a.file(blobPath(d.Digest), data)
	}
	return d
}

func (a *archive) json(name string, v any) {
	data, err := json.Marshal(v)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.file(name, data)
}

func (a *archive) file(name string, data []byte) {
	a.header(name, int64(len(data)))
	if a.err == nil {
		_, a.err = io.Copy(a.tw, bytes.NewReader(data))
	}
}

func (a *archive) header(name string, size int64) {
	if a.err == nil {
		a.err = a.tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
	}
}

func blobPath(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

func digest(sum []byte) string { return "sha256:" + hex.EncodeToString(sum) }
