package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An archive is read here as docker and as an OCI tool read it: from its
// entry point down, every digest checked.
func TestArchiveIsWholeForDockerAndOCI(t *testing.T) {
	plain := filesLayer(t, false)
	zipped := filesLayer(t, true)
	var out bytes.Buffer
	err := Write(&out, "keepset-test/thing:1", Image{
		Architecture: "arm64", Config: Config{User: "65532:65532", Cmd: []string{"thing"}}, Layers: []Layer{plain, zipped},
	})
	if err != nil {
		t.Fatal(err)
	}
	entries := readTar(t, &out)

	var docker []dockerManifest
	decode(t, entries["manifest.json"], &docker)
	if len(docker) != 1 || !slices.Equal(docker[0].RepoTags, []string{"keepset-test/thing:1"}) || len(docker[0].Layers) != 2 {
		t.Fatalf("manifest.json: %+v", docker)
	}
	for _, name := range append(docker[0].Layers, docker[0].Config) {
		if _, ok := entries[name]; !ok {
			t.Errorf("manifest.json names %s, which is missing", name)
		}
	}

	var idx index
	decode(t, entries["index.json"], &idx)
	if got := idx.Manifests[0].Annotations["io.containerd.image.name"]; got != "docker.io/keepset-test/thing:1" {
		t.Errorf("name for containerd is %q", got)
	}
	var m manifest
	decode(t, blobOf(t, entries, idx.Manifests[0]), &m)
	var config imageConfig
	decode(t, blobOf(t, entries, m.Config), &config)
	if config.Architecture != "arm64" || config.OS != "linux" || config.Config.User != "65532:65532" {
		t.Errorf("configuration: %+v", config)
	}
	for i, layer := range m.Layers {
		data := blobOf(t, entries, layer)
		if strings.HasSuffix(layer.MediaType, "+gzip") {
			data = unzip(t, data)
		}
		if got := digestOf(data); got != config.RootFS.DiffIDs[i] {
			t.Errorf("layer %d unpacks to %s, the configuration says %s", i, got, config.RootFS.DiffIDs[i])
		}
	}
}

func TestSeveralPlatformsMakeOneIndex(t *testing.T) {
	layer := filesLayer(t, true)
	var out bytes.Buffer
	err := Write(&out, "thing:2", Image{Architecture: "amd64", Layers: []Layer{layer}}, Image{Architecture: "arm64", Layers: []Layer{layer}})
	if err != nil {
		t.Fatal(err)
	}
	entries := readTar(t, &out)
	var top, platforms index
	decode(t, entries["index.json"], &top)
	if len(top.Manifests) != 1 || top.Manifests[0].MediaType != mediaIndex {
		t.Fatalf("index.json: %+v", top)
	}
	decode(t, blobOf(t, entries, top.Manifests[0]), &platforms)
	var got []string
	for _, d := range platforms.Manifests {
		got = append(got, d.Platform.OS+"/"+d.Platform.Architecture)
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(got, want) {
		t.Fatalf("platforms %v, want %v", got, want)
	}
}

func TestSameInputGivesSameBytes(t *testing.T) {
	var archives [2]bytes.Buffer
	for i := range archives {
		if err := Write(&archives[i], "thing:1", Image{Architecture: "amd64", Layers: []Layer{filesLayer(t, true)}}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) {
		t.Fatal("two archives of the same files differ")
	}
}

// A layer that is changed between its digest and its use must not get into an
// image under the old digest.
func TestChangedLayerIsRefused(t *testing.T) {
	layer := filesLayer(t, false)
	data, err := os.ReadFile(layer.Path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(layer.Path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), "image.tar")
	if err := WriteFile(dest, "thing:1", Image{Architecture: "amd64", Layers: []Layer{layer}}); err == nil {
		t.Fatal("the changed layer was accepted")
	}
	if _, err := os.Stat(dest); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a failed write leaves a file: %v", err)
	}
}

func TestNameNeedsTag(t *testing.T) {
	for _, name := range []string{"thing", "localhost:5000/thing", ":1", "thing:"} {
		if err := Write(io.Discard, name, Image{Architecture: "amd64"}); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	for name, want := range map[string]string{
		"thing:1": "docker.io/library/thing:1", "a/thing:1": "docker.io/a/thing:1", "example.com/a/thing:1": "example.com/a/thing:1",
	} {
		if got, _, err := fullName(name); err != nil || got != want {
			t.Errorf("%s becomes %s (%v), want %s", name, got, err, want)
		}
	}
}

func TestTreeKeepsModesAndLinks(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "bin", "tool"), "tool", 0o755)
	write(t, filepath.Join(root, "etc", "secret"), "secret", 0o600)
	write(t, filepath.Join(root, "var", "cache", "big"), "big", 0o644)
	if err := os.Link(filepath.Join(root, "bin", "tool"), filepath.Join(root, "bin", "tool2")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("tool", filepath.Join(root, "bin", "alias")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "bin", "tool"), 0o755|fs.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), "layer.tar")
	layer, err := TreeLayer(dest, root, func(name string) bool { return name == "var/cache" })
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenLayer(dest)
	if err != nil || again != layer {
		t.Fatalf("opened again it is %+v (%v), want %+v", again, err, layer)
	}
	file, err := os.Open(dest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var got []string
	tr := tar.NewReader(file)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Join([]string{h.Name, h.FileInfo().Mode().String(), h.Linkname}, " "))
	}
	want := []string{
		"bin/ drwxr-xr-x ", "bin/alias Lrwxrwxrwx tool", "bin/tool urwxr-xr-x ", "bin/tool2 urwxr-xr-x bin/tool",
		"etc/ drwxr-xr-x ", "etc/secret -rw------- ", "var/ drwxr-xr-x ",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func filesLayer(t *testing.T, compress bool) Layer {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	write(t, source, "#!program", 0o755)
	layer, err := FilesLayer(filepath.Join(t.TempDir(), "layer"), compress, map[string]File{
		"usr/local/bin/program": {Source: source, Mode: 0o755},
		"etc/passwd":            {Data: []byte("x"), Mode: 0o644},
		"tmp":                   {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	})
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

func write(t *testing.T, file, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func readTar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	entries := map[string][]byte{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := entries[h.Name]; twice {
			t.Fatalf("%s is there twice", h.Name)
		}
		if entries[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func blobOf(t *testing.T, entries map[string][]byte, d descriptor) []byte {
	t.Helper()
	data, ok := entries[blobPath(d.Digest)]
	if !ok || digestOf(data) != d.Digest || int64(len(data)) != d.Size {
		t.Fatalf("blob %s: there: %v, digest %s, %d bytes of %d", d.Digest, ok, digestOf(data), len(data), d.Size)
	}
	return data
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return digest(sum[:])
}

func unzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("decode %s: %v", data, err)
	}
}
