package statefulset

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// ownFiller is one of a run's own Job that has an account, a secret for its
// image and a volume, as whom 999.
func ownFiller() *Filler {
	f := &Filler{template: "data", who: identity{uid: 999, gid: 999}}
	f.own.Spec = corev1.PodSpec{
		ServiceAccountName: "keepset-restore", ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
		Volumes: []corev1.Volume{{Name: "conf"}, {Name: "repository", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "keepset-repository"},
		}}},
		Containers: []corev1.Container{{Name: "restore", Image: "keepset:1", VolumeMounts: []corev1.VolumeMount{{Name: "conf", MountPath: "/etc/keepset"}}}},
	}
	return f.With([]string{"load"}, map[string]string{"KEEPSET_CONTAINER": ""})
}

func TestSeedPodThatIsFilled(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	spec := SeedSpec{Ordinal: 2, Fill: ownFiller(), Adopt: &Adoption{Script: "prepare"}}
	spec.Fill.anchor = "node-2"
	_, pod := buildSeed(t, set, spec)
	terms := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	require.Equal(t, []string{"node-2"}, terms[0].MatchFields[0].Values, "beside the run, where the repository's claim is mounted")
	inits := names(pod.Spec.InitContainers)
	repository := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == ownVolumes+"repository" })
	require.True(t, pod.Spec.Volumes[repository].PersistentVolumeClaim.ReadOnly, "the kubelet would give it to the database's group")
	require.Equal(t, fillContainer, inits[0], "before everything else")
	require.Equal(t, adoptContainer, inits[len(inits)-1])
	fill := pod.Spec.InitContainers[0]
	require.Equal(t, "keepset:1", fill.Image)
	require.Equal(t, []string{"restore"}, fill.Command)
	require.Equal(t, []string{"load"}, fill.Args)
	require.Equal(t, []corev1.VolumeMount{{Name: "keepset-own-conf", MountPath: "/etc/keepset"}, {Name: "data", MountPath: WorkerPath}}, fill.VolumeMounts)
	require.EqualValues(t, 999, *fill.SecurityContext.RunAsUser)
	require.True(t, *fill.SecurityContext.RunAsNonRoot)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, fill.SecurityContext.SeccompProfile.Type)
	require.Equal(t, []corev1.Capability{"ALL"}, fill.SecurityContext.Capabilities.Drop)
	volumes := map[string]corev1.Volume{}
	for _, v := range pod.Spec.Volumes {
		_, twice := volumes[v.Name]
		require.False(t, twice, v.Name)
		volumes[v.Name] = v
	}
	require.Contains(t, volumes, "conf", "the set's own, of the same name")
	require.Contains(t, volumes, "keepset-own-conf")
	require.Equal(t, "data-"+set.Name+"-2", volumes["data"].PersistentVolumeClaim.ClaimName)
	require.Equal(t, "keepset-restore", pod.Spec.ServiceAccountName)
	require.False(t, *pod.Spec.AutomountServiceAccountToken, "the database gets no token of the restore's")
	require.Contains(t, pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: "registry"})
	require.Empty(t, pod.Spec.SchedulingGates)

	spec.ClaimTemplates, spec.DefaultPort = []string{"data"}, 3306
	spec.Fill.template = "logs"
	_, err := New(fake.NewClientset(set), set.Namespace, nil).NewSeed(newSet(set), spec, Run{ID: "run-1"}, nil)
	require.ErrorIs(t, err, ErrNotFound)
}

// A database that is started after others have brought and prepared its files is
// waited for as long as these take, and what goes wrong with them is said.
func TestSeedWaitsForItsFiles(t *testing.T) {
	for name, c := range map[string]struct {
		fill, prepare int32
		want          string
	}{
		"all is well": {}, "files cannot be brought": {fill: 64, want: "container keepset-fill ended with exit code 64"},
		"files cannot be prepared": {prepare: 1, want: "container keepset-adopt ended with exit code 1"},
	} {
		t.Run(name, func(t *testing.T) {
			set := readSet(t, "mysql-replicated.yaml")
			kube := fake.NewClientset(set)
			spec := SeedSpec{Ordinal: 2, DiscoverOptions: DiscoverOptions{DefaultPort: 3306}, Fill: ownFiller(), Adopt: &Adoption{Script: "prepare"}}
			seed, err := New(kube, set.Namespace, nil).NewSeed(newSet(set), spec, Run{ID: "run-1"}, func(context.Context) error { return nil })
			require.NoError(t, err)
			pod := seed.pod.DeepCopy()
			ended := func(container string, code int32) corev1.ContainerStatus {
				return corev1.ContainerStatus{Name: container, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
			}
			pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.9", InitContainerStatuses: []corev1.ContainerStatus{ended(fillContainer, c.fill), ended(adoptContainer, c.prepare)}}
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "mysql", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			_, err = kube.CoreV1().Pods(set.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
			require.NoError(t, err)
			address, err := seed.WaitRunning(t.Context())
			if c.want == "" {
				require.NoError(t, err)
				require.Equal(t, "10.0.0.9:3306", address)
				return
			}
			require.ErrorIs(t, err, ErrSeedFailed)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestFilesComeInTheirTime: how long a seed pod may take to start does not bound how
// long it takes to bring and prepare its files.
func TestFilesComeInTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := readSet(t, "mysql-replicated.yaml")
		kube := fake.NewClientset(set)
		spec := SeedSpec{Ordinal: 2, DiscoverOptions: DiscoverOptions{DefaultPort: 3306}, Fill: ownFiller(), Adopt: &Adoption{Script: "prepare"}, StartTimeout: time.Minute}
		seed, err := New(kube, set.Namespace, nil).NewSeed(newSet(set), spec, Run{ID: "run-1"}, func(context.Context) error { return nil })
		require.NoError(t, err)
		pods := kube.CoreV1().Pods(set.Namespace)
		pod := seed.pod.DeepCopy()
		pod.Status = corev1.PodStatus{Phase: corev1.PodPending, PodIP: "10.0.0.9", InitContainerStatuses: []corev1.ContainerStatus{
			{Name: fillContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}, {Name: adoptContainer},
		}}
		pod, err = pods.Create(t.Context(), pod, metav1.CreateOptions{})
		require.NoError(t, err)
		go func() {
			time.Sleep(3 * time.Hour)
			done := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
			for i := range pod.Status.InitContainerStatuses {
				pod.Status.InitContainerStatuses[i].State = done
			}
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "mysql", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			_, err := pods.UpdateStatus(context.Background(), pod, metav1.UpdateOptions{})
			assert.NoError(t, err)
		}()
		begun := time.Now()
		_, err = seed.WaitRunning(t.Context())
		require.NoError(t, err)
		require.Greater(t, time.Since(begun), 2*time.Hour)
	})
}
