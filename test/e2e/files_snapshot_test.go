package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestFilesFromSnapshot: while the pods of a set go on writing, on claims that nobody
// else may mount, their files are backed up as they were at one moment, with the
// component as it is shipped; they come back in a new claim; and neither a backup that
// ends nor one that fails, is killed or is deleted leaves a snapshot, a claim or a volume.
func TestFilesFromSnapshot(t *testing.T) {
	t.Parallel()
	s := newFilesSet(t, "restricted", filesOptions{
		Replicas: 2, UID: 1000, FSGroup: 1000, Mode: "ReadWriteOncePod", Class: csiLate, component: "files-snapshots",
		settings: map[string]string{"KEEPSET_LIMIT_UPLOAD": "6144"},
	})
	s.forgetCluster()
	for ordinal := range 2 {
		// As an fsGroup has it, which the kubelet sees to whenever a pod starts.
		s.inPod(ordinal, `umask 002; mkdir /www/stable /www/first /www/second; cd /www/stable; for i in {1..300}; do echo "file $i of $HOSTNAME" > $i; done; ln -s 1 link; touch -d '1 hour ago' *; sync -f .`)
		s.write(ordinal)
	}
	s.refusedFuzzy()
	time.Sleep(65 * time.Second) // what has just been written is read again, since its bytes may not be in the snapshot

	page := s.reader()
	said := page.follow(filesPage, "From a volume snapshot")
	s.spotless()
	assert.Contains(t, said, "crash consistent: the files are those of volume snapshot keepset-")
	require.Equal(t, "complete", s.backups()[0].Status)
	for ordinal := range 2 {
		s.ofOneMoment(ordinal)
	}

	s.inPod(1, `touch /tmp/stop; until [ -e /tmp/stopped ]; do sleep 0.1; done; sync -f /www`)
	want := s.listing(1)
	s.jobOK("keepset-backup", "second")
	s.spotless()
	require.GreaterOrEqual(t, s.counts("second", 1)[1], 300, "files of a volume made of a snapshot are the same files")
	lost := s.claim("data-www-1")
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true"})
	s.jobOK("keepset-restore", "recover")
	s.running(2)
	require.True(t, s.replaced("data-www-1", lost))
	require.Equal(t, want, s.listing(1))

	s.classOfSnapshots("csi-snapshots-retain")
	s.refused("kept", "VolumeSnapshotClass csi-snapshots-retain", "its deletionPolicy is Retain", "--volume-snapshot-class")
	s.classOfSnapshots("csi-snapshots-broken")
	s.once("keepset-backup", "broken")
	require.False(t, s.waitJob("broken", 5*time.Minute), s.logs("broken"))
	code, message, _ := s.ended("broken")
	t.Logf("%d  %s", code, message)
	assert.EqualValues(t, 1, code)
	assert.Contains(t, message, "ordinal 0 (www-0) failed: snapshot claim data-www-0")
	assert.Contains(t, message, "the array is on fire")
	s.classOfSnapshots("")
	s.spotless()

	s.larger()
	s.once("keepset-backup", "killed")
	require.NotNil(t, s.worker())
	s.kill(s.nextPod("killed", map[string]bool{}))
	require.False(t, s.waitJob("killed", 5*time.Minute), s.logs("killed"))
	require.NotEmpty(t, s.temporary(), "nobody was there to remove it")
	s.jobOK("keepset-backup", "after")
	s.spotless()

	s.larger()
	s.jobFrom("keepset-backup", "deleted")
	require.NotNil(t, s.worker())
	s.kubectl("delete", "job", "deleted", "--wait=false")
	s.until(2*time.Minute, "what a run needs goes with its Job", func() bool { return s.temporary() == "" && s.workers() == "" })
	s.spotless()
}

// inPod runs a script in an ordinal's pod.
func (s *filesSet) inPod(ordinal int, script string) string {
	s.t.Helper()
	return s.kubectl("exec", fmt.Sprintf("www-%d", ordinal), "--", "bash", "-ec", script)
}

// write begins to write two files after another, each on the disk before the next one,
// and goes on until it is stopped.
func (s *filesSet) write(ordinal int) {
	s.t.Helper()
	s.inPod(ordinal, `cat > /tmp/writer <<'END'
umask 002
for ((i = 1; ; i++)); do
  [ ! -e /tmp/stop ] || { touch /tmp/stopped; exit 0; }
  echo $i > /www/first/$i; sync /www/first/$i
  echo $i > /www/second/$i; sync /www/second/$i
  sleep 0.05
done
END
nohup bash /tmp/writer > /dev/null 2>&1 & `)
	s.until(time.Minute, "something is written", func() bool { return s.written(ordinal) > 10 })
}

