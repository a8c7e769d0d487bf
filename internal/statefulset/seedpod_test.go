package statefulset

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// readSet reads a StatefulSet as users write it.
func readSet(t *testing.T, file string) *appsv1.StatefulSet {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	require.NoError(t, err)
	set := &appsv1.StatefulSet{}
	require.NoError(t, yaml.UnmarshalStrict(text, set))
	set.UID = "set-uid"
	set.Status.UpdateRevision = set.Name + "-7d9"
	return set
}

func buildSeed(t *testing.T, set *appsv1.StatefulSet, spec SeedSpec) (*Seed, *corev1.Pod) {
	t.Helper()
	c := New(nil, set.Namespace, nil)
	spec.DefaultPort = 3306
	seed, err := c.NewSeed(newSet(set), spec, Run{ID: "run-1", JobName: "restore-1", JobUID: "run-1", PodUID: "p"}, nil)
	require.NoError(t, err)
	return seed, seed.pod
}

func names(cs []corev1.Container) []string {
	out := make([]string, len(cs))
	for i, c := range cs {
		out[i] = c.Name
	}
	return out
}

func env(c corev1.Container, name string) corev1.EnvVar {
	i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
	if i < 0 {
		return corev1.EnvVar{}
	}
	return c.Env[i]
}

// The primary-and-followers set of the Kubernetes and EBS documents: it
// clones from a neighbour and runs a helper beside the database.
func TestSeedPodOfReplicatedSet(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	seed, pod := buildSeed(t, set, SeedSpec{Ordinal: 2})

	require.Equal(t, "mysql-2", pod.Name)
	require.Equal(t, []string{"mysql"}, names(pod.Spec.Containers))
	require.Equal(t, []string{"init-mysql"}, names(pod.Spec.InitContainers), "init-mysql writes the server ID; clone-mysql would fill the claim")
	require.Contains(t, seed.Notes(), "init container clone-mysql is left out because it mounts a claim; name it with --init-container to run it")
	require.Contains(t, seed.Notes(), "container xtrabackup is left out")

	require.Equal(t, "mysql-2", pod.Spec.Hostname)
	require.Equal(t, "mysql", pod.Spec.Subdomain)
	require.Equal(t, corev1.RestartPolicyNever, pod.Spec.RestartPolicy)
	require.Equal(t, []string{Finalizer}, pod.Finalizers)
	require.Equal(t, "Job", pod.OwnerReferences[0].Kind)
	require.Nil(t, pod.OwnerReferences[0].Controller, "the Job controller would strip a controller reference")

	require.NotContains(t, pod.Labels, "app", "a Service would select it")
	require.NotContains(t, pod.Labels, appsv1.PodIndexLabel)
	require.NotContains(t, pod.Labels, appsv1.StatefulSetPodNameLabel)

	db := pod.Spec.Containers[0]
	require.Nil(t, db.LivenessProbe)
	require.Nil(t, db.ReadinessProbe)
	require.Nil(t, db.Lifecycle)
	require.Equal(t, "1", db.Resources.Requests.Cpu().String(), "resources stay")

	var claims []string
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			claims = append(claims, v.Name+"="+v.PersistentVolumeClaim.ClaimName)
		}
	}
	require.Equal(t, []string{"data=data-mysql-2"}, claims)
	require.Equal(t, "data-mysql-2", pod.Annotations[annotationClaims])
}

func TestSeedPodRunsWhatTheUserNames(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	_, pod := buildSeed(t, set, SeedSpec{Ordinal: 2, InitContainers: []string{"clone-mysql"}, Containers: []string{"xtrabackup"}, DiscoverOptions: DiscoverOptions{Container: "mysql"}})
	require.Equal(t, []string{"mysql", "xtrabackup"}, names(pod.Spec.Containers))
	require.Equal(t, []string{"init-mysql", "clone-mysql"}, names(pod.Spec.InitContainers))

	_, err := New(nil, "mysql", nil).NewSeed(newSet(set), SeedSpec{Ordinal: 2, InitContainers: []string{"clone"}, DiscoverOptions: DiscoverOptions{DefaultPort: 3306}}, Run{}, nil)
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, `container "clone"`)
}

// Without its labels a pod's references to them are silently empty, and every
// seed would get the server ID of ordinal 0.
func TestSeedPodResolvesLabels(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	ref := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	set.Spec.Template.Spec.InitContainers[0].Env = []corev1.EnvVar{
		{Name: "INDEX", ValueFrom: ref("metadata.labels['apps.kubernetes.io/pod-index']")},
		{Name: "POD", ValueFrom: ref("metadata.labels['statefulset.kubernetes.io/pod-name']")},
		{Name: "APP", ValueFrom: ref("metadata.labels['app']")},
		{Name: "REVISION", ValueFrom: ref("metadata.labels['controller-revision-hash']")},
		{Name: "NAME", ValueFrom: ref("metadata.name")},
	}
	set.Spec.Template.Spec.Volumes = append(set.Spec.Template.Spec.Volumes, corev1.Volume{Name: "info", VolumeSource: corev1.VolumeSource{
		DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "index", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}},
			{Path: "all", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		}},
	}})
	seed, pod := buildSeed(t, set, SeedSpec{Ordinal: 11})
	init := pod.Spec.InitContainers[0]
	require.Equal(t, corev1.EnvVar{Name: "INDEX", Value: "11"}, env(init, "INDEX"))
	require.Equal(t, "mysql-11", env(init, "POD").Value)
	require.Equal(t, "mysql", env(init, "APP").Value)
	require.Equal(t, "mysql-7d9", env(init, "REVISION").Value)
	require.Equal(t, "metadata.name", env(init, "NAME").ValueFrom.FieldRef.FieldPath, "the name is the ordinal's own anyway")

	i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "info" })
	items := pod.Spec.Volumes[i].DownwardAPI.Items
	require.Equal(t, "metadata.annotations['keepset-label/apps.kubernetes.io_pod-index']", items[0].FieldRef.FieldPath)
	require.Equal(t, "11", pod.Annotations["keepset-label/apps.kubernetes.io_pod-index"])
	require.Contains(t, seed.Notes(), "file all holds the seed's own labels, not the member's")

	require.NotNil(t, set.Spec.Template.Spec.InitContainers[0].Env[0].ValueFrom, "the set's own template is not touched")
}

