package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/cli"
	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebstest/control"
	"keepset/internal/statefulset"
)

func asClaimInUse(err error) error {
	if errors.Is(err, snapshot.ErrInUse) {
		return fmt.Errorf("%w: %w", statefulset.ErrClaimInUse, err)
	}
	return err
}

// A volume made of a snapshot is handed to an ordinal in the middle, and the
// restore is killed between every two changes that it makes, at the API server
// or at EC2: before the change, or after it with its answer lost. The next
// restore, the same Job's or another's, ends right: the replica is on the
// snapshot's data, was never Ready with less, and no volume, PersistentVolume or
// mark is left over, while the neighbours go on.
func TestSnapshotProof4KillHandOver(t *testing.T) {
	t.Parallel()
	const changes = 22 // a recovery makes fewer: the last rounds are not killed at all
	points := make([]int, changes)
	for i := range points {
		points[i] = i
	}
	if !soak() {
		rand.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		points = points[:4]
		slices.Sort(points)
	}
	t.Logf("killed after %v changes", points)
	s := newVolumeSimulation(t, 3, "Parallel")
	ref := s.cutOf("20261127T120000Z-00000000.1.a", 1)
	neighbours := []string{string(s.pod("db-0").UID), string(s.pod("db-2").UID)}
	killed := 0
	for round, n := range points {
		after, same := round%2 == 1, rand.IntN(2) == 0
		guard := s.guardContent("db-1")
		first := &handOver{s: s, ref: ref, ordinal: 1, run: fmt.Sprintf("run-%d-a", n)}
		var l *life
		first.client, first.volumes, l = s.mortalRun(n, after)
		err := first.do(t.Context())
		if l.left.Load() < 0 {
			killed++
			require.Error(t, err, "killed after %d changes", n)
		}
		run := fmt.Sprintf("run-%d-b", n)
		if same { // a retry of the same Job
			run = first.run
		}
		t.Logf("killed after %d changes (effect of the last one: %v), then by run %s: %v", n, after, run, err)
		require.NoError(t, s.immortal(run, ref, 1).do(t.Context()), "killed after %d changes: %v", n, err)
		s.adopted(1)
		for uid, content := range guard() {
			require.Equal(t, "adopted on db-1", content, "killed after %d changes: pod %s was Ready on less", n, uid)
		}
		s.nothingLost()
	}
	require.Positive(t, killed)
	require.Equal(t, neighbours, []string{string(s.pod("db-0").UID), string(s.pod("db-2").UID)}, "the neighbours were left alone")
	s.unfit(ref)
}

// guardContent asks every pod of a name, once it is Ready as the set's own, what
// its volume holds, but for the one that is there now. The answers come by UID.
func (s *simulation) guardContent(name string) (end func() map[string]string) {
	s.t.Helper()
	now := s.pod(name).UID
	w, err := s.kube.CoreV1().Pods(s.ns).Watch(s.t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	require.NoError(s.t, err)
	seen, done := map[string]string{}, make(chan struct{})
	go func() {
		defer close(done)
		for event := range w.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok || !ready(pod) || pod.UID == now || seen[string(pod.UID)] != "" {
				continue
			}
			if content, err := s.try("exec", name, "--", "cat", "/data/content"); err == nil {
				seen[string(pod.UID)] = content
			}
		}
	}()
	return func() map[string]string {
		w.Stop()
		<-done
		return seen
	}
}

// content1 is what a volume holds.
func (s *simulation) content1(pod string) string {
	s.t.Helper()
	return s.kubectl("exec", pod, "--", "cat", "/data/content")
}

// adopted: the ordinal's own pod runs on what its seed has adopted, and none
// ever ran on an empty volume.
func (s *simulation) adopted(ordinal int) {
	s.t.Helper()
	pod := fmt.Sprintf("db-%d", ordinal)
	s.until(3*time.Minute, pod+" is Ready", func() bool { return ready(s.pod(pod)) })
	listing := s.kubectl("exec", pod, "--", "ls", "/data")
	require.NotContains(s.t, listing, "born-empty")
	require.Equal(s.t, "adopted on "+pod, s.content1(pod))
}

