package repository

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"keepset/internal/record"
)

// Volume snapshots are kept by whoever provides the volumes. The repository
// only says which member needs which: in its refs, which are plain, so that
// who holds no key can compare them with what the provider has.

// NeededSnapshot is a volume snapshot that a member of a backup needs.
type NeededSnapshot struct {
	Set     record.SetID
	Backup  record.BackupID
	Ordinal int
	// Condemned: the backup is about to go. Until its commit has gone it
	// needs the snapshot.
	Condemned bool
	Snapshot  record.VolumeSnapshot
}

// AddVolumeSnapshots notes what the member needs outside of the repository.
// Commit refuses one that is not valid. It returns why the member takes no
// more, if so.
func (w *MemberWriter) AddVolumeSnapshots(list []record.VolumeSnapshot) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return fmt.Errorf("add volume snapshots to ordinal %d of %s: %w", w.planned.Ordinal, w.b.plan.ID, err)
	}
	w.volumes = append(w.volumes, list...)
	return nil
}

// VolumeSnapshots are what the member needs outside of the repository.
func (m *MemberReader) VolumeSnapshots() []record.VolumeSnapshot { return slices.Clone(m.volumes) }

// ErrUncertain says that a record cannot be read, so that it is not known
// what else is needed: nothing may be deleted for not being named.
var ErrUncertain = errors.New("it is not known what is needed")

// VolumeSnapshots yields what the valid commits of a set need outside of the
// repository, the newest backup first. It reads plain records only. A record
// that is of a newer version, damaged or gone, or belongs to a repository that
// was copied, ends it with ErrUncertain: who deletes what is not yielded must
// not have begun. Runs that have not committed yet are not in it.
func (r *Repository) VolumeSnapshots(ctx context.Context, set record.SetID) iter.Seq2[NeededSnapshot, error] {
	return func(yield func(NeededSnapshot, error) bool) {
		infos, err := r.Backups(ctx, set)
		if err != nil {
			yield(NeededSnapshot{}, err)
			return
		}
		for i := range infos {
			if err := infos[i].certain(); err != nil {
				yield(NeededSnapshot{}, err)
				return
			}
		}
		for i := range infos {
			for needed, err := range r.neededBy(ctx, &infos[i]) {
				if !yield(needed, err) || err != nil {
					return
				}
			}
		}
	}
}

// neededBy yields the volume snapshots of one backup, by ordinal.
func (r *Repository) neededBy(ctx context.Context, info *BackupInfo) iter.Seq2[NeededSnapshot, error] {
	return func(yield func(NeededSnapshot, error) bool) {
		for _, planned := range info.Plan.Members {
			member := info.Members[planned.Ordinal]
			if !member.Valid {
				continue
			}
			refs, err := r.readRefs(ctx, layout{info.Set}, &member.Commit)
			if isNotExist(err) || unreadable(err) {
				err = fmt.Errorf("%w: %w", ErrUncertain, err)
			}
			if err != nil {
				yield(NeededSnapshot{}, fmt.Errorf("volume snapshots of ordinal %d of %s of %s: %w", planned.Ordinal, info.ID, info.Set, err))
				return
			}
			for _, snapshot := range refs.VolumeSnapshots {
				needed := NeededSnapshot{Set: info.Set, Backup: info.ID, Ordinal: planned.Ordinal, Condemned: info.Condemned, Snapshot: snapshot}
				if !yield(needed, nil) {
					return
				}
			}
		}
	}
}

// certain returns ErrUncertain when a plan or commit of the backup does not
// count and may yet have been a good one. What is forged, void or unsigned was
// none: if that sufficed, anyone who can write to the bucket could have
// volume snapshots kept for ever.
func (b *BackupInfo) certain() error {
	for _, f := range b.faults {
		if f.worthless() && !b.planLost {
			continue
		}
		return fmt.Errorf("%w: %s of %s: %s", ErrUncertain, b.ID, b.Set, f.problem)
	}
	return nil
}

// worthless says that the object was never what it pretends to be, or that
// the run that wrote it was told so.
func (f *fault) worthless() bool {
	if errors.Is(f.err, errQuarantined) {
		return false // good ones look like this in a bucket that was copied
	}
	for _, target := range []error{record.ErrUnsigned, record.ErrSignature, record.ErrUntrusted, ErrForged, ErrVoid} {
		if errors.Is(f.err, target) {
			return true
		}
	}
	return false
}
