package job

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

// Copies of volume snapshots in other regions. They are begun when what was cut
// is ready, waited for before the member is committed, recorded beside the
// snapshot that they are copies of, and go with it.

// beginCopies begins all copies, and notes them in refs.
func (v *VolumeCuts) beginCopies(ctx context.Context, member Member, refs []snapshot.Ref) error {
	copier, ok := v.Snapshotter.(snapshot.Copier)
	if !ok {
		return nil // locate has refused it if it was asked for
	}
	for i, r := range refs {
		for _, region := range v.Regions {
			var err error
			if r, err = copier.Copy(ctx, r, member.volumes[0].Owner, region); err != nil {
				return fmt.Errorf("claim %s: %w", r.Claim, err)
			}
			refs[i] = r
		}
	}
	return nil
}

// waitCopies waits until all of them could be restored.
func (v *VolumeCuts) waitCopies(ctx context.Context, refs []snapshot.Ref) error {
	for _, r := range refs {
		for _, one := range r.Whole()[1:] {
			if err := v.Snapshotter.WaitReady(ctx, one); err != nil {
				return fmt.Errorf("wait for the copy in region %s of snapshot %s of claim %s: %w", one.Region, r.ID, r.Claim, err)
			}
		}
	}
	return nil
}

// keptWith is what a provider keeps for the owner, by identity: where it looks by
// itself, and in the regions that the needed snapshots name.
func keptWith(ctx context.Context, s snapshot.Snapshotter, owner snapshot.Owner, needed []record.VolumeSnapshot) (map[string]snapshot.Ref, error) {
	kept := map[string]snapshot.Ref{}
	listings := []func() error{func() error { return collect(s.List(ctx, owner), kept) }}
	if copier, ok := s.(snapshot.Copier); ok {
		for _, region := range regionsOf(needed) {
			listings = append(listings, func() error { return collect(copier.ListIn(ctx, owner, region), kept) })
		}
	}
	for _, list := range listings {
		if err := list(); err != nil {
			return nil, fmt.Errorf("list the volume snapshots of %s: %w", owner.Set, err)
		}
	}
	return kept, nil
}

// gone asks for one snapshot that was not listed.
func gone(ctx context.Context, s snapshot.Snapshotter, ref record.VolumeSnapshot) (bool, error) {
	err := s.WaitReady(ctx, ref)
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, snapshot.ErrNotFound), errors.Is(err, snapshot.ErrFailed):
		return true, nil
	default:
		return false, fmt.Errorf("ask for snapshot %s: %w", ref.ID, err)
	}
}

// identity tells snapshots of one provider apart. Of those that are objects of
// the cluster it is their name: which ID one has depends on how much of it the
// account that asks may see.
func identity(s *record.VolumeSnapshot) string {
	if s.Name != "" {
		return s.Namespace + "/" + s.Name
	}
	return s.ID
}

// collect puts a listing into a map by identity.
func collect(list iter.Seq2[snapshot.Ref, error], into map[string]snapshot.Ref) error {
	for ref, err := range list {
		if err != nil {
			return err
		}
		into[identity(&ref)] = ref
	}
	return nil
}

// regionsOf are the regions of snapshots and their copies, each once.
func regionsOf(list []record.VolumeSnapshot) []string {
	var regions []string
	for i := range list {
		for _, one := range list[i].Whole() {
			if one.Region != "" && !slices.Contains(regions, one.Region) {
				regions = append(regions, one.Region)
			}
		}
	}
	return regions
}
