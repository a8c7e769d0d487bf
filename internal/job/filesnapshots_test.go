package job_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	snapshotfake "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned/fake"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	core "k8s.io/client-go/testing"

	"keepset/internal/filetree/filetreetest"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
	"keepset/internal/snapshot/csi"
	"keepset/internal/statefulset"
)

// filesCluster is a set whose volumes a driver snapshots: a VolumeSnapshot is cut as
// soon as it is made, a worker's Job does its work as it is made, in this process, and
// has ended then.
type filesCluster struct {
	*world
	kube  *fake.Clientset
	snaps *snapshotfake.Clientset
	// roots are the directories behind the claims, by ordinal.
	roots []string
	cutAt time.Time
	// Job of the run, and its attempt.
	job *batchv1.Job

	mu sync.Mutex
	// told is what workers were told, by ordinal, and read the claims that they mounted.
	told map[int]*job.FromSnapshot
	read map[int]string
	// dead: workers that are made do nothing.
	dead bool
	// began is called as a worker begins, who uses claims is what it is told, and nodes
	// is where it has to run.
	began func(ordinal int)
	users job.ClaimUsers
	nodes map[int]string
	// fail answers requests, "verb resource".
	fail map[string]error
	// cuts counts the snapshots.
	cuts int
}

var filesSetID = record.SetID{Namespace: namespace, Name: "www"}

func newFilesCluster(t *testing.T, replicas int32) *filesCluster {
	t.Helper()
	c := &filesCluster{
		world: newWorld(t), snaps: snapshotfake.NewSimpleClientset(), //nolint:staticcheck // the module has no other: it generates no apply configurations
		told: map[int]*job.FromSnapshot{}, read: map[int]string{}, nodes: map[int]string{}, fail: map[string]error{},
	}
	c.cutAt = c.clock.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	uid := int64(1000)
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "www", Namespace: namespace, UID: "set-uid"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "www"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "www"}},
				Spec:       corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{RunAsUser: &uid}, Containers: []corev1.Container{{Name: "www"}}},
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
		},
	}
	late := storagev1.VolumeBindingWaitForFirstConsumer
	objects := []runtime.Object{set, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: "csi.example.com", VolumeBindingMode: &late}}
	for i := range int(replicas) {
		c.roots = append(c.roots, plant(t, uint64(20+i), 20))
		name := fmt.Sprintf("data-www-%d", i)
		fast := "fast"
		claim := &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, UID: types.UID("uid-of-" + name)},
			Spec: corev1.PersistentVolumeClaimSpec{
				VolumeName: "pv-" + name, StorageClassName: &fast, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod},
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
			Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
		}
		pv := &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name},
			Spec: corev1.PersistentVolumeSpec{
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: name}},
				ClaimRef:               &corev1.ObjectReference{Namespace: namespace, Name: name, UID: claim.UID},
			},
		}
		pod := &corev1.Pod{ // the set's, at work
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("www-%d", i), Namespace: namespace, Labels: map[string]string{"app": "www"}},
			Spec: corev1.PodSpec{NodeName: "node-1", Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
			}}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning},
		}
		objects = append(objects, claim, pv, pod)
	}
	c.kube = fake.NewClientset(objects...)
	require.NoError(t, c.snaps.Tracker().Add(&volumesnapshotv1.VolumeSnapshotClass{
		ObjectMeta: metav1.ObjectMeta{Name: "snapshots"}, Driver: "csi.example.com", DeletionPolicy: volumesnapshotv1.VolumeSnapshotContentDelete,
	}))
	c.kube.PrependReactor("create", "jobs", c.work)
	c.snaps.PrependReactor("create", "volumesnapshots", c.cut)
	for _, f := range []*core.Fake{&c.kube.Fake, &c.snaps.Fake} {
		f.PrependReactor("*", "*", func(a core.Action) (bool, runtime.Object, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if a.GetResource().Resource == "volumesnapshotcontents" {
				return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "volumesnapshotcontents"}, "", errors.New(`User "x" cannot get resource "volumesnapshotcontents" in API group "snapshot.storage.k8s.io"`))
			}
			err := c.fail[a.GetVerb()+" "+a.GetResource().Resource]
			return err != nil, nil, err
		})
	}
	c.newJob("nightly")
	return c
}

