package statefulset

import (
	"path"
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
		"a claim at the very root":     {mounts: []corev1.VolumeMount{claim("/", "")}, want: usual[1:]},
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
			place, err := newSet(object).DataPlace(DiscoverOptions{Container: "www"}, DataDirectory{Said: c.dir, Variable: "PGDATA", Default: usual})
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
			o, d := DiscoverOptions{Container: "www"}, DataDirectory{Variable: "PGDATA", Default: usual}
			_, err := newSet(object).DataPlace(o, d)
			require.ErrorIs(t, err, ErrAmbiguous)
			require.ErrorContains(t, err, "--data-directory")
			d.Said = usual
			_, err = newSet(object).DataPlace(o, d)
			require.NoError(t, err)
			_, err = newSet(object).DataPlace(o, DataDirectory{Default: usual})
			require.NoError(t, err, "no variable says it")
		})
	}
}

// TestBeside: what a server has apart from its data directory is found on the same
// claim, through whatever mount, and nowhere else.
func TestBeside(t *testing.T) {
	const root = "/var/lib/postgresql"
	mount := func(name, at, sub string) corev1.VolumeMount {
		return corev1.VolumeMount{Name: name, MountPath: at, SubPath: sub}
	}
	whole := []corev1.VolumeMount{mount("data", root, "")}
	parts := []corev1.VolumeMount{mount("data", root+"/data", "pg/data"), mount("data", "/fast", "pg/fast"), mount("data", "/all", ""), mount("scratch", "/fast/scratch", "")}
	for name, c := range map[string]struct {
		mounts    []corev1.VolumeMount
		data, dir string
		want      string
		refused   string
	}{
		"beside":                       {whole, root + "/pgdata", root + "/ts1", "ts1", ""},
		"deeper":                       {whole, root + "/18/docker", root + "/18/spaces//ts1/", "18/spaces/ts1", ""},
		"a name that begins the same":  {whole, root + "/pgdata", root + "/pgdata2", "pgdata2", ""},
		"by another mount":             {parts, root + "/data", "/fast/ts1", "pg/fast/ts1", ""},
		"a mount of its own":           {parts, root + "/data", "/fast", "pg/fast", ""},
		"elsewhere":                    {whole, root + "/pgdata", "/mnt/ts1", "", "/mnt/ts1 is not on the claim of the data directory, which it has at " + root},
		"up and away":                  {whole, root + "/pgdata", root + "/../../../etc", "", "/etc is not on the claim"},
		"on another volume":            {parts, root + "/data", "/fast/scratch/ts1", "", "is not on the claim"},
		"within the data directory":    {whole, root + "/pgdata", root + "/pgdata/ts1", "", "within the data directory"},
		"the data directory itself":    {whole, root + "/pgdata", root + "/pgdata/.", "", "within the data directory"},
		"within it by another mount":   {parts, root + "/data", "/all/pg/data/ts1", "", "within the data directory"},
		"all of the claim is the data": {whole, root, root + "/ts1", "", "within the data directory"},
		"above the data directory":     {parts, root + "/data", "/all/pg", "", "holds the data directory"},
		"the claim itself":             {whole, root + "/pgdata", root, "", "holds the data directory"},
		"what is taken":                {whole, root + "/pgdata", root + "/other/ts1", "", root + "/other, where something else goes"},
		"what holds what is taken":     {parts, root + "/data", "/all/other", "", "are not apart"},
	} {
		t.Run(name, func(t *testing.T) {
			object := wwwSet(nil, nil)
			object.Spec.Template.Spec.Containers[1].VolumeMounts = c.mounts
			set, o := newSet(object), DiscoverOptions{Container: "www"}
			place, err := set.DataPlace(o, DataDirectory{Said: c.data})
			require.NoError(t, err)
			taken := ApartPlace{Was: "/was/other", Seen: root + "/other", Path: "other"}
			place.Apart = []ApartPlace{taken}
			got, err := set.Beside(o, place, "/was", c.dir)
			if c.refused != "" {
				require.ErrorContains(t, err, c.refused)
				require.Equal(t, place, got)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []ApartPlace{taken, {Was: "/was", Seen: path.Clean(c.dir), Path: c.want}}, got.Apart)
		})
	}
}
