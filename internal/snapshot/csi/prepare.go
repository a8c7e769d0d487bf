package csi

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// Prepare implements [snapshot.Preparer]: it checks what Provision would
// refuse, waits until the snapshot is ready, and makes what has to stand in for
// a VolumeSnapshot that is gone or elsewhere. The volume itself is made with
// the claim.
func (s *Snapshotter) Prepare(ctx context.Context, r snapshot.Ref, t snapshot.Target) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("prepare claim %s/%s: %w", t.Claim.Namespace, t.Claim.Name, err)
	}
	if _, err := s.fits(ctx, r, t); err != nil {
		return err
	}
	from, err := s.source(ctx, r, t)
	if err == nil {
		claim := t.Claim.DeepCopy()
		if claim.Annotations == nil {
			claim.Annotations = map[string]string{}
		}
		err = s.enlarge(claim, max(from.size, r.Size))
	}
	if err != nil {
		return s.undo(ctx, t, nil, err)
	}
	return nil
}

// Scrap implements [snapshot.Preparer]: it removes the stand-in for a claim,
// also once the claim is bound and needs it no longer. As long as a claim waits
// for its volume to be made from it, it stays, and Scrap returns nil.
func (s *Snapshotter) Scrap(ctx context.Context, t snapshot.Target) error {
	name := "claim " + t.Claim.Namespace + "/" + t.Claim.Name
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("scrap what was prepared for %s: %w", name, err)
	}
	claim, err := s.kube.CoreV1().PersistentVolumeClaims(t.Claim.Namespace).Get(ctx, t.Claim.Name, metav1.GetOptions{})
	if err = explain(err, "read "+name); err != nil && !missing(err) {
		return err
	}
	if err == nil && claim.DeletionTimestamp == nil && !isBound(claim) {
		if source := claim.Spec.DataSource; source != nil && source.Name == standInName(claim.Namespace, claim.Name) {
			return nil
		}
	}
	return s.scrapStandIn(ctx, t)
}
