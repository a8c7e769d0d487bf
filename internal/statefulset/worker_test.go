package statefulset

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// wwwSet has one claim template and pods of a certain user.
func wwwSet(pod *corev1.PodSecurityContext, container *corev1.SecurityContext) *appsv1.StatefulSet {
	replicas := int32(2)
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "www", Namespace: "shop", UID: "uid-of-www"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "www"}},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "www"}},
				Spec: corev1.PodSpec{
					SecurityContext: pod, Tolerations: []corev1.Toleration{{Key: "storage"}}, NodeSelector: map[string]string{"disk": "fast"},
					Containers: []corev1.Container{
						{Name: "proxy", SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(7))}},
						{Name: "www", SecurityContext: container, VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/www"}}},
					},
				},
			},
		},
	}
}

// TestWhoseFiles: the container that mounts the claim says first whose the files
// are, then the pod, then its group; and who cannot know does not guess.
func TestWhoseFiles(t *testing.T) {
	for name, c := range map[string]struct {
		pod       *corev1.PodSecurityContext
		container *corev1.SecurityContext
		spec      WorkerSpec
		uid, gid  int64
		groups    []int64
		refused   string
	}{
		"nobody says":      {refused: "--worker-uid (KEEPSET_WORKER_UID)"},
		"the pod":          {pod: &corev1.PodSecurityContext{RunAsUser: new(int64(999))}, uid: 999, gid: 999},
		"the container":    {pod: &corev1.PodSecurityContext{RunAsUser: new(int64(999)), RunAsGroup: new(int64(5))}, container: &corev1.SecurityContext{RunAsUser: new(int64(1000))}, uid: 1000, gid: 5},
		"a group":          {pod: &corev1.PodSecurityContext{FSGroup: new(int64(2000)), SupplementalGroups: []int64{3}}, uid: 65532, gid: 2000, groups: []int64{3, 2000}},
		"a user in it":     {pod: &corev1.PodSecurityContext{RunAsUser: new(int64(999)), FSGroup: new(int64(2000))}, uid: 999, gid: 2000, groups: []int64{2000}},
		"a server's group": {pod: &corev1.PodSecurityContext{FSGroup: new(int64(2000))}, spec: WorkerSpec{Server: true}, refused: "--worker-uid (KEEPSET_WORKER_UID)"},
		"root":             {pod: &corev1.PodSecurityContext{RunAsUser: new(int64(0)), FSGroup: new(int64(2000))}, refused: "--worker-root"},
		"the caller":       {pod: &corev1.PodSecurityContext{RunAsUser: new(int64(0))}, spec: WorkerSpec{UID: 33, GID: 34}, uid: 33, gid: 34},
		"root, as allowed": {pod: &corev1.PodSecurityContext{RunAsUser: new(int64(999))}, spec: WorkerSpec{Root: true}},
	} {
		t.Run(name, func(t *testing.T) {
			who, err := c.spec.identity(wwwSet(c.pod, c.container), "data")
			if c.refused != "" {
				require.ErrorIs(t, err, ErrAmbiguous)
				require.ErrorContains(t, err, c.refused)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.uid, who.uid)
			require.Equal(t, c.gid, who.gid)
			require.Equal(t, c.groups, who.groups)
		})
	}
}

// TestClaimTemplate: which claims are meant has to be said where there are
// several, and block devices have no files.
func TestClaimTemplate(t *testing.T) {
	object := wwwSet(nil, nil)
	found, err := newSet(object).ClaimTemplate("")
	require.NoError(t, err)
	require.Equal(t, "data", found.Name)
	_, err = newSet(object).ClaimTemplate("logs")
	require.ErrorIs(t, err, ErrNotFound)

	block := corev1.PersistentVolumeBlock
	object.Spec.VolumeClaimTemplates = append(object.Spec.VolumeClaimTemplates, corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "raw"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeMode: &block},
	})
	_, err = newSet(object).ClaimTemplate("")
	require.ErrorIs(t, err, ErrAmbiguous)
	require.ErrorContains(t, err, "[data raw]; name one with --claim-template")
	_, err = newSet(object).ClaimTemplate("raw")
	require.ErrorContains(t, err, "block devices")
	object.Spec.VolumeClaimTemplates = nil
	_, err = newSet(object).ClaimTemplate("")
	require.ErrorIs(t, err, ErrNotFound)
}

