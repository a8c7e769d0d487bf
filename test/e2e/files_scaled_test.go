package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFilesScaledUp: a set that is scaled up while a worker reads its claim has a
// suspect backup, and one that is up when its turn comes none at all.
func TestFilesScaledUp(t *testing.T) {
	t.Parallel()
	s := newFilesSet(t, "restricted", filesOptions{Replicas: 1, UID: 1000, Mode: "ReadWriteOnce", settings: map[string]string{"KEEPSET_LIMIT_UPLOAD": "6144"}})
	s.large()
	s.scale(0)
	s.once("keepset-backup", "meanwhile")
	worker := s.worker().Name
	s.until(time.Minute, "it is at work", func() bool { return strings.Contains(s.kubectl("logs", worker), "backup started") })
	time.Sleep(3 * time.Second) // of the twenty that it takes: by then it has asked who else is there
	s.scale(1)
	require.False(t, s.waitJob("meanwhile", 10*time.Minute), s.logs("meanwhile"))
	code, message, _ := s.ended("meanwhile")
	t.Logf("%d  %s", code, message)
	assert.EqualValues(t, 4, code)
	assert.Contains(t, message, "claim data-www-0 was in use by pod www-0 while its files were read")
	assert.Equal(t, "suspect", s.backups()[0].Status)
	assert.Empty(t, s.workers())
	s.refused("running", "claim data-www-0 is in use by pod www-0")
}
