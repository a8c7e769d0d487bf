package statefulset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// With rights on PersistentVolumes, which are opt-in, the volume that an
// ordinal had before outlives its claim until the restored replica is Ready,
// and a volume that was only half filled goes whatever its reclaim policy
// says. Without them, reclaim policies decide, as they do for everybody.

// KeptVolume is a volume that an ordinal had before a restore, and that has
// been kept from its reclaim policy.
type KeptVolume struct {
	Name    string
	Ordinal int
	// Claim that it was bound to, Policy that it will have again.
	Claim, Policy string
}

// keepVolumes keeps the volumes of the ordinal's deleted claims, and has those
// go that hold what an earlier attempt half filled.
func (s *Seed) keepVolumes(ctx context.Context) error {
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	for _, claim := range now.claims {
		if claim.Spec.VolumeName == "" {
			continue
		}
		if err := s.fence(ctx); err != nil {
			return err
		}
		if claim.Annotations[AnnotationSeeding] != "" {
			err = s.client.disposeVolume(ctx, claim)
		} else {
			err = s.client.keepVolume(ctx, s.set.Name, s.spec.Ordinal, claim)
		}
		if err := s.client.withoutRights(err, claim); err != nil {
			return err
		}
	}
	return nil
}

// withoutRights lets a missing right on PersistentVolumes pass: the reclaim
// policy decides then.
func (c *Client) withoutRights(err error, claim *corev1.PersistentVolumeClaim) error {
	if !errors.Is(err, ErrForbidden) {
		return err
	}
	c.log.Info("no right on PersistentVolumes: the volume goes by its reclaim policy", "claim", claim.Name, "volume", claim.Spec.VolumeName)
	return nil
}

// keepVolume sees to it that the claim's volume outlives the claim.
func (c *Client) keepVolume(ctx context.Context, set string, ordinal int, claim *corev1.PersistentVolumeClaim) error {
	pv, err := c.volumeOf(ctx, claim)
	if err != nil || pv == nil || pv.Annotations[annotationReclaim] != "" && pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRetain {
		return err // kept already
	}
	return c.patchVolume(ctx, pv, corev1.PersistentVolumeReclaimRetain, map[string]any{
		"labels": map[string]any{
			labelManagedBy: product, LabelSet: set, labelNamespace: c.namespace, LabelOrdinal: strconv.Itoa(ordinal),
		},
		"annotations": map[string]any{annotationReclaim: string(pv.Spec.PersistentVolumeReclaimPolicy)},
	})
}

// disposeVolume sees to it that the claim's volume goes with the claim.
func (c *Client) disposeVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	pv, err := c.volumeOf(ctx, claim)
	if err != nil || pv == nil || pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		return err
	}
	return c.patchVolume(ctx, pv, corev1.PersistentVolumeReclaimDelete, map[string]any{})
}

// volumeOf reads the volume that is bound to exactly this claim; nil when
// there is none.
func (c *Client) volumeOf(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, error) {
	if claim.Spec.VolumeName == "" {
		return nil, nil //nolint:nilnil // absence is a normal answer here
	}
	pv, err := c.kube.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // absence is a normal answer here
	}
	if err != nil {
		return nil, explain(err, "read volume "+claim.Spec.VolumeName)
	}
	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID {
		return nil, nil //nolint:nilnil // it is another claim's by now
	}
	return pv, nil
}

// patchVolume changes the reclaim policy, provided that the volume has not
// changed since it was read.
func (c *Client) patchVolume(ctx context.Context, pv *corev1.PersistentVolume, policy corev1.PersistentVolumeReclaimPolicy, metadata map[string]any) error {
	metadata["resourceVersion"] = pv.ResourceVersion
	data, err := json.Marshal(map[string]any{"metadata": metadata, "spec": map[string]any{"persistentVolumeReclaimPolicy": policy}})
	if err != nil {
		return fmt.Errorf("patch volume %s: %w", pv.Name, err)
	}
	_, err = c.kube.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: fieldManager})
	return explain(err, "patch volume "+pv.Name)
}

// KeptVolumes lists the volumes that restores of the set have kept. Without
// rights on PersistentVolumes nothing was kept.
func (c *Client) KeptVolumes(ctx context.Context, set string) ([]KeptVolume, error) {
	volumes, err := c.keptVolumes(ctx, set)
	if errors.Is(err, ErrForbidden) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]KeptVolume, 0, len(volumes))
	for _, pv := range volumes {
		kept := KeptVolume{Name: pv.Name, Policy: pv.Annotations[annotationReclaim]}
		if kept.Ordinal, err = strconv.Atoi(pv.Labels[LabelOrdinal]); err != nil {
			continue // not a label that we have written
		}
		if pv.Spec.ClaimRef != nil {
			kept.Claim = pv.Spec.ClaimRef.Name
		}
		list = append(list, kept)
	}
	return list, nil
}

func (c *Client) keptVolumes(ctx context.Context, set string) ([]corev1.PersistentVolume, error) {
	selector := labels.SelectorFromSet(labels.Set{labelManagedBy: product, LabelSet: set, labelNamespace: c.namespace})
	list, err := c.kube.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, explain(err, "list the volumes that were kept for "+c.ref("statefulset", set))
	}
	kept := list.Items[:0]
	for _, pv := range list.Items {
		if pv.Annotations[annotationReclaim] != "" {
			kept = append(kept, pv)
		}
	}
	return kept, nil
}

// ReturnVolumes gives the volumes that were kept for an ordinal back to their
// reclaim policies: its replica is Ready on another volume. It returns their
// names.
func (c *Client) ReturnVolumes(ctx context.Context, set string, ordinal int) ([]string, error) {
	volumes, err := c.keptVolumes(ctx, set)
	if errors.Is(err, ErrForbidden) {
		return nil, nil // then none was kept
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range volumes {
		pv := &volumes[i]
		if pv.Labels[LabelOrdinal] != strconv.Itoa(ordinal) {
			continue
		}
		policy := corev1.PersistentVolumeReclaimPolicy(pv.Annotations[annotationReclaim])
		err := c.patchVolume(ctx, pv, policy, map[string]any{
			"labels":      map[string]any{labelManagedBy: nil, LabelSet: nil, labelNamespace: nil, LabelOrdinal: nil},
			"annotations": map[string]any{annotationReclaim: nil},
		})
		if err != nil {
			return names, err
		}
		names = append(names, pv.Name)
	}
	return names, nil
}
