package statefulset

import (
	"context"
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Beside makes sure that a container of a pod sees the claims of its database as
// the database does: each mounted at the same path, and the same part of it.
func (c *Client) Beside(ctx context.Context, pod, database, other string) error {
	p, err := c.getPod(ctx, pod)
	if err != nil {
		return err
	}
	if p == nil {
		return fmt.Errorf("%s: %w", c.ref("pod", pod), ErrNotFound)
	}
	ours, theirs := containerOf(&p.Spec, database), containerOf(&p.Spec, other)
	for name, found := range map[string]*corev1.Container{database: ours, other: theirs} {
		if found == nil {
			return fmt.Errorf("%s: container %q: %w; it has %s", c.ref("pod", pod), name, ErrNotFound, containerNames(p.Spec.Containers))
		}
	}
	claims := podClaims(p)
	for _, m := range ours.VolumeMounts {
		same := func(o corev1.VolumeMount) bool {
			return o.Name == m.Name && path.Clean(o.MountPath) == path.Clean(m.MountPath) && o.SubPath == m.SubPath && o.SubPathExpr == m.SubPathExpr
		}
		if slices.Contains(claims, m.Name) && !slices.ContainsFunc(theirs.VolumeMounts, same) {
			return fmt.Errorf("%s: container %s does not mount %s at %s, as the database's container %s does: %w there", c.ref("pod", pod), other, path.Join(m.Name, m.SubPath), m.MountPath, database, ErrNotFound)
		}
	}
	return nil
}

// containerOf is a container of a pod, or one of its sidecars, by name; nil where there is none.
func containerOf(pod *corev1.PodSpec, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Containers, pod.InitContainers} {
		if i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

// podClaims names the volumes of a pod that are claims.
func podClaims(pod *corev1.Pod) (names []string) {
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			names = append(names, v.Name)
		}
	}
	return names
}