// newJob makes the Job of a run, which the cluster's next backups belong to.
func (c *filesCluster) newJob(name string) {
	c.t.Helper()
	c.job = &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, UID: types.UID("uid-of-" + name)},
		Spec:       batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "keepset"}}}}},
	}
	require.NoError(c.t, c.kube.Tracker().Add(c.job))
}

// cut plays controllers and driver.
func (c *filesCluster) cut(a core.Action) (bool, runtime.Object, error) {
	vs, ok := a.(core.CreateAction).GetObject().(*volumesnapshotv1.VolumeSnapshot)
	if !ok {
		return false, nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts++
	yes, content, at := true, fmt.Sprintf("content-%d", c.cuts), metav1.NewTime(c.cutAt)
	vs.UID = types.UID("uid-of-" + content)
	vs.Status = &volumesnapshotv1.VolumeSnapshotStatus{ReadyToUse: &yes, BoundVolumeSnapshotContentName: &content, CreationTime: &at}
	return false, nil, nil
}

// work plays a worker: it backs up what is behind the claim that the one it mounts
// was made of.
func (c *filesCluster) work(a core.Action) (bool, runtime.Object, error) {
	made, ok := a.(core.CreateAction).GetObject().(*batchv1.Job)
	if !ok || made.Labels["keepset/worker"] == "" {
		return false, nil, nil
	}
	made.UID = types.UID("uid-of-" + made.Name)
	ordinal, err := strconv.Atoi(made.Labels[statefulset.LabelOrdinal])
	volumes := made.Spec.Template.Spec.Volumes
	c.mu.Lock()
	c.read[ordinal] = volumes[len(volumes)-1].PersistentVolumeClaim.ClaimName
	if affinity := made.Spec.Template.Spec.Affinity; affinity != nil {
		c.nodes[ordinal] = affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
	}
	dead, told := c.dead, c.told[ordinal]
	c.mu.Unlock()
	if c.began != nil {
		c.began(ordinal)
	}
	if err != nil || dead {
		return false, nil, err
	}
	made.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	worker := c.files()
	worker.Set, worker.ID, worker.FromSnapshot = filesSetID, record.BackupID(made.Spec.Template.Spec.Containers[0].Env[0].Value), told
	worker.Users = c.users
	worker.WorkFor(ordinal, c.roots[ordinal])
	if _, err := worker.Run(c.t.Context()); err != nil {
		made.Status.Conditions[0].Type = batchv1.JobFailed
	}
	return false, nil, nil
}

// backup is one attempt of the run's Job.
func (c *filesCluster) backup() *job.Backup {
	b := c.world.backup()
	b.Set, b.ID = filesSetID, record.NewBackupID(c.cutAt, string(c.job.UID))
	b.Plan.Method, b.Plan.Engine = record.MethodFiles, ""
	run := statefulset.Run{ID: string(c.job.UID), JobUID: string(c.job.UID), JobName: c.job.Name, Created: c.cutAt}
	b.Workers = &job.FileWorkers{
		Cluster: statefulset.New(c.kube, namespace, nil), Set: "www", Run: run, Spec: statefulset.WorkerSpec{Temporary: true}, StartTimeout: time.Minute, Out: io.Discard,
		Snapshots: &job.FileSnapshots{Cluster: "here", Snapshotter: c.snapshotter(run)},
		Env: func(id record.BackupID, ordinal int, from *job.FromSnapshot) map[string]string {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.told[ordinal] = from
			return map[string]string{"ID": string(id)}
		},
	}
	b.Discover = b.Workers.Discover
	return b
}

func (c *filesCluster) snapshotter(run statefulset.Run) *csi.Snapshotter {
	return csi.New(csi.Options{
		Kube: c.kube, Snapshots: c.snaps, Grace: time.Millisecond, Patience: snapshot.Patience{Call: 20 * time.Millisecond, Poll: time.Millisecond},
		Temporary: &csi.Temporary{Owners: run.Owner()},
	})
}

// left are the claims, VolumeSnapshots and Jobs beside the set's own and the runs'.
func (c *filesCluster) left() (names []string) {
	c.t.Helper()
	claims, err := c.kube.CoreV1().PersistentVolumeClaims(namespace).List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	for _, claim := range claims.Items {
		if !strings.HasPrefix(claim.Name, "data-www-") {
			names = append(names, "claim "+claim.Name)
		}
	}
	snapshots, err := c.snaps.SnapshotV1().VolumeSnapshots(namespace).List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	for _, vs := range snapshots.Items {
		names = append(names, "volumesnapshot "+vs.Name)
	}
	jobs, err := c.kube.BatchV1().Jobs(namespace).List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	for _, j := range jobs.Items {
		if j.Labels["keepset/worker"] != "" {
			names = append(names, "job "+j.Name)
		}
	}
	return names
}

// TestFilesFromSnapshot: the files of pods that run, of claims that nobody else may
// mount, are read from claims made of snapshots; the record says of which moment they
// are; and nothing of it stays.
func TestFilesFromSnapshot(t *testing.T) {
	c := newFilesCluster(t, 2)
	plain := c.backup()
	plain.Workers.Snapshots = nil
	_, err := plain.Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig, "beside the pods' own claims no worker has a place")
	require.ErrorContains(t, err, "--from-snapshot")
	_, _, err = c.backup().DryRun(t.Context())
	require.NoError(t, err)
	require.Empty(t, c.left(), "a plan makes nothing")

	report, err := c.backup().Run(t.Context())
	require.NoError(t, err)
	require.Empty(t, c.left())
	info := c.listOf(filesSetID)[0]
	require.Equal(t, repository.StatusComplete, info.Status)
	for i, m := range report.Members {
		require.Equal(t, c.cutAt, m.CapturedAt)
		require.Equal(t, job.ConsistencyCrash, m.Consistency)
		require.True(t, strings.HasPrefix(c.read[i], fmt.Sprintf("www-files-%d-", i)), c.read[i])
		member, err := c.repo.OpenMember(t.Context(), info, i)
		require.NoError(t, err)
		r := member.Report()
		require.NoError(t, member.Close())
		require.Equal(t, c.cutAt, r.CapturedAt.UTC())
		require.Equal(t, job.ConsistencyCrash, r.Consistency)
		require.Len(t, r.Warnings, 1)
		require.Contains(t, r.Warnings[0], c.told[i].Name)
		require.Contains(t, r.Warnings[0], c.cutAt.Format(time.RFC3339Nano))
	}
	l := c.loadFiles(t.TempDir() + "/restored")
	l.Set = filesSetID
	_, err = l.Run(t.Context())
	require.NoError(t, err)
	filetreetest.RequireSame(t, filetreetest.Lines(t, c.roots[0]), l.Options.Path)
}

