package statefulset

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// takes tells whether pods of the template can run on the node, as far as the
// node says: readiness, labels and taints. What else runs there is the
// scheduler's.
func takes(node *corev1.Node, pod corev1.PodSpec) bool {
	ready := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return ready && !node.Spec.Unschedulable && labels.SelectorFromSet(pod.NodeSelector).Matches(labels.Set(node.Labels)) &&
		wants(pod, labels.Set(node.Labels)) && !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return !tolerates(pod, t) })
}

// tolerates follows
// https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
func tolerates(pod corev1.PodSpec, taint corev1.Taint) bool {
	if taint.Effect == corev1.TaintEffectPreferNoSchedule {
		return true
	}
	return slices.ContainsFunc(pod.Tolerations, func(t corev1.Toleration) bool {
		whatever := t.Operator == corev1.TolerationOpExists
		return (t.Effect == "" || t.Effect == taint.Effect) && (t.Key == taint.Key || t.Key == "" && whatever) && (t.Value == taint.Value || whatever)
	})
}

// wants tells whether the labels are among those that the pod's required node
// affinity names. Fields of nodes, of which there is only the name, are not
// looked at.
func wants(pod corev1.PodSpec, node labels.Set) bool {
	if pod.Affinity == nil || pod.Affinity.NodeAffinity == nil || pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	terms := pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return slices.ContainsFunc(terms, func(term corev1.NodeSelectorTerm) bool {
		return !slices.ContainsFunc(term.MatchExpressions, func(e corev1.NodeSelectorRequirement) bool {
			r, err := labels.NewRequirement(e.Key, operators[e.Operator], e.Values)
			return err != nil || !r.Matches(node)
		})
	})
}

var operators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
	corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
}
