package statefulset

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
)

// memberPod is a pod as the controller makes it, running and ready.
func memberPod(set *appsv1.StatefulSet, name, index, ip string) *corev1.Pod {
	labels := maps.Clone(set.Spec.Template.Labels)
	if index != "" {
		labels[appsv1.PodIndexLabel] = index
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: set.Namespace, Labels: labels, UID: "uid-of-" + "pod"},
		Spec:       corev1.PodSpec{NodeName: "node-1"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: ip,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "mysql", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
}

func memberClaim(set *appsv1.StatefulSet, name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: set.Namespace},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv-" + name},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
}

func discover(t *testing.T, set *appsv1.StatefulSet, objects ...runtime.Object) Set {
	t.Helper()
	c := New(fake.NewClientset(append(objects, set)...), set.Namespace, nil)
	found, err := c.Discover(context.Background(), set.Name, DiscoverOptions{DefaultPort: 3306})
	require.NoError(t, err)
	return found
}

func problemTexts(s Set) []string {
	var texts []string
	for _, p := range s.Problems {
		texts = append(texts, p.String())
	}
	return texts
}

func TestDiscoverMembersByOrdinal(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	found := discover(t, set,
		memberPod(set, "mysql-2", "2", "10.0.0.3"), memberPod(set, "mysql-0", "", "10.0.0.1"), memberPod(set, "mysql-1", "1", "fd00::2"),
		memberClaim(set, "data-mysql-0"), memberClaim(set, "data-mysql-1"), memberClaim(set, "data-mysql-2"))
	require.Empty(t, problemTexts(found))
	require.Equal(t, "mysql-1.mysql.mysql.svc", found.Host(1))
	var addresses []string
	for i, m := range found.Members {
		require.Equal(t, i, m.Ordinal)
		require.Equal(t, "mysql", m.Container)
		addresses = append(addresses, m.Address())
	}
	require.Equal(t, []string{"10.0.0.1:3306", "[fd00::2]:3306", "10.0.0.3:3306"}, addresses)
	require.Equal(t, "pv-data-mysql-2", found.Members[2].Claims[0].Volume)
}

// mysql-2 is a set of its own here, and its pod is not ordinal 2 of mysql.
func TestDiscoverNamesWithDashes(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	three := int32(1)
	set.Name, set.Spec.Replicas = "my-sql-2", &three
	set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 7}
	found := discover(t, set, memberPod(set, "my-sql-2-7", "7", "10.0.0.1"), memberPod(set, "my-sql-2-7-0", "", "10.0.0.9"),
		memberPod(set, "my-sql-2-07", "", "10.0.0.9"), memberClaim(set, "data-my-sql-2-7"), memberClaim(set, "data-my-sql-2-9"), memberClaim(set, "data-my-sql-2-9-1"))
	require.Len(t, found.Members, 1)
	require.Equal(t, 7, found.Members[0].Ordinal)
	require.Empty(t, problemTexts(found))
	require.Len(t, found.Beyond, 1, "a scale-down has left a claim")
	require.Equal(t, 9, found.Beyond[0].Ordinal)
	require.False(t, found.Beyond[0].Pod.Exists)
}

func TestDiscoverProblems(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	six := int32(7)
	set.Spec.Replicas = &six
	now := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))

	gone := memberPod(set, "mysql-1", "1", "10.0.0.2")
	gone.DeletionTimestamp, gone.Finalizers = &now, []string{"x"}
	gone.Status.Conditions = append(gone.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Reason: "DeletionByTaintManager"})
	pending := memberPod(set, "mysql-2", "2", "")
	pending.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available"}}}
	crashing := memberPod(set, "mysql-3", "3", "10.0.0.4")
	crashing.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off"}}
	unknown := memberPod(set, "mysql-4", "4", "10.0.0.5")
	unknown.Status.Phase = corev1.PodUnknown
	lagging := memberPod(set, "mysql-5", "5", "10.0.0.6")
	lagging.Status.Conditions[0] = corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, Message: "containers with unready status: [mysql]"}
	seed := memberPod(set, "mysql-6", "", "10.0.0.7")
	seed.Labels = labelsOf("mysql", componentSeed)

	objects := []runtime.Object{gone, pending, crashing, unknown, lagging, seed}
	for _, claim := range []string{"data-mysql-1", "data-mysql-2", "data-mysql-3", "data-mysql-4", "data-mysql-5", "data-mysql-6"} {
		objects = append(objects, memberClaim(set, claim))
	}
	found := discover(t, set, objects...)
	require.Equal(t, []string{
		"pod mysql/mysql-0: is missing",
		"claim mysql/data-mysql-0: is missing",
		"pod mysql/mysql-1: is terminating since 2026-01-02T03:04:05Z on node node-1, which does not answer",
		"pod mysql/mysql-2: is Pending: 0/3 nodes are available",
		"pod mysql/mysql-3: container mysql is not running: container mysql: CrashLoopBackOff: back-off",
		"pod mysql/mysql-4: is Unknown",
		"pod mysql/mysql-5: is not Ready: containers with unready status: [mysql]",
		"pod mysql/mysql-6: is a seed pod: a restore is filling this ordinal, or was killed doing so",
	}, problemTexts(found))
	require.False(t, found.Problems[6].Fatal, "a member that is not Ready can be captured")
	require.Empty(t, found.Members[6].Address(), "a seed is not a member")
	blocking := found.Blocking([]int{2, 3})
	require.Len(t, blocking, 2)
	require.Equal(t, 0, blocking[0].Ordinal)
}

