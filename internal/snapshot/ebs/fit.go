package ebs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"keepset/internal/snapshot"
)

// plan is the volume that is to be made for a target.
type plan struct {
	class
	region, zone, snapshot string
	// size in GiB.
	size int64
	// fsType that the volume's content has.
	fsType string
}

// fit says what volume the target needs, or why there is none that fits. It
// looks and makes nothing.
func (s *Snapshotter) fit(ctx context.Context, r snapshot.Ref, t snapshot.Target) (plan, error) {
	if err := fitClaim(r, t.Claim); err != nil {
		return plan{}, err
	}
	c, err := s.classOf(ctx, t.Claim)
	if err != nil {
		return plan{}, err
	}
	p := plan{class: c, fsType: r.FSType}
	switch {
	case r.Block:
		p.fsType = ""
	case p.fsType == "":
		p.fsType = c.parameters.fsType
	case c.parameters.fsType != "" && c.parameters.fsType != p.fsType:
		s.log.WarnContext(ctx, "the snapshot's file system is not the storageclass's, and stays",
			"claim", t.Claim.Name, "snapshot", p.fsType, "storageclass", c.parameters.fsType)
	}
	if len(c.ignored) > 0 {
		s.log.InfoContext(ctx, "parameters of the storageclass do not matter for a volume that is filled by a snapshot", "storageclass", c.name, "parameters", strings.Join(c.ignored, " "))
	}
	if p.size, err = sizeFor(r, t.Claim); err != nil {
		return plan{}, err
	}
	if p.zone, err = zoneFor(t, c); err != nil {
		return plan{}, err
	}
	s.learn(p.zone)
	p.region, p.snapshot, err = s.sourceIn(r, regionOf(p.zone))
	return p, err
}

// fitClaim refuses what no EBS volume, or none made of this snapshot, can be.
func fitClaim(r snapshot.Ref, claim *corev1.PersistentVolumeClaim) error {
	unfit := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, snapshot.ErrUnfit)...)
	}
	block := claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock
	switch {
	case block && !r.Block:
		return unfit("the claim wants a raw device, the snapshot holds a file system")
	case !block && r.Block:
		return unfit("the claim wants a file system, the snapshot is of a raw device")
	case len(claim.Spec.AccessModes) == 0:
		return unfit("the claim names no access mode")
	case claim.Spec.Selector != nil:
		return unfit("the claim selects its volume by labels")
	case claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil:
		return unfit("the claim has a data source of its own")
	}
	for _, mode := range claim.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return unfit("the claim wants access mode %s, which EBS has not", mode)
		}
	}
	return nil
}

// sizeFor is at least what the claim asks for and at least the snapshot's.
func sizeFor(r snapshot.Ref, claim *corev1.PersistentVolumeClaim) (int64, error) {
	request := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	bytes := max(request.Value(), r.Size)
	limit, limited := claim.Spec.Resources.Limits[corev1.ResourceStorage]
	size := (bytes + gib - 1) / gib
	if limited && size*gib > limit.Value() {
		return 0, fmt.Errorf("the claim is limited to %s, the volume needs %d GiB: %w", limit.String(), size, snapshot.ErrUnfit)
	}
	if size <= 0 {
		return 0, fmt.Errorf("neither the claim nor the snapshot has a size: %w", snapshot.ErrUnfit)
	}
	return size, nil
}

// zoneFor never guesses: in a zone without a fitting node the replica could not start.
func zoneFor(t snapshot.Target, c class) (string, error) {
	switch {
	case t.Zone != "" && len(c.allowed) > 0 && !slices.Contains(c.allowed, t.Zone):
		return "", fmt.Errorf("storageclass %s allows zones %s only, the replica will run in %s: %w", c.name, strings.Join(c.allowed, ", "), t.Zone, snapshot.ErrUnfit)
	case t.Zone != "":
		return t.Zone, nil
	case len(c.allowed) == 1:
		return c.allowed[0], nil
	}
	return "", fmt.Errorf("nothing says in which zone the replica will run: name the zone for the restore, or give storageclass %s allowedTopologies with a single zone: %w", c.name, snapshot.ErrNotFound)
}

// sourceIn chooses the snapshot, or the copy of it, that is in a region.
func (s *Snapshotter) sourceIn(r snapshot.Ref, region string) (in, id string, err error) {
	if region == "" || r.Region == "" || region == r.Region {
		return or(region, r.Region), r.ID, nil
	}
	for _, c := range r.Copies {
		if c.Region == region {
			return region, c.ID, nil
		}
	}
	return "", "", fmt.Errorf("snapshot %s is in region %s and has no copy in %s: restore in %s, or from the repository: %w", r.ID, r.Region, region, r.Region, snapshot.ErrNotFound)
}
