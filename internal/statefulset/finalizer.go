package statefulset

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// holdAndDelete deletes a claim in such a way that it stays, Terminating, until
// dropClaimFinalizer.
func (c *Client) holdAndDelete(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	for claim.DeletionTimestamp == nil && !hasFinalizer(claim) {
		err := c.patchClaim(ctx, claim.Name, finalizers(claim, append(slices.Clone(claim.Finalizers), Finalizer)))
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
		again, err := c.getClaim(ctx, claim.Name)
		if err != nil || again == nil {
			return err
		}
		if again.UID != claim.UID {
			return fmt.Errorf("%s was replaced by another one while it was being deleted; run the restore again", c.ref("claim", claim.Name))
		}
		claim = again
	}
	if claim.DeletionTimestamp != nil {
		return nil
	}
	err := c.kube.CoreV1().PersistentVolumeClaims(c.namespace).Delete(ctx, claim.Name,
		metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(claim.UID))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return explain(err, "delete "+c.ref("claim", claim.Name))
}

// dropClaimFinalizer takes our finalizer off exactly this claim, by value.
func (c *Client) dropClaimFinalizer(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	uid := claim.UID
	for {
		again, err := c.getClaim(ctx, claim.Name)
		if err != nil || again == nil || again.UID != uid || !hasFinalizer(again) {
			return err
		}
		err = c.patchClaim(ctx, claim.Name, finalizers(again, without(again.Finalizers)))
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
}

// dropPodFinalizer takes our finalizer off exactly this pod, by value.
func (c *Client) dropPodFinalizer(ctx context.Context, pod *corev1.Pod) error {
	uid := pod.UID
	for {
		again, err := c.getPod(ctx, pod.Name)
		if err != nil || again == nil || again.UID != uid || !hasFinalizer(again) {
			return err
		}
		err = c.patchPod(ctx, pod.Name, finalizers(again, without(again.Finalizers)))
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
}

// finalizers is a merge patch that replaces an object's finalizers, provided
// that it has not changed meanwhile.
func finalizers(o metav1.Object, list []string) map[string]any {
	return map[string]any{"metadata": map[string]any{
		"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion(), "finalizers": list,
	}}
}

func without(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(f string) bool { return f == Finalizer })
}

func (c *Client) patchClaim(ctx context.Context, name string, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("patch %s: %w", c.ref("claim", name), err)
	}
	_, err = c.kube.CoreV1().PersistentVolumeClaims(c.namespace).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: fieldManager})
	return explain(err, "patch "+c.ref("claim", name))
}

func (c *Client) patchPod(ctx context.Context, name string, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("patch %s: %w", c.ref("pod", name), err)
	}
	_, err = c.kube.CoreV1().Pods(c.namespace).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: fieldManager})
	return explain(err, "patch "+c.ref("pod", name))
}
