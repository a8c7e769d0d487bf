package statefulset

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestContainerBeside: a container copies the database's files only if it has them where the database has them.
func TestContainerBeside(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	sidecars := func(p *corev1.PodSpec) {
		p.InitContainers, p.Containers = append(p.InitContainers, p.Containers[1]), p.Containers[:1]
	}
	for name, c := range map[string]struct {
		change func(p *corev1.PodSpec)
		other  string
		want   string
	}{
		"as in the example":        {other: "xtrabackup"},
		"a native sidecar":         {change: sidecars, other: "xtrabackup"},
		"the same path, written":   {change: func(p *corev1.PodSpec) { p.Containers[1].VolumeMounts[0].MountPath += "/" }, other: "xtrabackup"},
		"there is none":            {other: "copier", want: `container "copier": not found; it has mysql, xtrabackup`},
		"it has no claim":          {change: func(p *corev1.PodSpec) { p.Containers[1].VolumeMounts = p.Containers[1].VolumeMounts[1:] }, other: "xtrabackup", want: "does not mount data/mysql at /var/lib/mysql"},
		"at another path":          {change: func(p *corev1.PodSpec) { p.Containers[1].VolumeMounts[0].MountPath = "/data" }, other: "xtrabackup", want: "does not mount"},
		"another part":             {change: func(p *corev1.PodSpec) { p.Containers[1].VolumeMounts[0].SubPath = "" }, other: "xtrabackup", want: "does not mount"},
		"another volume, no claim": {change: func(p *corev1.PodSpec) { p.Containers[1].VolumeMounts = p.Containers[1].VolumeMounts[:1] }, other: "xtrabackup"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "mysql-0", Namespace: set.Namespace}, Spec: *set.Spec.Template.Spec.DeepCopy()}
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-mysql-0"},
			}})
			if c.change != nil {
				c.change(&pod.Spec)
			}
			err := New(fake.NewClientset(pod), set.Namespace, nil).Beside(t.Context(), "mysql-0", "mysql", c.other)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrNotFound)
			require.ErrorContains(t, err, c.want)
		})
	}
	require.ErrorIs(t, New(fake.NewClientset(), set.Namespace, nil).Beside(t.Context(), "mysql-9", "mysql", "xtrabackup"), ErrNotFound)
}

// TestFilesArePreparedInAnotherImage: the program that prepares the files may be in another container of the template's.
// The rest is as the database's: its user and its mounts.
func TestFilesArePreparedInAnotherImage(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	spec := SeedSpec{Ordinal: 2, Fill: ownFiller(), Adopt: &Adoption{Script: "prepare", Container: "xtrabackup"}}
	seed, pod := buildSeed(t, set, spec)
	prepare := pod.Spec.InitContainers[len(pod.Spec.InitContainers)-1]
	require.Equal(t, adoptContainer, prepare.Name)
	require.Equal(t, "xtrabackup:1.0", prepare.Image)
	require.Equal(t, []corev1.VolumeMount{{Name: "data", MountPath: "/var/lib/mysql", SubPath: "mysql"}}, prepare.VolumeMounts)
	require.Equal(t, []string{"mysql"}, names(pod.Spec.Containers))
	require.Equal(t, "mysql:5.7", pod.Spec.Containers[0].Image)
	require.Contains(t, seed.Notes(), "the files are prepared in the image of container xtrabackup")

	spec.Adopt.Container = "mysql"
	_, pod = buildSeed(t, set, spec)
	require.Equal(t, "mysql:5.7", pod.Spec.InitContainers[len(pod.Spec.InitContainers)-1].Image)

	spec.Adopt.Container, spec.DefaultPort = "copier", 3306
	_, err := New(fake.NewClientset(set), set.Namespace, nil).NewSeed(newSet(set), spec, Run{ID: "run-1"}, nil)
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, `container "copier"`)
}
