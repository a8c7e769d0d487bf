package job

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
	"keepset/internal/statefulset"
)

// available tells whether the provider still has the snapshot, or in the region
// of the zone its copy, which is near then. When it has not and the repository
// holds a copy of the blocks, that will do.
func (r *Restore) available(ctx context.Context, ref record.VolumeSnapshot, zone string) (near record.VolumeSnapshot, copied bool, err error) {
	s, err := r.Volumes.Open(ref.Provider)
	if err != nil {
		return ref, false, err
	}
	if near = ref; !r.Volumes.FromCopy {
		if copier, ok := s.(snapshot.Copier); ok {
			near, err = copier.Near(ref, zone)
		}
		if err == nil {
			err = s.WaitReady(ctx, near)
		}
		if err == nil || ref.Stream == "" || !errors.Is(err, snapshot.ErrNotFound) {
			return near, false, err
		}
	}
	if ref.Stream == "" {
		return near, false, fmt.Errorf("%w: the repository holds no copy of its blocks", ErrConfig)
	}
	if _, ok := s.(snapshot.BlockWriter); !ok {
		return near, false, fmt.Errorf("%w: this snapshotter cannot make a snapshot of the repository's blocks", ErrConfig)
	}
	return near, true, nil
}

// madePrefix begins the names of the snapshots that restores make for
// themselves; the run's ID follows.
const madePrefix = "restore."

// rewritten makes a snapshot of the copy of a volume's blocks in the
// repository, encrypted where the volume was: of the same name in every attempt
// of a run, so that a retry finds it. It is deleted when the run has succeeded.
func (r *Restore) rewritten(ctx context.Context, plan *RestorePlan, item RestoreItem, ref record.VolumeSnapshot) (snapshot.Ref, error) {
	if made, ok := r.made[ref.ID]; ok {
		return made, nil
	}
	s, err := r.Volumes.Open(ref.Provider)
	if err != nil {
		return ref, err
	}
	writer, ok := s.(snapshot.BlockWriter)
	if !ok {
		return ref, fmt.Errorf("%w: this snapshotter cannot make a snapshot of the repository's blocks", ErrConfig)
	}
	made, err := writer.StartSnapshot(ctx, madePrefix+r.Run.ID+"."+strconv.Itoa(item.Base), snapshot.Volume{
		Owner: r.owner(), Ordinal: item.Base, Namespace: r.owner().Set.Namespace,
		Claim: statefulset.ClaimName(ref.Template, r.Set, item.Base), Template: ref.Template,
		Driver: ref.Driver, Zone: item.Zone, Size: ref.Size, Block: ref.Block, FSType: ref.FSType, Encrypted: ref.Encrypted,
	})
	if err != nil {
		return ref, err
	}
	reader, err := r.openBase(ctx, plan, item.Base)
	if err != nil {
		return ref, err
	}
	blocks, err := writeBlocks(ctx, reader, ref, writer, made)
	if err = errors.Join(err, reader.Close()); err != nil {
		return ref, fmt.Errorf("write the blocks of claim %s into snapshot %s: %w", ref.Claim, made.ID, err)
	}
	if err := writer.CompleteSnapshot(ctx, made, blocks); err != nil {
		return ref, err
	}
	r.Log.Info("snapshot made of the repository's blocks", "claim", ref.Claim, "snapshot", made.ID, "blocks", blocks)
	if r.made == nil {
		r.made = map[string]snapshot.Ref{}
	}
	r.made[ref.ID] = made
	return made, nil
}

// openBase opens a member of the plan's backup.
func (r *Restore) openBase(ctx context.Context, plan *RestorePlan, ordinal int) (*repository.MemberReader, error) {
	info, err := r.Repository.Resolve(ctx, plan.From, repository.Selector{ID: plan.Backup, Allow: plan.Incomplete || plan.Suspect})
	if err != nil {
		return nil, err
	}
	return r.Repository.OpenMember(ctx, info, ordinal)
}

// writeBlocks writes the blocks of a stream that are not all zeros, several at
// once, and returns how many. The stream's checksum has matched by then.
func writeBlocks(ctx context.Context, reader *repository.MemberReader, ref record.VolumeSnapshot, w snapshot.BlockWriter, into snapshot.Ref) (blocks int64, err error) {
	body, err := reader.Open(ctx, ref.Stream)
	if err != nil {
		return 0, err
	}
	group, writing := errgroup.WithContext(ctx)
	group.SetLimit(blocksAhead)
	zeros := make([]byte, snapshot.BlockSize)
	for index := int64(0); err == nil && writing.Err() == nil; index++ {
		block := make([]byte, snapshot.BlockSize)
		_, err = io.ReadFull(body, block) // what is missing of the last one stays zero
		if errors.Is(err, io.EOF) || bytes.Equal(block, zeros) && err == nil {
			continue
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		blocks++
		group.Go(func() error { return w.WriteBlock(writing, into, index, block) })
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return blocks, errors.Join(group.Wait(), err, body.Close(), ctx.Err())
}

// deleteMade deletes the snapshots that were made for restores of the set alone,
// by whichever run: we hold its Lease, so that no other one needs them. The
// replicas are Ready without them, so that one that stays is only a warning.
func (r *Restore) deleteMade(ctx context.Context, plan *RestorePlan) {
	var providers []string
	for _, item := range plan.Items {
		for _, ref := range item.Snapshots {
			if !slices.Contains(providers, ref.Provider) {
				providers = append(providers, ref.Provider)
			}
		}
	}
	for _, provider := range providers {
		if err := r.deleteMadeWith(ctx, provider); err != nil {
			r.Log.Warn("a snapshot that was made for a restore stays behind; restore abort deletes it", "error", err)
		}
	}
	r.made = nil
}

// deleteMadeWith deletes those that this process has made, and those that a
// list knows of an attempt before it, which may have died after its last replica.
func (r *Restore) deleteMadeWith(ctx context.Context, provider string) error {
	s, err := r.Volumes.Open(provider)
	if err != nil {
		return err
	}
	made, err := madeForRestores(ctx, s, r.owner())
	failed := []error{err}
	for _, ref := range r.made {
		if ref.Provider == provider && !slices.ContainsFunc(made, func(m snapshot.Ref) bool { return m.ID == ref.ID }) {
			made = append(made, ref) // the list may not show it yet
		}
	}
	for _, ref := range made {
		failed = append(failed, s.Delete(ctx, r.owner(), ref))
	}
	return errors.Join(failed...)
}

// madeForRestores are the snapshots of the owner that restores have made of the
// repository's blocks, also beside an error.
func madeForRestores(ctx context.Context, s snapshot.Snapshotter, owner snapshot.Owner) ([]snapshot.Ref, error) {
	if _, ok := s.(snapshot.BlockWriter); !ok {
		return nil, nil
	}
	var made []snapshot.Ref
	for ref, err := range s.List(ctx, owner) {
		if err != nil {
			return made, err
		}
		if strings.HasPrefix(ref.Cut, madePrefix) {
			made = append(made, ref)
		}
	}
	return made, nil
}