// ownJob is the Job of a run as the API server shows it.
func ownJob() *batchv1.Job {
	deadline := int64(3600)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "nightly", Namespace: "shop", UID: "uid-of-nightly"},
		Spec: batchv1.JobSpec{ActiveDeadlineSeconds: &deadline, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{
				"batch.kubernetes.io/job-name": "nightly", "batch.kubernetes.io/controller-uid": "uid-of-nightly", "job-name": "nightly", "controller-uid": "uid-of-nightly",
				"azure.workload.identity/use": "true",
			}},
			Spec: corev1.PodSpec{
				ServiceAccountName: "keepset-backup", NodeSelector: map[string]string{"pool": "jobs"},
				SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(65532)), FSGroup: new(int64(65532))},
				Volumes:         []corev1.Volume{{Name: "repository"}},
				Containers: []corev1.Container{
					{
						Name: "keepset", Image: "keepset:1", Command: []string{"backup"}, Args: []string{"run"},
						Env:          []corev1.EnvVar{{Name: "KEEPSET_ID", Value: "old"}, {Name: "KEEPSET_POD_NAME"}},
						EnvFrom:      []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "keepset-backup"}}}},
						VolumeMounts: []corev1.VolumeMount{{Name: "repository", MountPath: "/repository"}},
					},
					{Name: "proxy"},
				},
			},
		}},
	}
}

func testWorkers(t *testing.T, spec WorkerSpec) (*Workers, *fake.Clientset, Member) {
	t.Helper()
	object := wwwSet(&corev1.PodSecurityContext{RunAsUser: new(int64(1000)), FSGroup: new(int64(1000))}, nil)
	kube := fake.NewClientset(object, ownJob(), memberClaim(object, "data-www-0"), memberClaim(object, "data-www-1"))
	c := New(kube, "shop", nil)
	c.poll = time.Millisecond
	set, err := c.Discover(t.Context(), "www", DiscoverOptions{NoServer: true})
	require.NoError(t, err)
	w, err := c.NewWorkers(t.Context(), set, spec, Run{ID: "uid-of-nightly", JobUID: "uid-of-nightly", JobName: "nightly", Created: c.clock.Now()}, time.Minute)
	require.NoError(t, err)
	return w, kube, set.Members[1]
}