// unfit asks for what the snapshot cannot become: refused while everything stands.
func (s *simulation) unfit(ref snapshot.Ref) {
	s.t.Helper()
	h := s.immortal("unfit", ref, 1)
	seed, err := h.seed(s.t.Context())
	require.NoError(s.t, err)
	claim, pod := s.persistentVolumeClaim("data-db-1"), s.pod("db-1").UID
	block := corev1.PersistentVolumeBlock
	for name, change := range map[string]func(*corev1.PersistentVolumeClaim){
		"of several nodes": func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		},
		"a raw device": func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = &block },
	} {
		wanted := seed.Claims()[0]
		change(wanted)
		require.ErrorIs(s.t, h.volumes.Prepare(s.t.Context(), ref, h.target(wanted)), snapshot.ErrUnfit, name)
	}
	require.Equal(s.t, claim.UID, s.persistentVolumeClaim("data-db-1").UID)
	require.Equal(s.t, pod, s.pod("db-1").UID)
	s.nothingLost()
}

// A backup's process is killed at its AWS calls, each in turn, when the call has
// had its effect; and their replies are lost. The same Job's next pod ends the
// same backup, and no snapshot is left that it does not need.
func TestSnapshotProof4KillBackup(t *testing.T) {
	t.Parallel()
	s := newVolumeSimulation(t, 2, "Parallel")
	repository := "file://" + t.TempDir() + "/r"
	account := s.allowed("backup-"+s.ns, "backup")
	base := newPlain(t, "KUBECONFIG="+s.kubeconfig, "KEEPSET_NAMESPACE="+s.ns, "AWS_ENDPOINT_URL_EC2="+ec2URL, "AWS_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID="+account, "AWS_SECRET_ACCESS_KEY=secret", "KEEPSET_REPOSITORY="+repository)
	base.ok("backup", "init")
	b := &killable{s: s, plain: base, scope: control.Scope{AccessKey: account}}

	b.run("whole", nil)
	calls, err := s.ec2().Calls(t.Context(), b.scope)
	require.NoError(t, err)
	require.NotEmpty(t, calls)
	t.Logf("measured: a backup of two members makes %d calls", len(calls))
	points := rand.Perm(len(calls))
	if !soak() {
		points = points[:min(4, len(points))]
	}
	for _, n := range points {
		b.run(fmt.Sprintf("killed-%d", n), &control.Rule{Scope: b.scope, Skip: n, Hold: true})
		b.run(fmt.Sprintf("lost-%d", n), &control.Rule{Scope: b.scope, Skip: n, Drop: true})
	}
	require.Positive(t, b.fired)
	t.Logf("measured: %d calls were hit", b.fired)
	out := base.ok("backup", "verify", "--set", "db", "--orphans", "--snapshotter", "ebs")
	require.Contains(t, out, "0 of them gone, 0 kept that no backup needs", out)
	backups := base.list(repository, s.ns+"/db")
	require.Len(t, backups, 1+2*len(points))
	for _, one := range backups {
		assert.Equal(t, "complete", one.Status, "%v", one.Problems)
		assert.Len(t, s.cutsOf(one.Backup), 2)
	}
	assert.Len(t, s.snapshotsOf(), 2*len(backups))
}

// killable runs backups of the simulated set as processes of this machine, each
// for a Job that exists.
type killable struct {
	s     *simulation
	plain *plain
	scope control.Scope
	// fired is how many calls were hit.
	fired int
}

// hits is in how many calls a rule has happened.
func (b *killable) hits(rule string) int {
	b.s.t.Helper()
	n, err := b.s.ec2().Fired(b.s.t.Context(), rule)
	require.NoError(b.s.t, err)
	return n
}

