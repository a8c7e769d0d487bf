package statefulset

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// rootCA is a ConfigMap that every cluster puts into every namespace.
const rootCA = "kube-root-ca.crt"

// relations are what a set has to do with other objects of its namespace.
type relations struct {
	set *appsv1.StatefulSet
	// configMaps and secrets that the pod template names, and whether a pod
	// starts without them.
	configMaps, secrets map[string]bool
	claims              map[string]bool
	account             string
}

func relationsOf(set *appsv1.StatefulSet) *relations {
	spec := set.Spec.Template.Spec
	r := &relations{set: set, configMaps: map[string]bool{}, secrets: map[string]bool{}, claims: map[string]bool{}}
	if spec.ServiceAccountName != "default" {
		r.account = spec.ServiceAccountName
	}
	r.addPullSecrets(spec.ImagePullSecrets)
	for _, v := range spec.Volumes {
		r.addVolume(v)
	}
	for _, c := range spec.InitContainers {
		r.addEnv(c.EnvFrom, c.Env)
	}
	for _, c := range spec.Containers {
		r.addEnv(c.EnvFrom, c.Env)
	}
	delete(r.configMaps, rootCA)
	for _, name := range sharedClaims(spec) {
		r.claims[name] = true
	}
	for _, t := range set.Spec.VolumeClaimTemplates {
		for _, ordinal := range ordinalsOf(set) {
			r.claims[claimName(t.Name, set.Name, ordinal)] = true
		}
	}
	return r
}

// mostOrdinals bounds what is believed of a set that somebody may have made up.
const mostOrdinals = 10_000

func ordinalsOf(set *appsv1.StatefulSet) []int {
	s := newSet(set)
	var all []int
	for i := range min(max(s.Replicas, 0), mostOrdinals) {
		all = append(all, s.Start+i)
	}
	return all
}

// need notes a name; one that is needed anywhere is needed.
func need(names map[string]bool, name string, optional *bool) {
	if name == "" {
		return
	}
	may, known := names[name]
	names[name] = (!known || may) && optional != nil && *optional
}

func (r *relations) addPullSecrets(refs []corev1.LocalObjectReference) {
	optional := true // an image may be there, or be anybody's
	for _, ref := range refs {
		need(r.secrets, ref.Name, &optional)
	}
}

func (r *relations) addVolume(v corev1.Volume) {
	if v.ConfigMap != nil {
		need(r.configMaps, v.ConfigMap.Name, v.ConfigMap.Optional)
	}
	if v.Secret != nil {
		need(r.secrets, v.Secret.SecretName, v.Secret.Optional)
	}
	if v.Projected == nil {
		return
	}
	for _, s := range v.Projected.Sources {
		if s.ConfigMap != nil {
			need(r.configMaps, s.ConfigMap.Name, s.ConfigMap.Optional)
		}
		if s.Secret != nil {
			need(r.secrets, s.Secret.Name, s.Secret.Optional)
		}
	}
}

func (r *relations) addEnv(from []corev1.EnvFromSource, env []corev1.EnvVar) {
	for _, f := range from {
		if f.ConfigMapRef != nil {
			need(r.configMaps, f.ConfigMapRef.Name, f.ConfigMapRef.Optional)
		}
		if f.SecretRef != nil {
			need(r.secrets, f.SecretRef.Name, f.SecretRef.Optional)
		}
	}
	for _, e := range env {
		if e.ValueFrom == nil {
			continue
		}
		if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
			need(r.configMaps, ref.Name, ref.Optional)
		}
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			need(r.secrets, ref.Name, ref.Optional)
		}
	}
}

// has says whether the object is the set, named by it, or selects its pods.
func (r *relations) has(o kubeObject) bool {
	known := false
	switch o := o.(type) {
	case *appsv1.StatefulSet:
		known = o == r.set
	case *corev1.ConfigMap:
		_, known = r.configMaps[o.Name]
	case *corev1.Secret:
		_, known = r.secrets[o.Name]
		known = known && travels(o)
	case *corev1.ServiceAccount:
		known = o.Name == r.account
	case *corev1.PersistentVolumeClaim:
		known = r.claims[o.Name]
	case *corev1.Service:
		known = o.Name == r.set.Spec.ServiceName || len(o.Spec.Selector) > 0 && r.selected(labels.SelectorFromSet(o.Spec.Selector))
	case *policyv1.PodDisruptionBudget:
		selector, err := metav1.LabelSelectorAsSelector(o.Spec.Selector)
		known = err == nil && !selector.Empty() && r.selected(selector)
	}
	return known
}

// travels is false for what a cluster makes for itself.
func travels(s *corev1.Secret) bool {
	return s.Type != corev1.SecretTypeServiceAccountToken && s.Type != corev1.SecretTypeBootstrapToken
}

// selected says whether a selector finds a pod of the set. Some Services are
// for one pod each, by the label that the controller gives it.
func (r *relations) selected(selector labels.Selector) bool {
	pod := labels.Set{}
	maps.Copy(pod, r.set.Spec.Template.Labels)
	if selector.Matches(pod) {
		return true
	}
	if _, one := selector.RequiresExactMatch(appsv1.StatefulSetPodNameLabel); !one {
		return false
	}
	for _, ordinal := range ordinalsOf(r.set) {
		pod[appsv1.StatefulSetPodNameLabel] = podName(r.set.Name, ordinal)
		if selector.Matches(pod) {
			return true
		}
	}
	return false
}
