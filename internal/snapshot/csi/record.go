package csi

import (
	"encoding/json"
	"fmt"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

// refOf is the Ref of a volume that is to be cut. ID and CutAt are not known yet.
func refOf(v snapshot.Volume, cut, name string) snapshot.Ref {
	r := snapshot.Ref{
		Provider: record.ProviderCSI, Cut: cut, Name: name, Namespace: v.Namespace, Driver: v.Driver,
		Claim: v.Claim, Template: v.Template, Volume: v.Handle, Zone: v.Zone, Size: v.Size, Block: v.Block, FSType: v.FSType,
	}
	if r.Volume == "" {
		r.Volume = v.PersistentVolume
	}
	return r
}

// encodeRecord is the annotation that goes with a VolumeSnapshot.
func encodeRecord(r snapshot.Ref) (string, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("write the record of VolumeSnapshot %s/%s: %w", r.Namespace, r.Name, err)
	}
	return string(text), nil
}

// decodeRecord reads that annotation. Anybody who may change VolumeSnapshots
// may have written it: name, namespace and claim are taken from the object
// itself. whole says that Cut came to its end.
func decodeRecord(vs *volumesnapshotv1.VolumeSnapshot) (r snapshot.Ref, whole bool) {
	if err := json.Unmarshal([]byte(vs.Annotations[annotationRecord]), &r); err != nil || r.Size < 0 {
		r = snapshot.Ref{}
	}
	whole = r.ID != "" && !r.CutAt.IsZero()
	r.Provider, r.Namespace, r.Name, r.Cut = record.ProviderCSI, vs.Namespace, vs.Name, vs.Annotations[annotationBackup]
	if claim := vs.Spec.Source.PersistentVolumeClaimName; claim != nil {
		r.Claim = *claim
	}
	return r, whole
}

// complete fills in what is known once a VolumeSnapshot has been cut. A volume
// made from it has to have at least the larger of the two sizes.
func complete(r snapshot.Ref, vs *volumesnapshotv1.VolumeSnapshot, content *volumesnapshotv1.VolumeSnapshotContent) snapshot.Ref {
	r.ID, r.CutAt = idOf(vs, content), cutAt(vs, content)
	r.Size = max(r.Size, restoreSize(vs))
	return r
}

// newSnapshot is the VolumeSnapshot that Cut makes for a volume.
func (s *Snapshotter) newSnapshot(cut string, v snapshot.Volume, class snapshotClass) (*volumesnapshotv1.VolumeSnapshot, error) {
	vs := &volumesnapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Name: snapshotName(v.Owner, cut, v.Claim), Namespace: v.Namespace},
		Spec:       volumesnapshotv1.VolumeSnapshotSpec{Source: volumesnapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &v.Claim}},
	}
	if class.name != "" {
		vs.Spec.VolumeSnapshotClassName = &class.name
	}
	mark(&vs.ObjectMeta, v.Owner, s.purpose, v.Ordinal)
	vs.OwnerReferences = s.owners()
	text, err := encodeRecord(refOf(v, cut, vs.Name))
	if err != nil {
		return nil, err
	}
	vs.Annotations[annotationClaim] = v.Claim
	vs.Annotations[annotationBackup] = cut
	vs.Annotations[annotationRecord] = text
	if class.policy != "" {
		vs.Annotations[annotationPolicy] = string(class.policy)
	}
	return vs, nil
}
