package statefulset

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// endpoint is the container that runs the database, and its port.
type endpoint struct {
	container string
	port      int
}

// DiscoverOptions tell which container of the pods is the database, where the
// pod template leaves that open.
type DiscoverOptions struct {
	// Container by name. Default: the one that mounts a claim at DataDir, or
	// that mounts a claim at all, or that exposes the port.
	Container string
	// Port decides. Otherwise it is the container's port called PortName, or
	// the one with the number DefaultPort, or its only one, or DefaultPort.
	Port        int
	PortName    string
	DefaultPort int
	// DataDir is where the database keeps its files, for example /var/lib/mysql.
	DataDir string
	// NoServer: nobody is going to talk to the pods, so that neither container
	// nor port is looked for.
	NoServer bool
}

// find picks the database's container and port out of a pod template.
// claims are the names of the volumes that are claims of the member.
func (o DiscoverOptions) find(pod corev1.PodSpec, claims []string) (endpoint, error) {
	if o.NoServer {
		return endpoint{}, nil
	}
	c, err := o.container(pod, claims)
	if err != nil {
		return endpoint{}, err
	}
	port, err := o.port(c)
	return endpoint{container: c.Name, port: port}, err
}

func (o DiscoverOptions) container(pod corev1.PodSpec, claims []string) (corev1.Container, error) {
	all := pod.Containers
	if o.Container != "" {
		i := slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == o.Container })
		if i < 0 {
			return corev1.Container{}, fmt.Errorf("container %q: %w; the pods have %s", o.Container, ErrNotFound, containerNames(all))
		}
		return all[i], nil
	}
	narrow := []func(corev1.Container) bool{
		func(c corev1.Container) bool { return mountsAny(c, claims) },
		func(c corev1.Container) bool { return o.DataDir != "" && holds(c, claims, o.DataDir) },
		func(c corev1.Container) bool { return o.exposes(c) },
	}
	left := slices.Clone(all)
	for _, matches := range narrow {
		if len(left) == 1 {
			break
		}
		fewer := slices.DeleteFunc(slices.Clone(left), func(c corev1.Container) bool { return !matches(c) })
		if len(fewer) > 0 {
			left = fewer
		}
	}
	if len(left) != 1 {
		return corev1.Container{}, fmt.Errorf("%w: several containers could be the database (%s); name one with --container", ErrAmbiguous, containerNames(left))
	}
	return left[0], nil
}

// exposes reports whether a container declares the port that is looked for.
func (o DiscoverOptions) exposes(c corev1.Container) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
		n := int(p.ContainerPort)
		return n != 0 && (n == o.Port || n == o.DefaultPort) || o.PortName != "" && p.Name == o.PortName
	})
}

func (o DiscoverOptions) port(c corev1.Container) (int, error) {
	if o.Port != 0 {
		return o.Port, nil
	}
	tcp := slices.DeleteFunc(slices.Clone(c.Ports), func(p corev1.ContainerPort) bool {
		return p.Protocol != "" && p.Protocol != corev1.ProtocolTCP
	})
	for _, p := range tcp {
		if o.PortName != "" && p.Name == o.PortName {
			return int(p.ContainerPort), nil
		}
	}
	for _, p := range tcp {
		if int(p.ContainerPort) == o.DefaultPort {
			return o.DefaultPort, nil
		}
	}
	switch {
	case len(tcp) == 1:
		return int(tcp[0].ContainerPort), nil
	case o.DefaultPort != 0:
		return o.DefaultPort, nil
	default:
		return 0, fmt.Errorf("%w: container %s declares %d ports; name one with --source-port or --target-port", ErrAmbiguous, c.Name, len(tcp))
	}
}

// holds reports whether the container keeps dir on one of the claims.
func holds(c corev1.Container, claims []string, dir string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
		under := strings.HasPrefix(path.Clean(dir)+"/", path.Clean(m.MountPath)+"/")
		return under && slices.Contains(claims, m.Name)
	})
}

// mountsAny reports whether a container mounts, or maps as a block device, one
// of the named volumes.
func mountsAny(c corev1.Container, volumes []string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return slices.Contains(volumes, m.Name) }) ||
		slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return slices.Contains(volumes, d.Name) })
}

// mounted is the subset of volumes that a container uses.
func mounted(c corev1.Container, volumes []string) []string {
	return slices.DeleteFunc(slices.Clone(volumes), func(v string) bool { return !mountsAny(c, []string{v}) })
}

func containerNames(cs []corev1.Container) string {
	names := make([]string, len(cs))
	for i, c := range cs {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}