// TestWorkerJob: a worker has the run's image, account, environment and volumes,
// the claim and nothing else, the user of the files and no rights; and it belongs
// to the run's Job.
func TestWorkerJob(t *testing.T) {
	w, _, m := testWorkers(t, WorkerSpec{})
	job := w.job(m, "node-1", map[string]string{"KEEPSET_ID": "new"})
	require.Equal(t, []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "nightly", UID: "uid-of-nightly"}}, job.OwnerReferences)
	require.LessOrEqual(t, *job.Spec.ActiveDeadlineSeconds, int64(3600))
	pod := job.Spec.Template
	require.Equal(t, map[string]string{
		"app.kubernetes.io/name": "keepset", "app.kubernetes.io/managed-by": "keepset", "app.kubernetes.io/component": "backup", "keepset/set": "www",
		"keepset/ordinal": "1", "keepset/run": "uid-of-nightly", "keepset/worker": "files", "azure.workload.identity/use": "true",
	}, pod.Labels)
	require.Equal(t, "keepset-backup", pod.Spec.ServiceAccountName)
	require.Equal(t, corev1.RestartPolicyNever, pod.Spec.RestartPolicy)
	require.Nil(t, pod.Spec.NodeSelector)
	require.Equal(t, []corev1.Toleration{{Key: "storage"}}, pod.Spec.Tolerations)
	require.Equal(t, []string{"node-1"}, pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values)
	security := pod.Spec.SecurityContext
	require.Equal(t, []any{int64(1000), int64(1000), true, []int64{1000, 65532}}, []any{*security.RunAsUser, *security.RunAsGroup, *security.RunAsNonRoot, security.SupplementalGroups})
	require.Nil(t, security.FSGroup, "the kubelet would change the owners of the files")
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, security.SeccompProfile.Type)
	require.Equal(t, "data-www-1", pod.Spec.Volumes[1].PersistentVolumeClaim.ClaimName)
	require.True(t, pod.Spec.Volumes[1].PersistentVolumeClaim.ReadOnly)
	require.Len(t, pod.Spec.Containers, 1)
	c := pod.Spec.Containers[0]
	require.Equal(t, []corev1.EnvVar{{Name: "KEEPSET_POD_NAME"}, {Name: "KEEPSET_ID", Value: "new"}}, c.Env)
	require.Len(t, c.EnvFrom, 1)
	require.Equal(t, []corev1.VolumeMount{{Name: "repository", MountPath: "/repository"}, {Name: "keepset-files", MountPath: WorkerPath, ReadOnly: true}}, c.VolumeMounts)
	require.Equal(t, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, c.SecurityContext.Capabilities)
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)

	anywhere := w.job(m, "", nil)
	require.Equal(t, map[string]string{"pool": "jobs"}, anywhere.Spec.Template.Spec.NodeSelector)
	require.Equal(t, job.Name, anywhere.Name)

	w, _, m = testWorkers(t, WorkerSpec{Root: true})
	pod = w.job(m, "", nil).Spec.Template
	require.Zero(t, *pod.Spec.SecurityContext.RunAsUser)
	require.Equal(t, []corev1.Capability{"DAC_READ_SEARCH"}, pod.Spec.Containers[0].SecurityContext.Capabilities.Add)
}

// TestSeedOfAFiller: the pod that fills a claim holds the ordinal's name as every
// seed does, runs where the set's pods do, and needs nothing of the cluster.
func TestSeedOfAFiller(t *testing.T) {
	w, _, _ := testWorkers(t, WorkerSpec{})
	filler, err := w.client.NewFiller(t.Context(), w.set, WorkerSpec{}, w.run)
	require.NoError(t, err)
	seed, err := w.client.NewSeed(w.set, SeedSpec{
		Ordinal: 1, DiscoverOptions: DiscoverOptions{NoServer: true}, Filler: filler.With([]string{"load", "--tablespace=/$(HOME)"}, map[string]string{"KEEPSET_ID": ""}),
	}, w.run, func(context.Context) error { return nil })
	require.NoError(t, err)
	pod := seed.pod
	require.Equal(t, "www-1", pod.Name)
	require.Equal(t, []string{Finalizer}, pod.Finalizers)
	require.Equal(t, "seed", pod.Labels[labelComponent])
	require.Equal(t, "data-www-1", pod.Annotations[annotationClaims])
	require.Equal(t, map[string]string{"disk": "fast"}, pod.Spec.NodeSelector)
	require.False(t, *pod.Spec.AutomountServiceAccountToken)
	require.Equal(t, int64(1000), *pod.Spec.SecurityContext.FSGroup, "as the set's own pod would, a new volume is given to its group")
	require.Equal(t, []string{"restore"}, pod.Spec.Containers[0].Command)
	require.Equal(t, []string{"load", "--tablespace=/$$(HOME)"}, pod.Spec.Containers[0].Args, "the kubelet finds no variable there")
	require.False(t, pod.Spec.Containers[0].VolumeMounts[1].ReadOnly)
	require.Equal(t, []string{"run"}, filler.own.Spec.Containers[0].Args, "of one ordinal alone")
}