func TestDiscoverSharedAndSeveralClaims(t *testing.T) {
	set := readSet(t, "mysql-standalone.yaml")
	shared := corev1.Volume{Name: "dumps", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "dumps-rwx"}}}
	set.Spec.Template.Spec.Volumes = append(set.Spec.Template.Spec.Volumes, shared)
	binlog := *set.Spec.VolumeClaimTemplates[0].DeepCopy()
	binlog.Name = "binlog"
	set.Spec.VolumeClaimTemplates = append(set.Spec.VolumeClaimTemplates, binlog)
	rwx := memberClaim(set, "dumps-rwx")
	rwx.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	found := discover(t, set, memberPod(set, "mysql-0", "0", "10.0.0.1"), memberClaim(set, "pvc-mysql-0"), rwx)
	require.Equal(t, []string{"claim default/binlog-mysql-0: is missing"}, problemTexts(found))
	claims := found.Members[0].Claims
	require.Len(t, claims, 3)
	require.True(t, claims[2].Shared)
	require.Equal(t, []string{"ReadWriteMany"}, claims[2].AccessModes)

	set.Spec.Template.Spec.Containers[0].VolumeMounts = append(set.Spec.Template.Spec.Containers[0].VolumeMounts,
		corev1.VolumeMount{Name: "binlog", MountPath: "/binlog"}, corev1.VolumeMount{Name: "dumps", MountPath: "/dumps"})
	seed, _ := buildSeed(t, set, SeedSpec{Ordinal: 0})
	require.Equal(t, []string{"pvc", "binlog"}, seed.spec.ClaimTemplates, "a shared claim is never replaced")
}

func TestDiscoverUnknownSet(t *testing.T) {
	set := readSet(t, "mysql-standalone.yaml")
	c := New(fake.NewClientset(set), "default", nil)
	_, err := c.Discover(context.Background(), "mysq", DiscoverOptions{})
	require.ErrorIs(t, err, ErrNotFound)
	require.EqualError(t, err, "statefulset default/mysq: not found; namespace default has mysql")
}

func TestExplainDenial(t *testing.T) {
	denied := apierrors.NewForbidden(schema.GroupResource{Group: "apps", Resource: "statefulsets"}, "mysql",
		errors.New(`User "system:serviceaccount:mysql:keepset-restore" cannot patch resource "statefulsets/scale" in API group "apps" in the namespace "mysql"`))
	err := explain(denied, "scale statefulset mysql/mysql to 4")
	require.ErrorIs(t, err, ErrForbidden)
	require.EqualError(t, err, "scale statefulset mysql/mysql to 4: not allowed: service account mysql/keepset-restore may not patch statefulsets.apps/scale in namespace mysql; the rule is in deploy/cronjob/base/rbac-restore.yaml")

	policy := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "mysql-1", errors.New(`violates PodSecurity "restricted:latest"`))
	err = explain(policy, "create seed pod mysql/mysql-1")
	require.NotErrorIs(t, err, ErrForbidden)
	require.ErrorContains(t, err, "refused by the cluster's policy")

	silence := &url.Error{Op: "Get", URL: "https://10.96.0.1:443/api", Err: &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}}
	err = explain(silence, "read statefulset mysql/mysql")
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorContains(t, err, "10.96.0.1:443")
	require.ErrorContains(t, err, "the API server did not answer: check the network policies")
}

