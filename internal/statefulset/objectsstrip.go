package statefulset

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// clusterAnnotations are the beginnings of those that say what became of an
// object in its cluster, and of ours. The last applied configuration repeats
// the object, of a Secret in plain text.
var clusterAnnotations = []string{
	"kubectl.kubernetes.io/last-applied-configuration", "pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/", "keepset/",
}

// strip takes away what belongs to the cluster and the namespace that the object
// comes from: what is left can be created in any other.
func strip(o kubeObject) {
	annotations := map[string]string{}
	for k, v := range o.GetAnnotations() {
		if !ofCluster(k) {
			annotations[k] = v
		}
	}
	meta := metav1.ObjectMeta{Name: o.GetName(), Labels: o.GetLabels(), Annotations: annotations}
	if len(annotations) == 0 {
		meta.Annotations = nil
	}
	switch o := o.(type) {
	case *appsv1.StatefulSet:
		o.ObjectMeta, o.TypeMeta, o.Status = meta, metav1.TypeMeta{}, appsv1.StatefulSetStatus{}
		for i := range o.Spec.VolumeClaimTemplates {
			t := &o.Spec.VolumeClaimTemplates[i]
			t.TypeMeta, t.Status, t.CreationTimestamp = metav1.TypeMeta{}, corev1.PersistentVolumeClaimStatus{}, metav1.Time{}
		}
	case *corev1.Service:
		o.ObjectMeta, o.TypeMeta, o.Status = meta, metav1.TypeMeta{}, corev1.ServiceStatus{}
		stripService(&o.Spec)
	case *corev1.ConfigMap:
		o.ObjectMeta, o.TypeMeta = meta, metav1.TypeMeta{}
	case *corev1.Secret:
		o.ObjectMeta, o.TypeMeta, o.StringData = meta, metav1.TypeMeta{}, nil
	case *corev1.ServiceAccount:
		o.ObjectMeta, o.TypeMeta, o.Secrets = meta, metav1.TypeMeta{}, nil // tokens, which the cluster makes
	case *policyv1.PodDisruptionBudget:
		o.ObjectMeta, o.TypeMeta, o.Status = meta, metav1.TypeMeta{}, policyv1.PodDisruptionBudgetStatus{}
	case *corev1.PersistentVolumeClaim:
		o.ObjectMeta, o.TypeMeta, o.Status = meta, metav1.TypeMeta{}, corev1.PersistentVolumeClaimStatus{}
		o.Spec.VolumeName, o.Spec.DataSource, o.Spec.DataSourceRef = "", nil, nil
	}
}

func ofCluster(annotation string) bool {
	for _, prefix := range clusterAnnotations {
		if strings.HasPrefix(annotation, prefix) {
			return true
		}
	}
	return false
}

// stripService takes away the addresses and ports that a cluster handed out. A
// headless Service stays one.
func stripService(spec *corev1.ServiceSpec) {
	if spec.ClusterIP != corev1.ClusterIPNone {
		spec.ClusterIP = ""
	}
	spec.ClusterIPs, spec.IPFamilies, spec.HealthCheckNodePort = nil, nil, 0
	for i := range spec.Ports {
		spec.Ports[i].NodePort = 0
	}
}