// end ends a worker as its controller would.
func end(t *testing.T, kube *fake.Clientset, job *batchv1.Job, code int32) {
	t.Helper()
	condition := batchv1.JobComplete
	if code != 0 {
		condition = batchv1.JobFailed
	}
	job.UID = "uid-of-worker"
	job.Status.Conditions = []batchv1.JobCondition{{Type: condition, Status: corev1.ConditionTrue, Reason: "PodFailurePolicy"}}
	_, err := kube.CoreV1().Pods("shop").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "worker", Namespace: "shop", Labels: map[string]string{batchv1.ControllerUidLabel: "uid-of-worker"}},
		Status: corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "keepset", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Message: "why"}}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = kube.BatchV1().Jobs("shop").Update(t.Context(), job, metav1.UpdateOptions{}) // after its pod, as the controller does
	require.NoError(t, err)
}

// TestWorkerIsAdopted: a worker that an earlier pod of the run has started is waited
// for; one that has ended is made anew; one of another run is nobody's to touch.
func TestWorkerIsAdopted(t *testing.T) {
	w, kube, m := testWorkers(t, WorkerSpec{})
	running := w.job(m, "", nil)
	_, err := kube.BatchV1().Jobs("shop").Create(t.Context(), running, metav1.CreateOptions{})
	require.NoError(t, err)
	found, err := w.start(t.Context(), w.job(m, "elsewhere", nil))
	require.NoError(t, err)
	require.Nil(t, found.Spec.Template.Spec.Affinity, "the one that was there")

	end(t, kube, running, 1)
	made, err := w.start(t.Context(), w.job(m, "elsewhere", nil))
	require.NoError(t, err)
	require.NotNil(t, made.Spec.Template.Spec.Affinity)

	made.Labels[LabelRun] = "another"
	_, err = kube.BatchV1().Jobs("shop").Update(t.Context(), made, metav1.UpdateOptions{})
	require.NoError(t, err)
	_, err = w.start(t.Context(), w.job(m, "", nil))
	require.ErrorContains(t, err, "none of this run's workers")
}

// TestWorkerEnds: how a worker ended, and why, comes back, and it is gone then.
func TestWorkerEnds(t *testing.T) {
	w, kube, m := testWorkers(t, WorkerSpec{})
	job := w.job(m, "", nil)
	_, err := kube.BatchV1().Jobs("shop").Create(t.Context(), job, metav1.CreateOptions{})
	require.NoError(t, err)
	job.UID = "uid-of-worker"
	_, err = kube.BatchV1().Jobs("shop").Update(t.Context(), job, metav1.UpdateOptions{})
	require.NoError(t, err)
	// It ends while it is followed, which begins with its pods: before, it would be made anew.
	followed, once := make(chan struct{}), sync.Once{}
	kube.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		once.Do(func() { close(followed) })
		return false, nil, nil
	})
	go func() { <-followed; end(t, kube, job.DeepCopy(), 4) }()
	result, err := w.Work(t.Context(), m, "", nil, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, JobResult{ExitCode: 4, Message: "why", Reason: "PodFailurePolicy"}, result)
	_, err = kube.BatchV1().Jobs("shop").Get(t.Context(), job.Name, metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err))
	require.NoError(t, w.Remove(t.Context(), m.Ordinal), "once more does no harm")
}

// TestWorkerDoesNotStart: a worker whose pod waits for something that does not
// come is given up, with what it waits for.
func TestWorkerDoesNotStart(t *testing.T) {
	w, kube, m := testWorkers(t, WorkerSpec{})
	w.startTimeout = 30 * time.Millisecond
	_, err := kube.CoreV1().Pods("shop").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "worker", Namespace: "shop", Labels: map[string]string{batchv1.ControllerUidLabel: ""}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available"},
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = w.Work(t.Context(), m, "", nil, io.Discard)
	require.ErrorIs(t, err, ErrTimeout)
	require.ErrorContains(t, err, "0/1 nodes are available")
	_, err = kube.BatchV1().Jobs("shop").Get(t.Context(), w.name(m.Ordinal), metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err))
}

