package csi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// Locate implements [snapshot.Snapshotter]. Without a right on
// PersistentVolumes, Handle, Zone and FSType stay empty, and the driver is the
// one that the claim was provisioned by. Node always stays empty: a CSI
// snapshot does not need it.
//
// It also finds the VolumeSnapshotClass of every driver, so that a class that
// is missing or ambiguous is known before anything is held still.
func (s *Snapshotter) Locate(ctx context.Context, volumes []snapshot.Volume) ([]snapshot.Volume, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("locate the volumes: %w", err)
	}
	found := make([]snapshot.Volume, len(volumes))
	var absent, foreign []string
	for i, v := range volumes {
		located, err := s.locate(ctx, v)
		var problem *claimError
		switch {
		case errors.As(err, &problem) && missing(err):
			absent = append(absent, problem.what)
		case errors.As(err, &problem):
			foreign = append(foreign, problem.what)
		case err != nil:
			return nil, err
		}
		found[i] = located
	}
	if err := errors.Join(
		listed(snapshot.ErrNotFound, absent, "a volume snapshot needs every claim of its member bound"),
		listed(snapshot.ErrUnsupported, foreign, s.without()),
	); err != nil {
		return nil, err
	}
	for _, driver := range drivers(found) {
		if _, err := s.classOf(ctx, driver); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// claimError is one claim's share in the errors of Locate.
type claimError struct {
	what     string
	sentinel error
}

func (e *claimError) Error() string { return e.what + ": " + e.sentinel.Error() }
func (e *claimError) Unwrap() error { return e.sentinel }

func listed(sentinel error, claims []string, remedy string) error {
	if len(claims) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s; %s", sentinel, strings.Join(claims, ", "), remedy)
}

func drivers(volumes []snapshot.Volume) []string {
	var list []string
	for _, v := range volumes {
		if !slices.Contains(list, v.Driver) {
			list = append(list, v.Driver)
		}
	}
	return list
}

func (s *Snapshotter) locate(ctx context.Context, v snapshot.Volume) (snapshot.Volume, error) {
	name := "claim " + v.Namespace + "/" + v.Claim
	claim, err := s.kube.CoreV1().PersistentVolumeClaims(v.Namespace).Get(ctx, v.Claim, metav1.GetOptions{})
	if err = explain(err, "read "+name); missing(err) {
		return v, &claimError{name + " is missing", snapshot.ErrNotFound}
	} else if err != nil {
		return v, err
	}
	if why := notWhole(claim); why != "" {
		return v, &claimError{name + " " + why, snapshot.ErrNotFound}
	}
	v.PersistentVolume = claim.Spec.VolumeName
	v.Block = isBlock(claim)
	v.Size = sizeOf(claim)
	if v.Template == "" {
		v.Template, _ = strings.CutSuffix(claim.Name, "-"+v.Owner.Set.Name+"-"+strconv.Itoa(v.Ordinal))
	}
	volume, err := s.kube.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	switch err = explain(err, "read the volume of "+name); {
	case denied(err):
		return s.locateBlind(ctx, v, claim, err)
	case missing(err):
		return v, &claimError{name + " has lost its volume " + claim.Spec.VolumeName, snapshot.ErrNotFound}
	case err != nil:
		return v, err
	}
	return fromVolume(v, claim, volume)
}

// fromVolume takes over what a PersistentVolume says.
func fromVolume(v snapshot.Volume, claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) (snapshot.Volume, error) {
	name := "claim " + v.Namespace + "/" + v.Claim
	if ref := volume.Spec.ClaimRef; ref == nil || ref.UID != claim.UID {
		return v, &claimError{name + " is not what volume " + volume.Name + " is bound to", snapshot.ErrNotFound}
	}
	source := volume.Spec.CSI
	if source == nil {
		return v, &claimError{fmt.Sprintf("%s is on a volume of the kind %s, not on one of a CSI driver (%s)", name, kindOf(volume.Spec.PersistentVolumeSource), volume.Name), snapshot.ErrUnsupported}
	}
	v.Driver, v.Handle, v.FSType, v.Zone = source.Driver, source.VolumeHandle, source.FSType, zoneOf(volume)
	if size, ok := volume.Spec.Capacity[corev1.ResourceStorage]; ok {
		v.Size = size.Value()
	}
	if v.Block {
		v.FSType = ""
	}
	return v, nil
}

// locateBlind finds the driver without the PersistentVolume, which we may not
// read, as refused says.
func (s *Snapshotter) locateBlind(ctx context.Context, v snapshot.Volume, claim *corev1.PersistentVolumeClaim, refused error) (snapshot.Volume, error) {
	v.Driver = claim.Annotations["volume.kubernetes.io/storage-provisioner"]
	if v.Driver == "" {
		v.Driver = claim.Annotations["volume.beta.kubernetes.io/storage-provisioner"]
	}
	if v.Driver == "" && claim.Spec.StorageClassName != nil && *claim.Spec.StorageClassName != "" {
		class, err := s.kube.StorageV1().StorageClasses().Get(ctx, *claim.Spec.StorageClassName, metav1.GetOptions{})
		if err == nil {
			v.Driver = class.Provisioner
		}
	}
	name := "claim " + v.Namespace + "/" + v.Claim
	switch {
	case v.Driver == "":
		return v, fmt.Errorf("%s does not say which driver made its volume, and its volume cannot be looked at: %w", name, refused)
	case strings.HasPrefix(v.Driver, "kubernetes.io/"):
		return v, &claimError{fmt.Sprintf("%s was provisioned by %s, which is not a CSI driver", name, v.Driver), snapshot.ErrUnsupported}
	}
	return v, nil
}

// notWhole says why a claim has no volume that could be cut; empty if it has.
func notWhole(claim *corev1.PersistentVolumeClaim) string {
	switch {
	case claim.DeletionTimestamp != nil:
		return "is being deleted"
	case claim.Status.Phase == corev1.ClaimLost:
		return "has lost its volume " + claim.Spec.VolumeName
	case claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "":
		return "is not bound to a volume"
	}
	return ""
}

func isBlock(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock
}

// sizeOf is what a claim got, or else what it asked for, in bytes.
func sizeOf(claim *corev1.PersistentVolumeClaim) int64 {
	if size, ok := claim.Status.Capacity[corev1.ResourceStorage]; ok {
		return size.Value()
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	return size.Value()
}