func TestRun(t *testing.T) {
	three := int32(3)
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: "keepset-1", Namespace: "mysql", UID: "job-uid", CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 2, 3, 0, 1, 0, time.UTC)),
			Annotations:     map[string]string{annotationScheduled: "2026-01-02T12:00:00+09:00"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "CronJob", Name: "keepset-backup"}},
		},
		Spec: batchv1.JobSpec{Completions: &three},
	}
	c := New(fake.NewClientset(job), "mysql", nil)
	vars := map[string]string{"KEEPSET_JOB_NAME": "keepset-1", "KEEPSET_JOB_UID": "job-uid", "KEEPSET_POD_UID": "pod-uid", "JOB_COMPLETION_INDEX": "2"}
	getenv := func(k string) string { return vars[k] }
	run, err := c.Self(context.Background(), getenv)
	require.NoError(t, err)
	require.Equal(t, "job-uid", run.ID)
	require.Equal(t, "2026-01-02T03:00:00Z", run.Scheduled.Format(time.RFC3339), "the annotation is in the CronJob's zone")
	require.Equal(t, 2, run.Index)
	require.Equal(t, 3, run.Completions)
	require.Equal(t, "keepset-backup", run.CronJob)

	vars["JOB_COMPLETION_INDEX"] = "3"
	_, err = c.Self(context.Background(), getenv)
	require.ErrorContains(t, err, "does not fit")
	vars["KEEPSET_JOB_UID"] = "another"
	_, err = c.Self(context.Background(), getenv)
	require.ErrorContains(t, err, "was replaced")

	local, err := c.Self(context.Background(), func(string) string { return "" })
	require.NoError(t, err)
	require.True(t, local.Local)
	require.Len(t, local.ID, 32)
}

func TestJobFromTemplate(t *testing.T) {
	from := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "keepset-restore", Namespace: "mysql", UID: "cj"}}
	from.Spec.JobTemplate.Labels = map[string]string{LabelSet: "mysql"}
	from.Spec.JobTemplate.Spec.Template.Spec.Containers = []corev1.Container{{
		Name: "keepset", Args: []string{"run"}, Env: []corev1.EnvVar{{Name: "KEEPSET_BACKUP", Value: "latest"}, {Name: "KEEPSET_POD_NAME"}},
	}}
	job := jobFrom(from, "r1", map[string]string{"KEEPSET_BACKUP": "20260102T030405Z-abcdef", "KEEPSET_REPLICAS": "4"})
	require.Equal(t, "manual", job.Annotations[annotationInstantiate])
	require.Equal(t, "mysql", job.Labels[LabelSet])
	require.Equal(t, "keepset-restore", job.OwnerReferences[0].Name)
	require.Equal(t, []string{"run"}, job.Spec.Template.Spec.Containers[0].Args)
	require.Equal(t, []corev1.EnvVar{{Name: "KEEPSET_POD_NAME"}, {Name: "KEEPSET_BACKUP", Value: "20260102T030405Z-abcdef"}, {Name: "KEEPSET_REPLICAS", Value: "4"}},
		job.Spec.Template.Spec.Containers[0].Env)
	require.Len(t, from.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Env, 2, "the template is not touched")
}

func TestBacksUp(t *testing.T) {
	c := New(nil, "mysql", nil)
	cron := func(labels map[string]string, container corev1.Container) batchv1.CronJob {
		o := batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Labels: labels}}
		o.Spec.JobTemplate.Spec.Template.Spec.Containers = []corev1.Container{container}
		return o
	}
	backup := corev1.Container{Command: []string{"backup"}, Args: []string{"run", "--set", "mysql"}}
	require.True(t, c.backsUp(cron(map[string]string{LabelSet: "mysql"}, corev1.Container{}), "mysql"))
	require.True(t, c.backsUp(cron(nil, backup), "mysql"))
	require.False(t, c.backsUp(cron(nil, backup), "mysql-2"))
	require.False(t, c.backsUp(cron(map[string]string{LabelSet: "other"}, backup), "mysql"), "the label decides")
	for _, component := range notBackups {
		require.False(t, c.backsUp(cron(map[string]string{LabelSet: "mysql", labelComponent: component}, backup), "mysql"), "a %s is no backup: no restore suspends it, or waits for it", component)
	}
	require.True(t, c.backsUp(cron(nil, corev1.Container{Command: []string{"/usr/local/bin/backup", "run"}, Env: []corev1.EnvVar{{Name: "KEEPSET_SET", Value: "mysql/mysql"}}}), "mysql"))
	require.False(t, c.backsUp(cron(nil, corev1.Container{Command: []string{"report"}, Args: []string{"--set=mysql"}}), "mysql"), "somebody else's job")
}

// A claim that was changed by hand is not what its template makes any more.
func TestTemplateMakesClaim(t *testing.T) {
	template := ClaimTemplate{Name: "data", Class: "gp3", Size: "1Gi"}
	require.True(t, template.Makes(Claim{Class: "gp3", Request: "1024Mi", Capacity: "4Gi"}), "providers round up")
	require.False(t, template.Makes(Claim{Class: "gp3", Request: "2Gi"}))
	require.False(t, template.Makes(Claim{Class: "io2", Request: "1Gi"}))
	template.Class = ""
	require.True(t, template.Makes(Claim{Class: "gp3", Request: "1Gi"}), "the cluster's default, as it was then")
}
