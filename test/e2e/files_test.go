package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const filesPage = "../../docs/files-kubernetes.md"

// TestFiles: the files of a set whose pods and namespace are restricted, with the
// overlay as it is shipped. They are refused while pods run on them; the second
// backup opens what has changed; a replica whose claim was lost comes back exactly;
// and whoever is killed, no worker is left, and no backup is good that is not.
func TestFiles(t *testing.T) {
	t.Parallel()
	s := newFilesSet(t, "restricted", filesOptions{Replicas: 2, UID: 1000, Mode: "ReadWriteOnce"})
	files := 500
	if soak() {
		files = 20_000
	}
	for ordinal := range 2 {
		s.plant(ordinal, files, 1000)
	}
	settled := time.Now().Add(65 * time.Second) // what was just made is read again next time
	s.refused("running", "data-www-0 is in use by pod www-0", "data-www-1", "--fuzzy")

	time.Sleep(time.Until(settled))
	page := s.reader()
	page.follow(filesPage, "Back up")
	require.Equal(t, []int{files + 2, 0}, s.counts("files-1", 0))
	require.Empty(t, s.workers(), "workers are gone")
	require.Equal(t, "complete", s.backups()[0].Status)

	s.running(2)
	for i := range 3 {
		require.NoError(t, os.WriteFile(fmt.Sprintf("%s/0/%d", s.dir(1), i), []byte("changed"), 0o640))
	}
	s.fuzzy()
	s.jobOK("keepset-backup", "fuzzy")
	require.Equal(t, []int{files + 2, files + 2}, s.counts("fuzzy", 0))
	require.Equal(t, []int{files + 2, files - 1}, s.counts("fuzzy", 1))
	require.Empty(t, s.workers())

	s.fromOutside()
	want, other := s.tree(1), s.tree(0)
	lost := s.claim("data-www-1")
	s.kubectl("delete", "pvc", "data-www-1", "--wait=false")
	s.kubectl("delete", "pod", "www-1")
	s.until(2*time.Minute, "www-1 comes up on an empty claim", func() bool { return s.replaced("data-www-1", lost) && ready(s.pod("www-1")) })
	require.Len(t, s.tree(1), 1)
	page.follow(filesPage, "Restore")
	s.running(2)
	s.same(want, 1)
	s.same(other, 0)
}

// fromOutside shows the plans of a backup and a restore; workers need a Job.
func (s *filesSet) fromOutside() {
	s.t.Helper()
	backup := []string{"backup", "run", "--set", "www", "--method", "files", "--fuzzy", "--repository", s.repository}
	assert.Contains(s.t, s.keepset(append(backup, "--dry-run")...), "would hold 2 of 2 members")
	assert.Contains(s.t, s.host().fails(64, backup...), "kubectl create job")
	plan := s.keepset("restore", "plan", "--set", "www", "--method", "files", "--ordinal", "1", "--replace", "--repository", s.repository)
	assert.Contains(s.t, plan, "delete claim data-www-1")
	assert.Contains(s.t, plan, "bring the backup's files back into the claim")
	assert.Contains(s.t, s.host().fails(64, "restore", "run", "--local", "--set", "www", "--method", "files", "--ordinal", "1", "--replace", "--repository", s.repository), "leave out --local")
}

// TestFilesAsRoot: files of several owners, and what only root can make, by
// workers that are root on demand. Without that, nobody guesses whose they are.
func TestFilesAsRoot(t *testing.T) {
	t.Parallel()
	s := newFilesSet(t, "privileged", filesOptions{Replicas: 2, Mode: "ReadWriteOnce"})
	for ordinal := range 2 {
		s.plant(ordinal, 200, 0)
	}
	s.fuzzy()
	s.refused("whose", "do not say by runAsUser whose the files are", "KEEPSET_WORKER_UID", "--worker-root")
	s.kubectl("patch", "configmap", "keepset", "--type=merge", "-p", `{"data":{"KEEPSET_WORKER_ROOT":"true"}}`)
	s.jobOK("keepset-backup", "nightly")
	require.Empty(t, s.workers())

	want := s.tree(1)
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true"})
	s.jobOK("keepset-restore", "recover")
	s.running(2)
	s.same(want, 1)
}

// TestFilesOfOnePod: a claim that only one pod may have cannot be read beside it,
// whatever is consented to, and can be when the set is stopped. Whose the files are,
// the user says here.
func TestFilesOfOnePod(t *testing.T) {
	t.Parallel()
	s := newFilesSet(t, "baseline", filesOptions{Replicas: 1, Mode: "ReadWriteOncePod", Class: "csi-standard", settings: map[string]string{"KEEPSET_WORKER_UID": "1000"}})
	s.kubectl("exec", "www-0", "--", "bash", "-c", "echo hello > /www/file")
	s.fuzzy()
	s.refused("beside", "data-www-0 is ReadWriteOncePod", "pod www-0", "scale the set to zero", "--from-snapshot")
	s.scale(0)
	s.jobOK("keepset-backup", "alone")
	require.Equal(t, "complete", s.backups()[0].Status)
}

var readLine = regexp.MustCompile(`files read.* ordinal=(\d+) .*files=(\d+) unchanged=(\d+)`)

// counts are the files that a backup's worker has gone through, and those that it
// took over unread.
func (s *filesSet) counts(job string, ordinal int) []int {
	s.t.Helper()
	log := s.logs(job)
	for _, m := range readLine.FindAllStringSubmatch(log, -1) {
		if m[1] == strconv.Itoa(ordinal) {
			files, _ := strconv.Atoi(m[2])
			unchanged, _ := strconv.Atoi(m[3])
			s.t.Logf("%s, ordinal %d: %d files, %d of them not read again", job, ordinal, files, unchanged)
			return []int{files, unchanged}
		}
	}
	assert.Fail(s.t, "no worker says what it read", log)
	return nil
}
