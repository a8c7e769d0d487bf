package statefulset

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// fillContainer is the name of the init container that brings files.
	fillContainer = product + "-fill"
	// ownVolumes begins the names of its volumes in the pod of another template.
	ownVolumes = product + "-own-"
)

// fill puts an init container of our own before all others, which brings the
// files of another server into the claim. It is a worker that writes: its image,
// environment and volumes are those of the run's own Job, and it runs as the
// files' owner. What a worker has of its pod, such as the service account that
// reaches the store, the seed pod gets, but for the account's token.
func (b *builder) fill(pod *corev1.PodSpec) {
	f := b.spec.Fill
	own := workerPod(f.own, f.who, claimName(f.template, b.set.Name, b.spec.Ordinal), true).Spec
	c := own.Containers[0]
	c.Name = fillContainer
	quiet(&c)
	who := own.SecurityContext
	c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup, c.SecurityContext.RunAsNonRoot = who.RunAsUser, who.RunAsGroup, who.RunAsNonRoot
	c.SecurityContext.SeccompProfile = who.SeccompProfile
	c.VolumeMounts = slices.Clone(c.VolumeMounts)
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		if m.Name == workerVolume {
			m.Name = f.template
		} else {
			m.Name = ownVolumes + m.Name
		}
	}
	for _, v := range own.Volumes {
		if v.Name != workerVolume {
			v.Name = ownVolumes + v.Name
			pod.Volumes = append(pod.Volumes, v)
		}
	}
	pod.InitContainers = append([]corev1.Container{c}, pod.InitContainers...)
	b.besideUs(pod, f)
	for _, secret := range own.ImagePullSecrets {
		if !slices.Contains(pod.ImagePullSecrets, secret) {
			pod.ImagePullSecrets = append(pod.ImagePullSecrets, secret)
		}
	}
	if len(who.SupplementalGroups) > 0 { // the repository's, where that is on a claim
		if pod.SecurityContext == nil {
			pod.SecurityContext = &corev1.PodSecurityContext{}
		}
		pod.SecurityContext.SupplementalGroups = append(pod.SecurityContext.SupplementalGroups, who.SupplementalGroups...)
	}
	if name := own.ServiceAccountName; name != "" && name != pod.ServiceAccountName {
		b.noteIf(true, "the pod has the service account %s, of our own job, which the store may know, and no token of it", name)
		no := false
		pod.ServiceAccountName, pod.DeprecatedServiceAccount, pod.AutomountServiceAccountToken = name, "", &no
	}
}

// waitPrepared waits until the init containers of a seed pod with a Fill have
// ended well. To start they have as long as any seed pod; how long they take is
// up to the files.
func (s *Seed) waitPrepared(ctx context.Context) error {
	err := s.waitStart(ctx, func(pod *corev1.Pod, waited time.Duration) (bool, error) {
		if err := s.startFailure(ctx, pod, waited); err != nil {
			return false, err
		}
		status, _ := initStatus(pod, fillContainer)
		return status.State.Running != nil || status.State.Terminated != nil, nil
	})
	if err != nil {
		return err
	}
	for {
		pod, err := s.own(ctx)
		if err != nil {
			return err
		}
		if err := s.startFailure(ctx, pod, 0); err != nil {
			return err
		}
		if status, ok := initStatus(pod, adoptContainer); ok && status.State.Terminated != nil {
			return nil // and with 0, or that would have been a failure
		}
		if err := s.client.sleep(ctx, s.client.poll); err != nil {
			return fmt.Errorf("%s: %w", s.client.ref("seed pod", s.pod.Name), err)
		}
	}
}

func initStatus(pod *corev1.Pod, container string) (corev1.ContainerStatus, bool) {
	i := slices.IndexFunc(pod.Status.InitContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == container })
	if i < 0 {
		return corev1.ContainerStatus{}, false
	}
	return pod.Status.InitContainerStatuses[i], true
}
