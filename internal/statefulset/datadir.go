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
	for _, e := range c.Env {
		if dir == "" && e.Name == variable {
			dir = e.Value // may be empty, where it comes from elsewhere
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
