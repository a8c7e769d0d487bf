package statefulset

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// labelPath is a downward API reference to one label of the pod.
var labelPath = regexp.MustCompile(`^metadata\.labels\['([^']+)'\]$`)

// resolveLabels replaces references to labels, which the seed pod does not
// bear, by what they would say. Without it a pod-index that becomes a server
// ID is silently empty. In the environment a literal takes its place; in files
// an annotation of the seed does.
func (b *builder) resolveLabels(pod *corev1.Pod, labels map[string]string) {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			resolveEnv(list[i].Env, labels)
		}
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.DownwardAPI != nil {
			b.resolveFiles(pod, v.DownwardAPI.Items, labels)
		}
		if v.Projected == nil {
			continue
		}
		for j := range v.Projected.Sources {
			if d := v.Projected.Sources[j].DownwardAPI; d != nil {
				b.resolveFiles(pod, d.Items, labels)
			}
		}
	}
}

func resolveEnv(env []corev1.EnvVar, labels map[string]string) {
	for i := range env {
		if env[i].ValueFrom == nil || env[i].ValueFrom.FieldRef == nil {
			continue
		}
		if m := labelPath.FindStringSubmatch(env[i].ValueFrom.FieldRef.FieldPath); m != nil {
			env[i].Value, env[i].ValueFrom = labels[m[1]], nil
		}
	}
}

func (b *builder) resolveFiles(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, labels map[string]string) {
	for i := range items {
		ref := items[i].FieldRef
		if ref == nil {
			continue
		}
		b.noteIf(ref.FieldPath == "metadata.labels", "file %s holds the seed's own labels, not the member's", items[i].Path)
		m := labelPath.FindStringSubmatch(ref.FieldPath)
		if m == nil {
			continue
		}
		key := annotationLabelPrefix + strings.ReplaceAll(m[1], "/", "_")
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[key] = labels[m[1]]
		ref.FieldPath = "metadata.annotations['" + key + "']"
	}
}
