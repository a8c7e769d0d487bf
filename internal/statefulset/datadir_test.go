package statefulset

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// TestDataPlace: where a server's files are in a claim is what the container's
// mounts say, the innermost one.
func TestDataPlace(t *testing.T) {
	const usual = "/var/lib/postgresql/data"
	claim := func(at, sub string) corev1.VolumeMount {
		return corev1.VolumeMount{Name: "data", MountPath: at, SubPath: sub}
	}
	for name, c := range map[string]struct {
		mounts  []corev1.VolumeMount
		env     string
		dir     string
		want    string
		refused string
	}{
		"the root of the claim":        {mounts: []corev1.VolumeMount{claim(usual, "")}, want: "."},
		"a folder of the claim":        {mounts: []corev1.VolumeMount{claim(usual+"/", "pg")}, want: "pg"},
		"a folder below the mount":     {mounts: []corev1.VolumeMount{claim(usual, "")}, env: usual + "/pgdata", want: "pgdata"},
		"both":                         {mounts: []corev1.VolumeMount{claim(usual, "pg")}, env: usual + "/pgdata/", want: "pg/pgdata"},
		"what the caller says":         {mounts: []corev1.VolumeMount{claim("/var/lib/postgresql", "")}, env: "/elsewhere", dir: "/var/lib/postgresql/18/docker", want: "18/docker"},
		"another volume in between":    {mounts: []corev1.VolumeMount{claim("/var/lib/postgresql", ""), {Name: "scratch", MountPath: usual}}, refused: "--data-directory"},
		"a name that begins the same":  {mounts: []corev1.VolumeMount{claim(usual+"base", "")}, refused: "its " + usual + " is on no claim"},
		"a variable of variables":      {mounts: []corev1.VolumeMount{claim(usual, "")}, env: "$(HOME)/data", refused: "--data-directory"},
		"a folder named after the pod": {mounts: []corev1.VolumeMount{{Name: "data", MountPath: usual, SubPathExpr: "$(POD)"}}, refused: "subPathExpr"},
	} {
		t.Run(name, func(t *testing.T) {
			object := wwwSet(nil, nil)
			db := &object.Spec.Template.Spec.Containers[1]
			db.VolumeMounts, db.Env = c.mounts, []corev1.EnvVar{{Name: "PGDATA", Value: c.env}}
			place, err := newSet(object).DataPlace(DiscoverOptions{Container: "www", DataDir: usual}, "PGDATA", c.dir)
			if c.refused != "" {
				require.ErrorContains(t, err, c.refused)
				return
			}
			require.NoError(t, err)
			require.Equal(t, DataPlace{Template: "data", Path: c.want}, place)
		})
	}
	for name, change := range map[string]func(*corev1.Container){
		"from a ConfigMap": func(c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "PGDATA", ValueFrom: &corev1.EnvVarSource{}}}
		},
		"perhaps from one": func(c *corev1.Container) { c.EnvFrom = []corev1.EnvFromSource{{}} },
	} {
		t.Run(name, func(t *testing.T) {
			object := wwwSet(nil, nil)
			db := &object.Spec.Template.Spec.Containers[1]
			db.VolumeMounts = []corev1.VolumeMount{claim(usual, "")}
			change(db)
			o := DiscoverOptions{Container: "www", DataDir: usual}
			_, err := newSet(object).DataPlace(o, "PGDATA", "")
			require.ErrorIs(t, err, ErrAmbiguous)
			require.ErrorContains(t, err, "--data-directory")
			_, err = newSet(object).DataPlace(o, "PGDATA", usual)
			require.NoError(t, err)
			_, err = newSet(object).DataPlace(o, "", "")
			require.NoError(t, err, "no variable says it")
		})
	}
}
