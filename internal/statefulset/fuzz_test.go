package statefulset

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/fake"
)

// An ordinal is read from the one name that the controller would give it.
func FuzzSuffixOrdinal(f *testing.F) {
	for _, name := range []string{"mysql-0", "mysql-2-0", "mysql-07", "mysql-+1", "mysql--1", "mysql-2147483647", "mysql-4294967296", "my-sql-3"} {
		f.Add(name, "mysql")
	}
	f.Fuzz(func(t *testing.T, name, set string) {
		if n, ok := suffixOrdinal(name, set+"-"); ok {
			require.Equal(t, name, podName(set, n))
			require.GreaterOrEqual(t, n, 0)
		}
		if n, ok := suffixOrdinal(podName(set, len(name)), set+"-"); true {
			require.True(t, ok)
			require.Equal(t, len(name), n)
		}
	})
}

// Whatever a seed pod's labels and annotations say: what is done to an ordinal
// is done to the one that the pod's name holds, and to its claims alone.
func FuzzSeedInfo(f *testing.F) {
	f.Add("mysql-2", "2", "data-mysql-2", "run-1", "")
	f.Add("mysql-2", "0", "data-mysql-0 data-other-2", "run-1", "20261120T131730Z-1a2b3c4d")
	f.Add("mysql-2", "", "", "", "x")
	f.Add("mysql", "nonsense", "data-mysql-0", "", "")
	f.Fuzz(func(t *testing.T, name, ordinal, claims, run, loaded string) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{LabelOrdinal: ordinal, LabelRun: run},
			Annotations: map[string]string{annotationClaims: claims, AnnotationLoaded: loaded},
		}}
		set := Set{Name: "mysql", Templates: []ClaimTemplate{{Name: "data"}, {Name: "log"}}}
		info, ok := newSeedInfo(pod, set)
		if !ok {
			_, is := suffixOrdinal(name, "mysql-")
			require.False(t, is)
			return
		}
		require.Equal(t, name, podName("mysql", info.Ordinal))
		for _, c := range info.Claims {
			require.Contains(t, []string{"data-" + name, "log-" + name}, c)
		}
		require.Equal(t, run+loaded, info.Run+info.LoadedBackup)
	})
}

// A patch of the seed pod changes what it may, and nothing that keeps the
// ordinal safe.
func FuzzSeedPatch(f *testing.F) {
	for _, patch := range []string{
		"spec: {containers: [{name: mysql, args: [--skip-log-bin], env: [{name: A, value: b}]}]}",
		"metadata: {name: other, finalizers: [], labels: {app: mysql}, ownerReferences: null, annotations: {keepset/claims: x}}",
		"spec: {restartPolicy: Always, nodeName: n, readinessGates: [{conditionType: x}], hostname: y}",
		"spec: {containers: [{name: mysql, livenessProbe: {exec: {command: [x]}}, lifecycle: {}}]}",
		"spec: {$patch: replace}", "spec: {container: []}", "[1, 2]", "spec: null", "{", "metadata: null", "$patch: delete", "spec: {containers: null}",
		"spec: {containers: [{name: {}}]}",
	} {
		f.Add(patch)
	}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "mysql", Namespace: "shop"}, Spec: appsv1.StatefulSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "mysql"}},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "mysql"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "mysql", Image: "mariadb:11"}}},
		},
	}}
	f.Fuzz(func(t *testing.T, patch string) {
		spec := SeedSpec{Ordinal: 2, Patch: []byte(patch), ClaimTemplates: []string{"data"}}
		b := builder{set: set, spec: spec, at: endpoint{container: "mysql", port: 3306}, run: Run{ID: "run-1", JobName: "j", JobUID: "run-1"}}
		pod, err := b.pod()
		if err != nil {
			require.True(t, strings.Contains(err.Error(), "seed patch") || strings.Contains(err.Error(), "seed pod"), "%v", err)
			return
		}
		require.Equal(t, "shop/mysql-2", pod.Namespace+"/"+pod.Name)
		want := labelsOf("mysql", componentSeed)
		maps.Copy(want, map[string]string{LabelOrdinal: "2", LabelRun: "run-1"})
		require.Equal(t, want, pod.Labels)
		require.Equal(t, []string{Finalizer}, pod.Finalizers)
		require.Equal(t, "data-mysql-2", pod.Annotations[annotationClaims])
		require.Len(t, pod.OwnerReferences, 1)
		require.Equal(t, corev1.RestartPolicyNever, pod.Spec.RestartPolicy)
		require.Empty(t, pod.Spec.NodeName+pod.GenerateName)
		require.Contains(t, names(pod.Spec.Containers), "mysql", "a seed without its database would never end")
		for _, c := range pod.Spec.Containers {
			require.Nil(t, c.LivenessProbe)
			require.Nil(t, c.Lifecycle)
		}
	})
}