// TestFilesFromSnapshotFails: what cannot be snapshotted is refused before anything is
// made, a claim that is missing fails its member alone, and so do a snapshot and a claim
// that come to nothing, each with its own words and nothing left.
func TestFilesFromSnapshotFails(t *testing.T) {
	for name, test := range map[string]struct {
		harm     func(*filesCluster)
		sentinel error
		says     []string
	}{
		"an NFS volume": {func(c *filesCluster) {
			pv, err := c.kube.CoreV1().PersistentVolumes().Get(t.Context(), "pv-data-www-1", metav1.GetOptions{})
			require.NoError(t, err)
			pv.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{}}
			require.NoError(t, c.kube.Tracker().Update(corev1.SchemeGroupVersion.WithResource("persistentvolumes"), pv, ""))
		}, snapshot.ErrUnsupported, []string{"snapshot claim data-www-1", "of the kind nfs", "--fuzzy"}},
		"a class that keeps volumes": {func(c *filesCluster) {
			retain := corev1.PersistentVolumeReclaimRetain
			require.NoError(t, c.kube.Tracker().Update(storagev1.SchemeGroupVersion.WithResource("storageclasses"), &storagev1.StorageClass{
				ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: "csi.example.com", ReclaimPolicy: &retain,
			}, ""))
		}, snapshot.ErrUnfit, []string{"--worker-storage-class"}},
		"a volume that is gone": {func(c *filesCluster) {
			require.NoError(t, c.kube.CoreV1().PersistentVolumes().Delete(t.Context(), "pv-data-www-1", metav1.DeleteOptions{}))
		}, job.ErrIncomplete, []string{"ordinal 1 (www-1) failed: snapshot claim data-www-1", "has lost its volume"}},
		"a snapshot that fails": {func(c *filesCluster) {
			c.snaps.PrependReactor("create", "volumesnapshots", func(a core.Action) (bool, runtime.Object, error) {
				vs, ok := a.(core.CreateAction).GetObject().(*volumesnapshotv1.VolumeSnapshot)
				if ok && *vs.Spec.Source.PersistentVolumeClaimName == "data-www-1" {
					message := "the array is on fire"
					vs.Status = &volumesnapshotv1.VolumeSnapshotStatus{Error: &volumesnapshotv1.VolumeSnapshotError{Message: &message}}
					return true, vs, c.snaps.Tracker().Add(vs)
				}
				return false, nil, nil
			})
		}, job.ErrIncomplete, []string{"ordinal 1 (www-1) failed: snapshot claim data-www-1", "the array is on fire"}},
		"a right that is missing": {func(c *filesCluster) {
			c.fail["create persistentvolumeclaims"] = apierrors.NewForbidden(schema.GroupResource{Resource: "persistentvolumeclaims"}, "x", errors.New(`User "system:serviceaccount:shop:keepset-backup" cannot create resource "persistentvolumeclaims" in API group "" in the namespace "shop"`))
		}, job.ErrFailed, []string{"make a claim of volume snapshot", "may not create persistentvolumeclaims", "deploy/cronjob/components/files-snapshots"}},
		"a worker that fails": {func(c *filesCluster) {
			c.roots[1] = t.TempDir() + "/gone"
		}, job.ErrIncomplete, []string{"ordinal 1 (www-1) failed: the worker ended"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newFilesCluster(t, 2)
			test.harm(c)
			_, err := c.backup().Run(t.Context())
			require.ErrorIs(t, err, test.sentinel)
			for _, text := range test.says {
				assert.ErrorContains(t, err, text)
			}
			require.Empty(t, c.left())
		})
	}
}

