package statefulset

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// DataPlace is where in the claims of a set a server keeps its files.
type DataPlace struct {
	// Template of the claims.
	Template string
	// Path from the root of a claim; "." is the root itself.
	Path string
}

// DataPlace finds the files that the database's container has at dir. Without a
// dir that is what the container's variable says, or else o.DataDir.
func (s Set) DataPlace(o DiscoverOptions, variable, dir string) (DataPlace, error) {
	pod, claims := s.object.Spec.Template.Spec, templateNames(s.object)
	at := "statefulset " + s.Namespace + "/" + s.Name
	c, err := o.container(pod, claims)
	if err != nil {
		return DataPlace{}, fmt.Errorf("%s: %w", at, err)
	}
	if dir == "" {
		if dir, err = valueOf(c, variable); err != nil {
			return DataPlace{}, fmt.Errorf("%s: %w; give --data-directory, where the container has its files", at, err)
		}
	}
	if dir == "" {
		dir = o.DataDir
	}
	mount, ok := mountOf(c, dir)
	if !ok || !slices.Contains(claims, mount.Name) {
		return DataPlace{}, fmt.Errorf("%s: container %s: %w: its %s is on no claim of the set's templates; give --data-directory, where the container has its files", at, c.Name, ErrNotFound, dir)
	}
	if mount.SubPathExpr != "" {
		return DataPlace{}, fmt.Errorf("%s: container %s: %w: its claim is mounted at a subPathExpr, %s, which is not the same for all pods", at, c.Name, ErrAmbiguous, mount.SubPathExpr)
	}
	rest := strings.TrimPrefix(path.Clean(dir), path.Clean(mount.MountPath))
	return DataPlace{Template: mount.Name, Path: path.Join(mount.SubPath, path.Join(".", rest))}, nil
}

// valueOf is the value of a container's variable, empty where it has none.
// ErrAmbiguous where it is, or may be, said elsewhere than in the pod: files in
// another directory than the server's would be a server without them.
func valueOf(c corev1.Container, variable string) (string, error) {
	if variable == "" {
		return "", nil
	}
	i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == variable })
	switch {
	case i < 0 && len(c.EnvFrom) > 0:
		return "", fmt.Errorf("container %s: %w: its variable %s may come from a ConfigMap or a Secret (envFrom)", c.Name, ErrAmbiguous, variable)
	case i < 0:
		return "", nil
	case c.Env[i].ValueFrom != nil || strings.Contains(c.Env[i].Value, "$("):
		return "", fmt.Errorf("container %s: %w: the value of its variable %s stands elsewhere", c.Name, ErrAmbiguous, variable)
	}
	return c.Env[i].Value, nil
}

// mountOf is the volume that a directory of a container is on.
func mountOf(c corev1.Container, dir string) (found corev1.VolumeMount, ok bool) {
	for _, m := range c.VolumeMounts {
		above := strings.TrimSuffix(path.Clean(m.MountPath), "/") + "/"
		if strings.HasPrefix(path.Clean(dir)+"/", above) && len(m.MountPath) > len(found.MountPath) {
			found, ok = m, true
		}
	}
	return found, ok
}
