package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Load puts the images of an archive, as `docker save` or an OCI layout in a
// tar, where the kubelet finds them. Pods use them with imagePullPolicy Never
// or IfNotPresent.
func (n *Node) Load(ctx context.Context, archive string) error {
	for _, part := range n.nodes() {
		if err := part.load(ctx, archive); err != nil {
			return err
		}
	}
	return nil
}

// load loads an archive into one node.
func (n *Node) load(ctx context.Context, archive string) error {
	_, err := n.run(ctx, "ctr", "--address", n.socket(), "--namespace", "k8s.io",
		"images", "import", "--snapshotter", n.snapshotter(), archive)
	if err != nil {
		return fmt.Errorf("load image %s: %w", archive, err)
	}
	return nil
}

// imageNames reads the list of images, without the names that are digests.
func imageNames(list string) []string {
	var names []string
	for name := range strings.FieldsSeq(list) {
		if !strings.HasPrefix(name, "sha256:") {
			names = append(names, name)
		}
	}
	return names
}

// LoadOnce loads an archive whose file name tells its content, unless this
// cluster has it already; loaded tells which.
func (n *Node) LoadOnce(ctx context.Context, archive string) (loaded bool, err error) {
	mark := n.path("loaded", filepath.Base(archive))
	if _, err := os.Stat(mark); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for loaded image: %w", err)
	}
	if err := n.Load(ctx, archive); err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(mark), 0o755); err != nil {
		return true, fmt.Errorf("mark image as loaded: %w", err)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return true, fmt.Errorf("mark image as loaded: %w", err)
	}
	return true, nil
}

// Running tells whether images can be loaded.
func (n *Node) Running(ctx context.Context) bool { return n.containerdReady(ctx) == nil }
