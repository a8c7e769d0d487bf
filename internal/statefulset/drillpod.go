package statefulset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// drillBuilder makes the pod and the claims of a drill out of the set's templates.
type drillBuilder struct {
	builder
	spec      DrillSpec
	namespace string
}

// name of the pod. No ordinal's pod and no ordinal's claim is ever called so:
// their names end in digits alone.
func (b *drillBuilder) name() string {
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, b.run.ID)
	return b.set.Name + "-drill-r" + id[:min(8, len(id))]
}

func (b *drillBuilder) claimName(template string) string { return template + "-" + b.name() }

// labels are those of drills, and the run's.
func (b *drillBuilder) labels() map[string]string {
	all := drillLabels(b.set.Namespace, b.set.Name)
	all[LabelOrdinal], all[LabelRun] = strconv.Itoa(b.spec.Ordinal), b.run.ID
	return all
}

// owner is the drill's Job, where it is in the same namespace.
func (b *drillBuilder) owner() []metav1.OwnerReference {
	if b.namespace != b.set.Namespace {
		return nil
	}
	return b.run.owner()
}

// pod is the seed pod of the ordinal, less what a seed is for: it holds no name,
// and it takes nothing away from anybody. It has no token of the API server, evicts
// no pod, mounts no claim that is not its own, and may run beside the set's pods.
// Its hostname is the ordinal's, which scripts make server IDs of; no name service
// knows it by that.
func (b *drillBuilder) pod() (*corev1.Pod, error) {
	pod, err := b.builder.pod()
	if err != nil {
		return nil, err
	}
	pod.Name, pod.Namespace = b.name(), b.namespace
	pod.Labels = b.labels()
	pod.Finalizers, pod.OwnerReferences = nil, b.owner()
	delete(pod.Annotations, annotationClaims)
	no := false
	s := &pod.Spec
	s.AutomountServiceAccountToken = &no
	if b.namespace != b.set.Namespace {
		s.ServiceAccountName, s.DeprecatedServiceAccount = "", ""
	}
	b.noteIf(s.PriorityClassName != "", "priority class %s is left out: a drill evicts nobody", s.PriorityClassName)
	s.PriorityClassName, s.Priority, s.PreemptionPolicy = "", nil, nil
	s.TopologySpreadConstraints = nil
	if s.Affinity != nil {
		s.Affinity.PodAffinity, s.Affinity.PodAntiAffinity = nil, nil
	}
	b.ownVolumes(s)
	return pod, b.checkSelector(pod)
}

// ownVolumes has the pod mount the drill's claims in place of the ordinal's, and
// an empty folder in place of a claim that the set's pods share.
func (b *drillBuilder) ownVolumes(s *corev1.PodSpec) {
	templates := templateNames(b.set)
	for i := range s.Volumes {
		v := &s.Volumes[i]
		switch {
		case v.PersistentVolumeClaim == nil:
		case slices.Contains(templates, v.Name):
			v.PersistentVolumeClaim.ClaimName = b.claimName(v.Name)
		default:
			b.noteIf(true, "volume %s is claim %s, which others use: it is an empty folder here", v.Name, v.PersistentVolumeClaim.ClaimName)
			v.VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		}
	}
}

// claims are made of the set's templates.
func (b *drillBuilder) claims() ([]*corev1.PersistentVolumeClaim, error) {
	claims := make([]*corev1.PersistentVolumeClaim, 0, len(b.set.Spec.VolumeClaimTemplates))
	for i := range b.set.Spec.VolumeClaimTemplates {
		template := &b.set.Spec.VolumeClaimTemplates[i]
		claim := &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{
				Name: b.claimName(template.Name), Namespace: b.namespace, Labels: b.labels(), Annotations: template.Annotations, OwnerReferences: b.owner(),
			},
			Spec: *template.Spec.DeepCopy(),
		}
		claim.Spec.VolumeName, claim.Spec.Selector = "", nil
		if b.spec.StorageClass != "" {
			claim.Spec.StorageClassName = &b.spec.StorageClass
		}
		if size := b.spec.Sizes[template.Name]; size != "" {
			recorded, err := resource.ParseQuantity(size)
			if err != nil {
				return nil, fmt.Errorf("claim of template %s: the backup recorded the size %q: %w", template.Name, size, err)
			}
			if has := claim.Spec.Resources.Requests[corev1.ResourceStorage]; recorded.Cmp(has) > 0 {
				claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: recorded}
			}
		}
		claims = append(claims, claim)
	}
	return claims, nil
}