// A reference to a label is resolved to the member's label, and to nothing
// else; a file of it refers to an annotation that is there.
func FuzzResolveLabels(f *testing.F) {
	f.Add("metadata.labels['apps.kubernetes.io/pod-index']")
	f.Add("metadata.labels['a'] ")
	f.Add("metadata.name")
	f.Add("metadata.labels['x/y/z']")
	f.Fuzz(func(t *testing.T, path string) {
		field := &corev1.ObjectFieldSelector{FieldPath: path}
		file := &corev1.ObjectFieldSelector{FieldPath: path}
		pod := &corev1.Pod{Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Env: []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: field}}}}},
			Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
				Items: []corev1.DownwardAPIVolumeFile{{Path: "a", FieldRef: file}},
			}}}},
		}}
		labels := map[string]string{appsv1.PodIndexLabel: "2"}
		(&builder{}).resolveLabels(pod, labels)
		key, is := strings.CutPrefix(path, "metadata.labels['")
		key, closed := strings.CutSuffix(key, "']")
		is = is && closed && key != "" && !strings.Contains(key, "'")
		require.Equal(t, is, pod.Spec.Containers[0].Env[0].ValueFrom == nil)
		if !is {
			require.Equal(t, path, file.FieldPath)
			return
		}
		require.Equal(t, labels[key], pod.Spec.Containers[0].Env[0].Value)
		require.Len(t, pod.Annotations, 1)
		for name, value := range pod.Annotations {
			require.Equal(t, labels[key], value)
			require.Equal(t, "metadata.annotations['"+name+"']", file.FieldPath)
			if len(validation.IsQualifiedName(key)) == 0 && !strings.Contains(key, "/") {
				require.Empty(t, validation.IsQualifiedName(name))
			}
		}
	})
}

// The set that a CronJob backs up is the one that its arguments name, in
// either form, and else its environment.
func FuzzSetArgument(f *testing.F) {
	f.Add("backup\x00run\x00--set\x00shop/mysql", "other")
	f.Add("--set=mysql\x00--set", "")
	f.Add("--set", "mysql")
	f.Add("0--set=", "")
	f.Fuzz(func(t *testing.T, joined, variable string) {
		words := strings.Split(joined, "\x00")
		c := corev1.Container{Command: words[:len(words)/2], Args: words[len(words)/2:], Env: []corev1.EnvVar{{Name: "KEEPSET_SET", Value: variable}}}
		got := setArgument(c)
		for i, w := range words {
			if w == "--set="+got || w == got && i > 0 && words[i-1] == "--set" {
				return
			}
		}
		require.Equal(t, variable, got)
		require.False(t, slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "--set=") }))
	})
}