// TestFilesFromSnapshotWaits: a claim whose volume is not made fails its member, in
// the words of whoever should have made it.
func TestFilesFromSnapshotWaits(t *testing.T) {
	c := newFilesCluster(t, 1)
	c.dead = true
	b := c.backup()
	b.Workers.StartTimeout = time.Millisecond
	c.kube.PrependReactor("create", "jobs", func(core.Action) (bool, runtime.Object, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return false, nil, c.kube.Tracker().Add(&corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "no", Namespace: namespace}, Type: corev1.EventTypeWarning, Reason: "ProvisioningFailed", Message: "no room",
		})
	})
	_, err := b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrFailed)
	require.ErrorContains(t, err, "it has not started within")
	require.ErrorContains(t, err, "no volume was made for it: ProvisioningFailed: no room")
	require.Empty(t, c.left())
}

// kill ends a backup of the cluster with its n-th write to the cluster, before or after
// that is carried out. The test's context stands for the process.
func (c *filesCluster) kill(b *job.Backup, n int, after bool) (killed bool) {
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	died := errors.New("killed")
	writes := 0
	var mu sync.Mutex
	for _, f := range []*core.Fake{&c.kube.Fake, &c.snaps.Fake} {
		chain := slices.Clone(f.ReactionChain)
		f.PrependReactor("*", "*", func(a core.Action) (bool, runtime.Object, error) {
			mu.Lock()
			defer mu.Unlock()
			if a.GetVerb() == "get" || a.GetVerb() == "list" {
				if killed {
					return true, nil, died
				}
				return false, nil, nil
			}
			if writes++; writes < n {
				return false, nil, nil
			}
			first := !killed
			killed = true
			cancel()
			if first && after {
				for _, r := range chain {
					if r.Handles(a) {
						if handled, _, _ := r.React(a); handled {
							break
						}
					}
				}
			}
			return true, nil, died
		})
	}
	_, err := b.Run(ctx)
	mu.Lock()
	defer mu.Unlock()
	if killed {
		require.Error(c.t, err)
	}
	for _, f := range []*core.Fake{&c.kube.Fake, &c.snaps.Fake} {
		f.ReactionChain = f.ReactionChain[1:]
	}
	return killed
}

// TestFilesFromSnapshotKilled: wherever a run is killed, the next attempt of its Job
// completes the backup, and the next run, of another Job, removes what is left when
// there is none. Both leave nothing, and never touch the set's own claims.
func TestFilesFromSnapshotKilled(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			c := newFilesCluster(t, 1)
			if !c.kill(c.backup(), n, after) {
				require.Greater(t, n, 5, "snapshot, its mark, claim and worker are made, and deleted")
				break
			}
			_, err := c.backup().Run(t.Context())
			require.NoError(t, err, "killed at write %d, after it %t", n, after)
			require.Empty(t, c.left())
			require.Equal(t, repository.StatusComplete, c.listOf(filesSetID)[0].Status)

			c = newFilesCluster(t, 1)
			c.kill(c.backup(), n, after)
			before := c.left()
			c.newJob("other")
			_, err = c.backup().Run(t.Context())
			require.NoError(t, err)
			require.Subset(t, c.left(), before, "its Job may still try again")
			require.NoError(t, c.kube.BatchV1().Jobs(namespace).Delete(t.Context(), "nightly", metav1.DeleteOptions{}))
			c.newJob("another")
			_, err = c.backup().Run(t.Context())
			require.NoError(t, err)
			require.Empty(t, c.left())
			claims, err := c.kube.CoreV1().PersistentVolumeClaims(namespace).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			require.Len(t, claims.Items, 1)
			require.Empty(t, claims.Items[0].OwnerReferences)
		}
	}
}

