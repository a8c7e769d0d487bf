package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFilesFull: files that cannot fit into what the template asks for are refused
// while the old claim is there. With consent, a claim that fills up while it is restored
// is an error that says so. Its ordinal stays held, the others are as they were; once the claim is large
// enough, the same restore succeeds.
func TestFilesFull(t *testing.T) {
	t.Parallel()
	o := filesOptions{Replicas: 2, Mode: "ReadWriteOnce", Class: "csi-standard", settings: map[string]string{"KEEPSET_WORKER_ROOT": "true"}}
	s := newFilesSet(t, "privileged", o)
	for _, pod := range []string{"www-0", "www-1"} {
		s.kubectl("exec", pod, "--", "bash", "-c", "head -c 64M /dev/urandom > /www/large && sync && ln -s large /www/link")
	}
	sums := func(pod string) string {
		return s.kubectl("exec", pod, "--", "bash", "-c", "cd /www && md5sum large link")
	}
	first, second := sums("www-0"), sums("www-1")
	other := s.claim("data-www-1")
	s.fuzzy()
	s.jobOK("keepset-backup", "nightly")

	remake := func(size string) {
		o.Size = size
		s.kubectl("delete", "statefulset", "www", "--cascade=orphan")
		s.apply(render(t, "testdata/files.yaml", o))
	}
	remake("40Mi")
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "0", "KEEPSET_REPLACE": "true"})
	before := s.claim("data-www-0")
	s.once("keepset-restore", "refused")
	require.False(t, s.waitJob("refused", 10*time.Minute), s.logs("refused"))
	code, message, _ := s.ended("refused")
	assert.EqualValues(t, 64, code)
	assert.Contains(t, message, "template data, which asks for 40Mi: they will not fit")
	assert.Equal(t, before, s.claim("data-www-0"))
	assert.Equal(t, first, sums("www-0"))

	s.parameters(map[string]string{"KEEPSET_ORDINAL": "0", "KEEPSET_REPLACE": "true", "KEEPSET_ALLOW_SMALL_CLAIM": "true"})
	s.once("keepset-restore", "too-small")
	require.False(t, s.waitJob("too-small", 10*time.Minute), s.logs("too-small"))
	_, message, _ = s.ended("too-small")
	t.Log(message)
	assert.Contains(t, message, "no space left on device")
	assert.Contains(t, message, "ordinal 0")
	held := s.pod("www-0")
	require.NotNil(t, held)
	assert.Equal(t, "seed", held.Labels["app.kubernetes.io/component"], "the program does not come up on half of its files")
	assert.Equal(t, other, s.claim("data-www-1"))
	assert.Equal(t, second, sums("www-1"))

	remake("1Gi")
	s.once("keepset-restore", "large-enough")
	require.True(t, s.waitJob("large-enough", 10*time.Minute), s.logs("large-enough"))
	s.running(2)
	assert.Equal(t, first, sums("www-0"))
	assert.Equal(t, second, sums("www-1"))
}