// run runs a Job's backup under a rule: when it holds a reply back the process
// is killed at that moment, and the Job's next process ends the backup.
func (b *killable) run(job string, rule *control.Rule) {
	t := b.s.t
	t.Helper()
	b.s.apply(fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata: {name: %s}
spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: none, image: none}]}}}
`, job))
	uid := b.s.kubectl("get", "job", job, "-o", "jsonpath={.metadata.uid}")
	args := []string{"backup", "run", "--set", "db", "--method", "snapshot", "--snapshotter", "ebs", "--quiesce", "none"}
	p := b.plain.with("KEEPSET_JOB_NAME="+job, "KEEPSET_JOB_UID="+uid, "KEEPSET_POD_NAMESPACE="+b.s.ns, "KEEPSET_POD_NAME="+job+"-1", "KEEPSET_POD_UID="+job+"-1")
	if rule == nil {
		p.ok(args...)
		return
	}
	id, err := b.s.ec2().Inject(t.Context(), *rule)
	require.NoError(t, err)
	defer func() { require.NoError(t, b.s.ec2().Remove(t.Context(), id)) }()
	if rule.Drop {
		r := p.run(args...)
		b.fired += b.hits(id)
		require.Contains(t, []int{cli.ExitComplete, cli.ExitFailed, cli.ExitIncomplete}, r.code, "%s", r.stderr)
		if r.code != cli.ExitComplete { // a reply too many
			t.Logf("%s: %s", job, strings.TrimSpace(r.stderr))
			p.ok(args...)
		}
		return
	}
	cmd := p.command(args...)
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for b.hits(id) == 0 {
		select {
		case err := <-ended: // it needed fewer calls than the one before
			require.NoError(t, err, job)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	require.Error(t, <-ended)
	b.fired++
	p.with("KEEPSET_POD_NAME="+job+"-2", "KEEPSET_POD_UID="+job+"-2").ok(args...)
}

// A restore's pod is killed while EC2 makes the volume of a replica in the
// middle, and again while the claim is being bound. The Job's retries end it, on
// real servers.
func TestSnapshotProof4KillRestore(t *testing.T) {
	t.Parallel()
	s := bareShop(t)
	s.startS3()
	s.install(onEBS(shopOptions{class: "gp3", replicas: 3, patches: []string{shortLease}}))
	s.forgetCluster()
	s.waitReady(3)
	s.replicate(3)
	s.keepset("backup", "init", "--repository", s.repository)
	s.forgetSnapshots("mysql")
	s.jobOK("keepset-backup", "backup-1")
	s.order("second", 500)
	written := s.ordersOf(s.pod("mysql-0").Status.PodIP)
	old := s.claim("data-mysql-1")
	neighbour := s.pod("mysql-2").UID
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true"})
	guard := s.guard(1)
	rules := []string{s.hold("CreateVolume"), s.hold("DeleteTags")}
	s.jobFrom("keepset-restore", "killed")
	for i, rule := range rules {
		s.until(2*time.Minute, "the call comes", func() bool {
			fired, err := s.ec2().Fired(t.Context(), rule)
			return err == nil && fired > 0
		})
		if i == 0 {
			require.Equal(t, old, s.claim("data-mysql-1"), "the old claim stands until the volume is there")
		}
		pod := s.restorePod("killed")
		require.Equal(t, 1, killPod(string(pod.UID), "restore", syscall.SIGKILL), "the restore runs on this machine")
		require.NoError(t, s.ec2().Remove(t.Context(), rule))
		s.until(time.Minute, "the restore is dead", func() bool { p := s.pod(pod.Name); return p == nil || p.Status.Phase == corev1.PodFailed })
	}
	require.True(t, s.waitJob("killed", 5*time.Minute), s.logs("killed"))
	s.waitReady(3)
	s.isFollower(1)
	guard.never(t, 1, written)
	require.NotEqual(t, old.volume, s.claim("data-mysql-1").volume)
	require.Equal(t, neighbour, s.pod("mysql-2").UID)
	s.nothingLost()
	s.noOrphans("ebs")
	s.nothingLeft()
}

// hold keeps back the reply to a call about the set's volumes, which has had its effect.
func (s *shopSet) hold(action string) string {
	s.t.Helper()
	id, err := s.ec2().Inject(s.t.Context(), control.Rule{Action: action, Scope: control.Scope{Tags: map[string]string{"keepset/namespace": s.ns}}, Hold: true})
	require.NoError(s.t, err)
	return id
}