// Which pod of which Job we are: an index is one of the Job's, or an error.
func FuzzRun(f *testing.F) {
	f.Add("2", int32(3), "uid-1", "2026-11-20T03:00:00+01:00")
	f.Add("3", int32(3), "uid-1", "")
	f.Add("-1", int32(-3), "uid-2", "yesterday")
	f.Add("", int32(0), "", "")
	f.Fuzz(func(t *testing.T, index string, completions int32, uid, scheduled string) {
		job := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: "j", UID: "uid-1", Annotations: map[string]string{annotationScheduled: scheduled}},
			Spec:       batchv1.JobSpec{Completions: &completions},
		}
		run, err := newRun(job, func(name string) string {
			return map[string]string{"JOB_COMPLETION_INDEX": index, "KEEPSET_JOB_UID": uid}[name]
		})
		if err != nil {
			require.Zero(t, run)
			require.ErrorContains(t, err, "j")
			return
		}
		require.Contains(t, []string{"", "uid-1"}, uid)
		if index == "" {
			require.Equal(t, -1, run.Index)
			return
		}
		n, err := strconv.Atoi(index)
		require.NoError(t, err)
		require.Equal(t, n, run.Index)
		require.Less(t, run.Index, run.Completions)
		require.GreaterOrEqual(t, run.Index, 0)
	})
}

// A denial of the authorizer names the rule that is missing; every other
// refusal stays what it is.
func FuzzExplain(f *testing.F) {
	f.Add(`User "system:serviceaccount:shop:keepset-restore" cannot delete resource "pods" in API group "" in the namespace "shop"`)
	f.Add(`User "jane" cannot patch resource "statefulsets/scale" in API group "apps"`)
	f.Add("exceeded quota")
	f.Fuzz(func(t *testing.T, text string) {
		cause := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "db-0", errors.New(text))
		err := explain(cause, "do it")
		require.True(t, strings.HasPrefix(err.Error(), "do it: "))
		if denial.MatchString(cause.Error()) {
			require.ErrorIs(t, err, ErrForbidden)
			require.ErrorContains(t, err, "rbac-")
		} else {
			require.ErrorIs(t, err, cause)
			require.NotErrorIs(t, err, ErrForbidden)
		}
	})
}

// A Lease's holder that is taken apart is the run that was put there.
func FuzzHolder(f *testing.F) {
	f.Add("4f1c-2a", "9b3d")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, id, pod string) {
		run := Run{ID: id, PodUID: pod}
		if !strings.Contains(id, "/") { // UIDs have none
			require.Equal(t, id, LeaseInfo{Holder: run.holder()}.Run())
		}
		_ = LeaseInfo{Holder: id}.Run()
	})
}

// An Event's message is text of at most 1024 bytes, and begins as it was given.
func FuzzEvent(f *testing.F) {
	f.Add("restored", 1)
	f.Add("é", 600)
	f.Add("x\U0001F600", 300)
	f.Fuzz(func(t *testing.T, text string, times int) {
		if len(text) == 0 || times < 1 || times > 2000 || len(text)*times > 1<<14 || !utf8.ValidString(text) {
			return
		}
		message := strings.Repeat(text, times)
		c := New(fake.NewClientset(), "shop", nil)
		require.NoError(t, c.Event(t.Context(), Set{Namespace: "shop", Name: "db"}, false, "RestoreComplete", message))
		list, err := c.kube.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		got := list.Items[0].Message
		require.LessOrEqual(t, len(got), eventLimit)
		require.True(t, utf8.ValidString(got))
		require.True(t, strings.HasPrefix(message, strings.TrimSuffix(got, "...")))
	})
}

// A host is a pod of the namespace, or nobody: no name leads out of it.
func FuzzPodAt(f *testing.F) {
	for _, host := range []string{"db-0.db", "db-0.db.shop.svc", "db-0.db.other.svc", "db", "10.0.0.7", "10.0.0.8", "::1", "db-0..shop", "a/b.c", ""} {
		f.Add(host)
	}
	c := New(fake.NewClientset(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "db-0", Namespace: "shop"}, Status: corev1.PodStatus{PodIP: "10.0.0.7", Phase: corev1.PodRunning},
	}), "shop", nil)
	f.Fuzz(func(t *testing.T, host string) {
		pod, err := c.podAt(t.Context(), host)
		switch {
		case host == "10.0.0.7":
			require.Equal(t, "db-0", pod)
		case err == nil:
			require.Empty(t, validation.IsDNS1123Subdomain(pod))
			require.True(t, strings.HasPrefix(host, pod+"."), host)
		}
		if host == "db-0.db.other.svc" || host == "db" || host == "10.0.0.8" {
			require.Error(t, err)
		}
	})
}
