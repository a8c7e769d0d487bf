package ebs

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// waitBound waits until the claim is bound to exactly this PersistentVolume, or to the other one that this restore has
// made for it, and returns it.
func (p *provisioning) waitBound(ctx context.Context, pv *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	deadline := p.clock.Now().Add(p.patience.Call)
	err := p.until(ctx, func(ctx context.Context) (bool, error) {
		claim, err := p.claim(ctx)
		switch {
		case err != nil:
			return false, err
		case claim == nil:
			return false, fmt.Errorf("it was deleted before it was bound: %w", snapshot.ErrNotFound)
		case claim.Spec.VolumeName != "" && claim.Spec.VolumeName != pv.Name:
			other, err := p.prepared(ctx, claim)
			if err != nil {
				return false, err
			}
			if other != nil && other.Name == claim.Spec.VolumeName {
				pv = other
				return false, nil
			}
			return false, fmt.Errorf("it was bound to persistentvolume %s instead of %s: %w", claim.Spec.VolumeName, pv.Name, snapshot.ErrUnfit)
		case claim.Status.Phase == corev1.ClaimLost:
			return false, fmt.Errorf("its persistentvolume %s was taken away: %w", pv.Name, snapshot.ErrFailed)
		case claim.Status.Phase == corev1.ClaimBound:
			return true, nil
		case p.clock.Now().After(deadline):
			return false, fmt.Errorf("it was not bound to persistentvolume %s within %s%s: %w", pv.Name, p.patience.Call, p.events(ctx, claim), snapshot.ErrUnfit)
		}
		return false, nil
	})
	return pv, err
}

// events is what the cluster says of a claim that is not bound; nothing where we may not read it.
func (p *provisioning) events(ctx context.Context, claim *corev1.PersistentVolumeClaim) string {
	list, err := p.kube.CoreV1().Events(claim.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=PersistentVolumeClaim,involvedObject.name=" + claim.Name,
	})
	if err != nil {
		return ""
	}
	var said []string
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == "PersistentVolumeClaim" && e.InvolvedObject.Name == claim.Name && (claim.UID == "" || e.InvolvedObject.UID == claim.UID) {
			said = append(said, e.Reason+": "+e.Message)
		}
	}
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, "; ") + ")"
}