func TestSeedPatch(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	patch := `
metadata:
  name: other
  labels: {app: mysql}
  finalizers: []
spec:
  restartPolicy: Always
  containers:
    - name: mysql
      args: [--skip-slave-start, --super-read-only=0]
      env:
        - name: MYSQL_ROOT_PASSWORD
          valueFrom: {secretKeyRef: {name: keepset-restore, key: KEEPSET_TARGET_PASSWORD}}
      livenessProbe: {tcpSocket: {port: 3306}}
`
	_, pod := buildSeed(t, set, SeedSpec{Ordinal: 1, Patch: []byte(patch)})
	db := pod.Spec.Containers[0]
	require.Equal(t, []string{"--skip-slave-start", "--super-read-only=0"}, db.Args)
	require.Equal(t, "keepset-restore", env(db, "MYSQL_ROOT_PASSWORD").ValueFrom.SecretKeyRef.Name)
	require.Equal(t, "1", env(db, "MYSQL_ALLOW_EMPTY_PASSWORD").Value, "the template's own environment stays")
	require.Equal(t, "/var/lib/mysql", db.VolumeMounts[0].MountPath)

	require.Equal(t, "mysql-1", pod.Name, "a patch cannot take the ordinal's name away")
	require.NotContains(t, pod.Labels, "app")
	require.Equal(t, []string{Finalizer}, pod.Finalizers)
	require.Equal(t, corev1.RestartPolicyNever, pod.Spec.RestartPolicy)
	require.Nil(t, db.LivenessProbe)
}

func TestSeedPatchRefusesUnknownFields(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	c := New(nil, "mysql", nil)
	for name, patch := range map[string]string{
		"misspelt": "spec:\n  containers:\n  - name: mysql\n    arg: [--x]\n",
		"not yaml": "spec: [",
	} {
		_, err := c.NewSeed(newSet(set), SeedSpec{Ordinal: 1, Patch: []byte(patch), DiscoverOptions: DiscoverOptions{DefaultPort: 3306}}, Run{}, nil)
		require.ErrorContains(t, err, "the seed patch", name)
	}
}

// The standalone document: one replica, subPath data.
func TestSeedPodOfStandaloneSet(t *testing.T) {
	set := readSet(t, "mysql-standalone.yaml")
	_, pod := buildSeed(t, set, SeedSpec{Ordinal: 0})
	mount := pod.Spec.Containers[0].VolumeMounts[0]
	require.Equal(t, "data", mount.SubPath)
	require.Equal(t, "/var/lib/mysql", mount.MountPath)
	require.Equal(t, "pvc-mysql-0", pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName)
	require.Equal(t, "qwerty", env(pod.Spec.Containers[0], "MYSQL_ROOT_PASSWORD").Value)
}

// The seed does not bear the labels that a constraint counts. It must not land
// where the real pod, which counts itself, could not follow its volume.
func TestSeedPodSpread(t *testing.T) {
	set := readSet(t, "mysql-standalone.yaml")
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "mysql-sts"}}
	set.Spec.Template.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
		{TopologyKey: "zone", MaxSkew: 3, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector},
		{TopologyKey: "host", MaxSkew: 1, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector},
	}
	_, pod := buildSeed(t, set, SeedSpec{Ordinal: 0})
	got := pod.Spec.TopologySpreadConstraints
	require.Len(t, got, 3)
	require.EqualValues(t, 2, got[0].MaxSkew)
	require.EqualValues(t, 1, got[1].MaxSkew)
	require.Equal(t, corev1.ScheduleAnyway, got[2].WhenUnsatisfiable)
	require.Equal(t, "host", got[2].TopologyKey)
}

func TestSeedRefusesSetThatWouldAdoptIt(t *testing.T) {
	set := readSet(t, "mysql-standalone.yaml")
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{labelManagedBy: product}}
	_, err := New(nil, "default", nil).NewSeed(newSet(set), SeedSpec{}, Run{ID: "r"}, nil)
	require.ErrorContains(t, err, "would adopt a seed pod")
}

// The claim that we make for an ordinal that the set does not ask for yet is
// the one that its controller would make.
func TestNewClaim(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
	seed, _ := buildSeed(t, set, SeedSpec{Ordinal: 5})
	claim := seed.newClaim("data")
	require.Equal(t, "data-mysql-5", claim.Name)
	require.Equal(t, "mysql", claim.Labels["app"])
	require.Equal(t, "run-1", claim.Annotations[AnnotationSeeding])
	require.Equal(t, set.Spec.VolumeClaimTemplates[0].Spec, claim.Spec)
	require.Equal(t, "StatefulSet", claim.OwnerReferences[0].Kind)
	require.True(t, *claim.OwnerReferences[0].Controller)

	set.Spec.PersistentVolumeClaimRetentionPolicy = nil
	seed, _ = buildSeed(t, set, SeedSpec{Ordinal: 5})
	require.Empty(t, seed.newClaim("data").OwnerReferences)
}
