package clitest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// NewWorld is a directory for a repository, and a cluster. extra says more
// about its state; it may be nil.
func NewWorld(t *testing.T, extra func(*testing.T) string, env ...string) World {
	t.Helper()
	directory := filepath.Join(t.TempDir(), "repository")
	cluster := NewCluster(t)
	return World{
		Repository: directory, Cluster: cluster,
		Env: append([]string{
			"KEEPSET_REPOSITORY=file://" + directory, "KEEPSET_SET=mysql/mysql", "KEEPSET_KUBECONFIG=" + cluster.Kubeconfig,
		}, env...),
		State: func(t *testing.T) string {
			state := fmt.Sprintf("%d changes of the cluster\n", cluster.Changes()) + files(t, directory)
			if extra != nil {
				state += extra(t)
			}
			return state
		},
	}
}

// files lists what is in a directory.
func files(t *testing.T, directory string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(directory, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !e.IsDir() {
			fmt.Fprintf(&b, "%s %d %s\n", path, info.Size(), info.ModTime())
		}
		return nil
	})
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return b.String()
}
