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
	Template string `json:"template"`
	// Path from the root of a claim; "." is the root itself.
	Path string `json:"path"`
	// Apart are directories of the server's that lie beside it in the same claim.
	Apart []ApartPlace `json:"apart,omitempty"`
}

// ApartPlace is a directory of a server's that lies apart from its data directory.
type ApartPlace struct {
	// Was is where the server that was backed up had it, Seen where the container
	// will have it.
	Was  string `json:"was"`
	Seen string `json:"seen"`
	// Path from the root of the claim.
	Path string `json:"path"`
}

// DataDirectory says where a database's container has its files: at Said, or else
// where its Variable says, or else at Default.
type DataDirectory struct{ Said, Variable, Default string }

// DataPlace finds the files of the database's container.
func (s Set) DataPlace(o DiscoverOptions, d DataDirectory) (DataPlace, error) {
	claims := templateNames(s.object)
	c, err := s.database(o)
	if err != nil {
		return DataPlace{}, err
	}
	dir := d.Said
	if dir == "" {
		if dir, err = valueOf(c, d.Variable); err != nil {
			return DataPlace{}, fmt.Errorf("%s: %w; give --data-directory, where the container has its files", s.at(), err)
		}
	}
	if dir == "" {
		dir = d.Default
	}
	mount, ok := mountOf(c, dir)
	if !ok || !slices.Contains(claims, mount.Name) {
		return DataPlace{}, fmt.Errorf("%s: container %s: %w: its %s is on no claim of the set's templates; give --data-directory, where the container has its files", s.at(), c.Name, ErrNotFound, dir)
	}
	at, err := inClaim(mount, dir)
	if err != nil {
		return DataPlace{}, fmt.Errorf("%s: container %s: %w", s.at(), c.Name, err)
	}
	return DataPlace{Template: mount.Name, Path: at}, nil
}

// Beside finds what the database's container has at dir, in the claim of its data
// directory and apart from that, and from all else that is known to lie there. was
// is where the server that was backed up had it.
func (s Set) Beside(o DiscoverOptions, data DataPlace, was, dir string) (DataPlace, error) {
	c, err := s.database(o)
	if err != nil {
		return data, err
	}
	dir = path.Clean(dir)
	mount, ok := mountOf(c, dir)
	if !ok || mount.Name != data.Template {
		return data, fmt.Errorf("container %s: %w: %s is not on the claim of the data directory, which it has at %s", c.Name, ErrNotFound, dir, mountPaths(c, data.Template))
	}
	at, err := inClaim(mount, dir)
	if err != nil {
		return data, fmt.Errorf("container %s: %w", c.Name, err)
	}
	switch {
	case under(at, data.Path):
		return data, fmt.Errorf("container %s: %w: %s lies within the data directory", c.Name, ErrAmbiguous, dir)
	case under(data.Path, at):
		return data, fmt.Errorf("container %s: %w: %s holds the data directory", c.Name, ErrAmbiguous, dir)
	}
	for _, other := range data.Apart {
		if under(at, other.Path) || under(other.Path, at) {
			return data, fmt.Errorf("container %s: %w: %s and %s, where something else goes, are not apart", c.Name, ErrAmbiguous, dir, other.Seen)
		}
	}
	data.Apart = append(slices.Clone(data.Apart), ApartPlace{Was: was, Seen: dir, Path: at})
	return data, nil
}

// at names the set in errors.
func (s Set) at() string { return "statefulset " + s.Namespace + "/" + s.Name }

// database is the database's container.
func (s Set) database(o DiscoverOptions) (corev1.Container, error) {
	c, err := o.container(s.object.Spec.Template.Spec, templateNames(s.object))
	if err != nil {
		return c, fmt.Errorf("%s: %w", s.at(), err)
	}
	return c, nil
}

// inClaim is the path of a directory from the root of the claim that it is on.
func inClaim(mount corev1.VolumeMount, dir string) (string, error) {
	if mount.SubPathExpr != "" {
		return "", fmt.Errorf("%w: its claim is mounted at a subPathExpr, %s, which is not the same for all pods", ErrAmbiguous, mount.SubPathExpr)
	}
	rest := strings.TrimPrefix(path.Clean(dir), path.Clean(mount.MountPath))
	return path.Join(mount.SubPath, path.Join(".", rest)), nil
}

// under says that a path in a claim is another one, or lies within it.
func under(dir, above string) bool {
	return above == "." || dir == above || strings.HasPrefix(dir, above+"/")
}

// mountPaths are where a container has a volume, for people.
func mountPaths(c corev1.Container, volume string) string {
	var at []string
	for _, m := range c.VolumeMounts {
		if m.Name == volume {
			at = append(at, m.MountPath)
		}
	}
	return strings.Join(at, ", ")
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
