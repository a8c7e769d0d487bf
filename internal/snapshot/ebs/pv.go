package ebs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ktypes "k8s.io/apimachinery/pkg/types"

	"keepset/internal/snapshot"
)

const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	product        = "keepset"
	// annotationProvisionedBy tells the driver that the volume is its to delete.
	annotationProvisionedBy = "pv.kubernetes.io/provisioned-by"
	// annotationReclaim is the policy that the PersistentVolume gets once it is bound.
	annotationReclaim = "keepset/reclaim-policy"
)

// nameFor is the one name that a PersistentVolume of a volume can have, so that there are never two.
func nameFor(volume string) string { return "keepset-" + volume }

// present makes the PersistentVolume of a volume, for the claim and nobody else.
func (p *provisioning) present(ctx context.Context, plan plan, volume types.Volume) (*corev1.PersistentVolume, error) {
	key, err := p.zoneKey(ctx, plan.driver)
	if err != nil {
		return nil, err
	}
	want := p.persistentVolume(plan, volume, key)
	made, err := p.kube.CoreV1().PersistentVolumes().Create(ctx, want, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return made, explain(ctx, err, "create persistentvolume "+want.Name, roleRestore)
	}
	found, err := p.kube.CoreV1().PersistentVolumes().Get(ctx, want.Name, metav1.GetOptions{})
	if err != nil {
		return nil, explain(ctx, err, "read persistentvolume "+want.Name, roleRestore)
	}
	if !bears(found.Annotations, p.identity()) || !unbound(found) || found.DeletionTimestamp != nil {
		return nil, fmt.Errorf("persistentvolume %s exists and is not free: %w", want.Name, snapshot.ErrInUse)
	}
	return found, nil
}

// persistentVolume is as the driver's provisioner would make it, but that it stays when it is
// deleted before a claim was bound to it: the provisioner's finalizer would
// hold it for ever otherwise.
func (p *provisioning) persistentVolume(plan plan, volume types.Volume, zoneKey string) *corev1.PersistentVolume {
	claim := p.target.Claim
	mode := corev1.PersistentVolumeFilesystem
	if p.ref.Block {
		mode = corev1.PersistentVolumeBlock
	}
	annotations := p.identity()
	annotations[annotationProvisionedBy], annotations[annotationReclaim] = plan.driver, string(plan.reclaim)
	annotations[tagUnbound] = "true"
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: nameFor(aws.ToString(volume.VolumeId)), Annotations: annotations, Labels: map[string]string{labelManagedBy: product},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(int64(aws.ToInt32(volume.Size))*gib, resource.BinarySI)},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			StorageClassName:              plan.name,
			MountOptions:                  plan.mountOptions,
			VolumeMode:                    &mode,
			VolumeAttributesClassName:     claim.Spec.VolumeAttributesClassName,
			ClaimRef: &corev1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: plan.driver, VolumeHandle: aws.ToString(volume.VolumeId), FSType: plan.fsType,
			}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: zoneKey, Operator: corev1.NodeSelectorOpIn, Values: []string{aws.ToString(volume.AvailabilityZone)},
				}},
			}}}},
		},
	}
}

// zoneKey is the label under which the driver's volumes name their zone in this cluster.
func (p *provisioning) zoneKey(ctx context.Context, driver string) (string, error) {
	list, err := p.persistentVolumes(ctx)
	if err != nil {
		return "", err
	}
	for i := range list {
		if pv := &list[i]; pv.Spec.CSI != nil && pv.Spec.CSI.Driver == driver && pv.Labels[labelManagedBy] != product {
			if key, _ := zoneOf(pv); key != "" {
				return key, nil
			}
		}
	}
	return corev1.LabelTopologyZone, nil
}

func (s *Snapshotter) persistentVolumes(ctx context.Context) ([]corev1.PersistentVolume, error) {
	list, err := s.kube.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(ctx, err, "list persistentvolumes", roleRestore)
	}
	return list.Items, ctx.Err()
}

// prepared is the PersistentVolume that this restore has made for the claim, nil when there is none. Of several it is the
// one that the claim has got: while the set's controller makes the claim itself, a second one may come to be.
func (p *provisioning) prepared(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, error) {
	list, err := p.persistentVolumes(ctx)
	if err != nil {
		return nil, err
	}
	var found *corev1.PersistentVolume
	for i := range list {
		pv := &list[i]
		if !bears(pv.Annotations, p.identity()) || pv.DeletionTimestamp != nil || pv.Status.Phase == corev1.VolumeReleased || !refersTo(pv, p.target.Claim) {
			continue
		}
		if pv.Name == claim.Spec.VolumeName || pv.Spec.ClaimRef.UID != "" && pv.Spec.ClaimRef.UID == claim.UID {
			return pv, nil
		}
		found = pv
	}
	return found, nil
}

func refersTo(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	r := pv.Spec.ClaimRef
	return r != nil && r.Namespace == claim.Namespace && r.Name == claim.Name
}

// unbound: no claim was ever bound to it.
func unbound(pv *corev1.PersistentVolume) bool {
	free := pv.Status.Phase == "" || pv.Status.Phase == corev1.VolumePending || pv.Status.Phase == corev1.VolumeAvailable
	return free && (pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID == "")
}

// finish gives a PersistentVolume that is bound its class's reclaim policy, and takes the
// marks off it and its volume by which they could be removed. It does nothing where that is done.
func (s *Snapshotter) finish(ctx context.Context, name string) error {
	pv, err := s.kube.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return explain(ctx, err, "read persistentvolume "+name, roleRestore)
	}
	if pv.Annotations[tagUnbound] == "" {
		return nil
	}
	h, err := handleOf(pv)
	if err != nil {
		return err
	}
	c, err := s.in(regionOf(h.zone))
	if err != nil {
		return err
	}
	err = s.call(ctx, deleteTags, "volume "+h.id, func(ctx context.Context) error {
		_, err := c.ec2.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{h.id}, Tags: []types.Tag{{Key: aws.String(tagUnbound)}}})
		return err
	})
	if err != nil {
		return err
	}
	annotations := map[string]any{tagUnbound: nil, annotationReclaim: nil}
	patch := map[string]any{"metadata": map[string]any{"annotations": maps.Clone(annotations)}}
	if policy := pv.Annotations[annotationReclaim]; policy != "" {
		patch["spec"] = map[string]any{"persistentVolumeReclaimPolicy": policy}
	}
	return s.patchPV(ctx, name, patch)
}

func (s *Snapshotter) patchPV(ctx context.Context, name string, patch map[string]any) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("patch persistentvolume %s: %w", name, err)
	}
	_, err = s.kube.CoreV1().PersistentVolumes().Patch(ctx, name, ktypes.MergePatchType, body, metav1.PatchOptions{})
	return explain(ctx, err, "patch persistentvolume "+name, roleRestore)
}
