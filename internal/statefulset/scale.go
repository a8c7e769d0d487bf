package statefulset

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ScaleTo raises the set to replicas through the scale subresource. It never
// lowers it: a set that is at or above replicas is left alone.
func (c *Client) ScaleTo(ctx context.Context, set string, replicas int) error {
	sets := c.kube.AppsV1().StatefulSets(c.namespace)
	doing := fmt.Sprintf("scale %s to %d", c.ref("statefulset", set), replicas)
	for {
		scale, err := sets.GetScale(ctx, set, metav1.GetOptions{})
		if err != nil {
			return explain(err, doing)
		}
		if int(scale.Spec.Replicas) >= replicas {
			return nil
		}
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"resourceVersion": scale.ResourceVersion},
			"spec":     map[string]any{"replicas": replicas},
		})
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		_, err = sets.Patch(ctx, set, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager}, "scale")
		if apierrors.IsConflict(err) {
			continue
		}
		return explain(err, doing)
	}
}

// WaitReady waits until the set's own pod of the ordinal is Ready. ErrTimeout
// says what it was waiting for.
func (c *Client) WaitReady(ctx context.Context, set Set, ordinal int, timeout time.Duration) error {
	name, why := podName(set.Name, ordinal), "does not exist yet"
	err := c.until(ctx, timeout, func(ctx context.Context) (bool, error) {
		pod, err := c.kube.CoreV1().Pods(c.namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			why = "does not exist yet"
			return false, nil
		}
		if err != nil {
			return false, explain(err, "read "+c.ref("pod", name))
		}
		why = withReason("is "+string(pod.Status.Phase)+" and not Ready", podReason(pod))
		return controlledBy(pod, set.UID) && pod.DeletionTimestamp == nil && conditionTrue(pod, corev1.PodReady), nil
	})
	return describeTimeout(err, timeout, c.ref("pod", name)+" "+why)
}

// controlledBy reports whether a pod is the set's own.
func controlledBy(pod *corev1.Pod, uid string) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && string(owner.UID) == uid
}

// enqueue makes the set's controller look at it now. A pod that it does not
// own tells it nothing when it goes, and its own backoff reaches a thousand
// seconds.
func (c *Client) enqueue(ctx context.Context, set string) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, AnnotationReleased, c.clock.Now().UTC().Format(time.RFC3339Nano))
	_, err := c.kube.AppsV1().StatefulSets(c.namespace).Patch(ctx, set, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: fieldManager})
	return explain(err, "annotate "+c.ref("statefulset", set))
}
