package statefulset

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// anchor is the node to which our own claims, such as one with the repository, tie
// every pod that mounts them beside ours: the one that we run on, where one of them
// can be mounted on a single node only. Empty where they can be mounted anywhere, or
// there are none. The scheduler does not know of it, and the pod would wait for the
// volume for ever.
func (c *Client) anchor(ctx context.Context, run Run, own corev1.PodSpec) (string, error) {
	tied := ""
	for _, v := range own.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		claim, err := c.getClaim(ctx, v.PersistentVolumeClaim.ClaimName)
		if err != nil {
			return "", err
		}
		if claim == nil { // then we have it mounted, and somebody deletes it
			continue
		}
		modes := claim.Spec.AccessModes
		if slices.Contains(modes, corev1.ReadWriteOncePod) {
			return "", fmt.Errorf("%w: our own %s is ReadWriteOncePod, and a pod beside ours has to mount it: take ReadWriteMany, or ReadWriteOnce, or a repository in a bucket",
				ErrExclusive, c.ref("claim", claim.Name))
		}
		if !slices.Contains(modes, corev1.ReadWriteMany) && !slices.Contains(modes, corev1.ReadOnlyMany) {
			tied = claim.Name
		}
	}
	if tied == "" || run.PodName == "" {
		return "", nil
	}
	pod, err := c.kube.CoreV1().Pods(c.namespace).Get(ctx, run.PodName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", explain(err, "read our own "+c.ref("pod", run.PodName)+", to run beside it where claim "+tied+" is mounted")
	}
	return pod.Spec.NodeName, nil
}

// besideUs has a seed pod run where the run's own claims are, if these have a place,
// whatever else the set demands of nodes.
func (b *builder) besideUs(pod *corev1.PodSpec, f *Filler) {
	if f.anchor == "" {
		return
	}
	b.noteIf(true, "the pod runs on node %s, beside ours, where a claim of our own is mounted", f.anchor)
	name := corev1.NodeSelectorRequirement{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{f.anchor}}
	if pod.Affinity == nil {
		pod.Affinity = &corev1.Affinity{}
	}
	if pod.Affinity.NodeAffinity == nil {
		pod.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	n := pod.Affinity.NodeAffinity
	if n.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		n.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}}
	}
	terms := n.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for i := range terms { // one of them is enough
		terms[i].MatchFields = append(terms[i].MatchFields, name)
	}
}
