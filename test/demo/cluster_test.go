package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDemoClusterSaysWhereItRuns: with KUBECONFIG the demo on Kubernetes runs there and touches no other cluster. (The
// story itself is told in the long tests.)
func TestDemoClusterSaysWhereItRuns(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	// Whatever it calls to change something would show.
	tools, called := t.TempDir(), filepath.Join(t.TempDir(), "called")
	for _, name := range []string{"make", "kubectl"} {
		require.NoError(t, os.WriteFile(filepath.Join(tools, name), []byte("#!/bin/sh\necho $0 $@ >>"+called+"\nexit 1\n"), 0o700))
	}
	demo := func(env []string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "../../hack/demo-cluster.sh", args...)
		cmd.Env = append([]string{"PATH=" + tools + ":/usr/bin:/bin", "HOME=" + t.TempDir(), "TMPDIR=" + os.Getenv("TMPDIR")}, env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := demo(nil, "--dry-run")
	require.NoError(t, err, out)
	assert.Contains(t, out, "cluster: the local one")
	assert.Contains(t, out, "images: Keepset keepset:dev,")

	theirs := []string{"KUBECONFIG=/home/me/.kube/config", "DEMO_KEEPSET_IMAGE=registry:5000/keepset"}
	out, err = demo(theirs, "--dry-run")
	require.NoError(t, err, out)
	assert.Contains(t, out, "cluster: the one that KUBECONFIG names (/home/me/.kube/config)")
	assert.Contains(t, out, "images: Keepset registry:5000/keepset, database mariadb:10.11, S3 server versity/versitygw:v1.8.0")
	assert.NoFileExists(t, called)

	out, err = demo(theirs[:1])
	require.Error(t, err)
	assert.Contains(t, out, "set DEMO_KEEPSET_IMAGE")
	assert.NoFileExists(t, called)
	out, err = demo(theirs)
	require.Error(t, err)
	assert.Contains(t, out, "does not answer")
	calls, err := os.ReadFile(called)
	require.NoError(t, err)
	assert.NotContains(t, string(calls), "make", "another cluster is started or stopped by make")
	assert.NotContains(t, string(calls), "create")
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// TestDemoClusterFillsInTheManifests: the set and the store are templates of the end-to-end tests, of which the demo
// fills in every part.
func TestDemoClusterFillsInTheManifests(t *testing.T) {
	const script = `eval "$(sed -n '/^manifest()/,/^}/p' hack/demo-cluster.sh)"; database=d s3=s pull=Never; manifest "$0"`
	for _, file := range []string{"shop.yaml", "s3.yaml"} {
		cmd := exec.CommandContext(t.Context(), "bash", "-ec", script, file)
		cmd.Dir = "../.."
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Contains(t, string(out), "kind: ")
		assert.NotContains(t, string(out), "{{", file)
		assert.NotContains(t, string(out), "image: keepset-test", "an image of the tests in %s", file)
	}
}