// TestUsers: pods that have a claim, or will have it, use it; those that have ended
// and workers do not.
func TestUsers(t *testing.T) {
	w, kube, m := testWorkers(t, WorkerSpec{})
	add := func(name string, phase corev1.PodPhase, labels map[string]string) {
		_, err := kube.CoreV1().Pods("shop").Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: labels},
			Spec: corev1.PodSpec{NodeName: "node-1", Volumes: []corev1.Volume{
				{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-www-1"}}},
			}},
			Status: corev1.PodStatus{Phase: phase},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	add("ended", corev1.PodSucceeded, nil)
	add("worker", corev1.PodRunning, map[string]string{labelWorker: "files"})
	add("waits", corev1.PodPending, nil)
	users, err := w.client.ClaimUsers(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string][]ClaimUser{w.Claim(m).Name: {{"waits", "node-1"}}}, users)
}

// TestBesideUs: where the repository is on a claim that one node alone can mount,
// every pod that needs it has to run there, and what cannot is refused.
func TestBesideUs(t *testing.T) {
	repository := func(mode corev1.PersistentVolumeAccessMode) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "keepset-repository", Namespace: "shop"},
			Spec:       corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{mode}},
		}
	}
	for mode, node := range map[corev1.PersistentVolumeAccessMode]string{
		corev1.ReadWriteOnce: "node-2", corev1.ReadWriteMany: "", corev1.ReadOnlyMany: "", corev1.ReadWriteOncePod: "refused",
	} {
		t.Run(string(mode), func(t *testing.T) {
			own, object := ownJob(), wwwSet(&corev1.PodSecurityContext{RunAsUser: new(int64(999))}, nil)
			own.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "repository", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "keepset-repository"},
			}}}
			zones := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}}}
			object.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{zones, {}}},
			}}
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "nightly-x", Namespace: "shop"}, Spec: corev1.PodSpec{NodeName: "node-2"}}
			kube := fake.NewClientset(own, object, pod, repository(mode))
			client := New(kube, "shop", nil)
			run := Run{ID: "run-1", JobName: own.Name, JobUID: string(own.UID), PodName: pod.Name}

			workers, workersErr := client.NewWorkers(t.Context(), newSet(object), WorkerSpec{}, run, time.Minute)
			filler, fillerErr := client.NewFiller(t.Context(), newSet(object), WorkerSpec{}, run)
			if node == "refused" {
				require.ErrorIs(t, workersErr, ErrExclusive)
				require.ErrorIs(t, fillerErr, ErrExclusive)
				return
			}
			require.NoError(t, workersErr)
			require.NoError(t, fillerErr)
			require.Equal(t, node, workers.anchor)

			seed, err := client.NewSeed(newSet(object), SeedSpec{Ordinal: 1, DiscoverOptions: DiscoverOptions{NoServer: true}, Filler: filler}, run, nil)
			require.NoError(t, err)
			terms := seed.pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
			require.Len(t, terms, 2)
			require.Equal(t, zones.MatchExpressions, terms[0].MatchExpressions, "what the set demands stays")
			for _, term := range terms {
				if node == "" {
					require.Empty(t, term.MatchFields)
					continue
				}
				require.Equal(t, []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}, term.MatchFields)
			}

			m := Member{Ordinal: 0, Claims: []Claim{{Name: "data-www-0", Template: "data"}}}
			var made *batchv1.Job
			kube.PrependReactor("create", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
				create, ok := a.(clienttesting.CreateAction)
				require.True(t, ok)
				made, ok = create.GetObject().(*batchv1.Job)
				require.True(t, ok)
				return true, nil, apierrors.NewServiceUnavailable("enough")
			})
			_, err = workers.Work(t.Context(), m, "", nil, io.Discard)
			require.ErrorContains(t, err, "enough")
			require.Equal(t, node != "", made.Spec.Template.Spec.Affinity != nil)
			if node != "" {
				_, err = workers.Work(t.Context(), m, "node-1", nil, io.Discard)
				require.ErrorContains(t, err, "claim shop/data-www-0 is in use on node node-1, and the repository's claim")
			}
		})
	}
}