func (s *filesSet) written(ordinal int) int {
	s.t.Helper()
	n, err := strconv.Atoi(s.inPod(ordinal, "ls /www/first | wc -l"))
	require.NoError(s.t, err)
	return n
}

// refusedFuzzy: what is of one moment needs no consent to what is not.
func (s *filesSet) refusedFuzzy() {
	s.t.Helper()
	assert.Contains(s.t, s.host().fails(64, "backup", "run", "--dry-run", "--set", "www", "--method", "files", "--from-snapshot", "--fuzzy", "--repository", s.repository), "in a snapshot nothing changes")
	assert.Contains(s.t, s.keepset("backup", "run", "--dry-run", "--set", "www", "--method", "files", "--from-snapshot", "--repository", s.repository), "would hold 2 of 2 members")
}

// ofOneMoment restores an ordinal of the newest backup on this machine. Of two files
// that were written one after the other, all pairs are there but for half of the last
// one, and the pod has written more since.
func (s *filesSet) ofOneMoment(ordinal int) {
	t := s.t
	t.Helper()
	to := t.TempDir() + "/restored"
	s.keepset("restore", "load", "--set", s.ns+"/www", "--ordinal", strconv.Itoa(ordinal), "--target", "file://"+to, "--repository", s.repository)
	count := map[string]int{}
	for _, dir := range []string{"first", "second", "stable"} {
		entries, err := os.ReadDir(to + "/" + dir)
		require.NoError(t, err)
		count[dir] = len(entries)
	}
	require.Equal(t, 301, count["stable"])
	require.Greater(t, count["second"], 10)
	require.Contains(t, []int{0, 1}, count["first"]-count["second"], "first %d, second %d", count["first"], count["second"])
	for i := range count["second"] {
		for _, dir := range []string{"first", "second"} {
			text, err := os.ReadFile(fmt.Sprintf("%s/%s/%d", to, dir, i+1))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintln(i+1), string(text))
		}
	}
	require.Greater(t, s.written(ordinal), count["first"], "the pod went on writing")
}

// listing is an ordinal's tree as its pod sees it.
func (s *filesSet) listing(ordinal int) string {
	s.t.Helper()
	return s.inPod(ordinal, `cd /www; find . -mindepth 1 -name lost+found -prune -o -mindepth 1 -printf '%p %y %m %U:%G %T@ %l\n' | sort; find . -name lost+found -prune -o -type f -print0 | sort -z | xargs -0 sha256sum`)
}

// larger puts a file that takes seconds to back up.
func (s *filesSet) larger() {
	s.t.Helper()
	s.inPod(0, "umask 002; head -c 48M /dev/urandom > /www/large; sync -f /www")
}

func (s *filesSet) classOfSnapshots(name string) {
	s.t.Helper()
	s.kubectl("patch", "configmap", "keepset-backup", "--type=merge", "-p", fmt.Sprintf(`{"data":{"KEEPSET_VOLUME_SNAPSHOT_CLASS":%q}}`, name))
}

// temporary are the VolumeSnapshots and claims that were made for workers.
func (s *filesSet) temporary() string {
	s.t.Helper()
	return strings.TrimSpace(s.kubectl("get", "volumesnapshots", "-o", "name") + "\n" + s.kubectl("get", "pvc", "-l", "keepset/worker", "-o", "name"))
}

// spotless: there is nothing but the set's own claims and volumes, in the cluster
// either. The driver may take a moment.
func (s *filesSet) spotless() {
	s.t.Helper()
	require.Empty(s.t, s.workers())
	require.Empty(s.t, s.temporary())
	snapshots, err := versioned.NewForConfig(s.config)
	require.NoError(s.t, err)
	var left []string
	s.until(time.Minute, "volumes and snapshots go with their claims", func() bool {
		left = nil
		volumes, err := s.kube.CoreV1().PersistentVolumes().List(s.t.Context(), metav1.ListOptions{})
		require.NoError(s.t, err)
		for _, v := range volumes.Items {
			if ref := v.Spec.ClaimRef; ref != nil && ref.Namespace == s.ns && !slices.Contains([]string{"data-www-0", "data-www-1"}, ref.Name) {
				left = append(left, v.Name+" of "+ref.Name)
			}
		}
		contents, err := snapshots.SnapshotV1().VolumeSnapshotContents().List(s.t.Context(), metav1.ListOptions{})
		require.NoError(s.t, err)
		for _, c := range contents.Items {
			if c.Spec.VolumeSnapshotRef.Namespace == s.ns {
				left = append(left, c.Name)
			}
		}
		return len(left) == 0
	})
	claims, err := s.kube.CoreV1().PersistentVolumeClaims(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app=www"})
	require.NoError(s.t, err)
	require.Len(s.t, claims.Items, 2)
	for _, c := range claims.Items {
		require.Empty(s.t, c.OwnerReferences)
	}
}