// TestFilesFromSnapshotReplaced: a claim that a killed attempt has made of a snapshot
// that somebody has deleted since is not read: it is made anew of another one.
func TestFilesFromSnapshotReplaced(t *testing.T) {
	c := newFilesCluster(t, 1)
	require.True(t, c.kill(c.backup(), 4, false), "as it makes the worker")
	require.Len(t, c.left(), 2)
	list, err := c.snaps.SnapshotV1().VolumeSnapshots(namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.NoError(t, c.snaps.SnapshotV1().VolumeSnapshots(namespace).Delete(t.Context(), list.Items[0].Name, metav1.DeleteOptions{}))
	_, err = c.backup().Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, c.cuts, "one of each attempt, and one for the claim that was made anew")
	require.Empty(t, c.left())
}

// TestFilesFromSnapshotCommitted: an attempt that finds its member committed removes
// what the one that was killed has left; and of a dead run whose snapshot cannot be
// deleted the next backup only warns.
func TestFilesFromSnapshotCommitted(t *testing.T) {
	c := newFilesCluster(t, 1)
	c.fail["delete volumesnapshots"] = errors.New("not now")
	report, err := c.backup().Run(t.Context())
	require.NoError(t, err, "the member is committed")
	require.Equal(t, job.StatusComplete, report.Status)
	require.Len(t, c.left(), 1)
	maps.DeleteFunc(c.fail, func(string, error) bool { return true })
	report, err = c.backup().Run(t.Context())
	require.NoError(t, err)
	require.True(t, report.Members[0].Resumed)
	require.Empty(t, c.left())

	c.fail["delete volumesnapshots"] = errors.New("not now")
	c.newJob("second")
	_, err = c.backup().Run(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.kube.BatchV1().Jobs(namespace).Delete(t.Context(), "second", metav1.DeleteOptions{}))
	c.newJob("third")
	var log strings.Builder
	b := c.backup()
	b.Log = slog.New(slog.NewTextHandler(&log, nil))
	_, err = b.Run(t.Context())
	require.NoError(t, err)
	require.Contains(t, log.String(), "stays behind until the next backup")
	require.Len(t, c.left(), 2)
}

// Of a set that is scaled to zero only its claims say which ordinals it had. One that
// is missing among the others is missing in the backup, too, which says so.
func TestFilesOfAStoppedSetThatLacksAClaim(t *testing.T) {
	c := newFilesCluster(t, 3)
	c.stop()
	sets := c.kube.AppsV1().StatefulSets(namespace)
	set, err := sets.Get(t.Context(), "www", metav1.GetOptions{})
	require.NoError(t, err)
	*set.Spec.Replicas = 0
	_, err = sets.Update(t.Context(), set, metav1.UpdateOptions{})
	require.NoError(t, err)
	run := func(name, ordinals string) (*job.BackupReport, error) {
		c.newJob(name)
		b := c.backup()
		b.Workers.Snapshots, b.Workers.Spec.Temporary = nil, false
		b.Ordinals, err = job.ParseOrdinals(ordinals)
		require.NoError(t, err)
		return b.Run(t.Context())
	}
	report, err := run("all", "")
	require.NoError(t, err)
	require.Len(t, report.Members, 3)

	require.NoError(t, c.kube.CoreV1().PersistentVolumeClaims(namespace).Delete(t.Context(), "data-www-1", metav1.DeleteOptions{}))
	report, err = run("one-less", "")
	require.ErrorIs(t, err, job.ErrIncomplete)
	require.Len(t, report.Members, 3)
	require.Equal(t, 1, report.Members[1].Ordinal)
	require.Contains(t, report.Members[1].Error, "claim shop/data-www-1: is missing")

	report, err = run("chosen", "0,2")
	require.NoError(t, err, "nobody asked for it")
	require.Len(t, report.Members, 2)
}
