package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// pruneRecord is what a run has condemned, and when by the store's clock.
type pruneRecord struct {
	at    time.Time
	size  int64
	prune record.Prune
}

func sortedRecords(m map[string]pruneRecord) []string { return slices.Sorted(maps.Keys(m)) }

// readClock learns the time from the store, which says when it has stored
// something: a record that condemns nothing.
func (p *prune) readClock(ctx context.Context) error {
	empty := record.Prune{Header: record.NewHeader(record.KindPrune), Repository: p.r.config.Repository, Set: p.layout.set}
	key, at, err := p.putRecord(ctx, &empty)
	p.clock, p.now = key, at
	return err
}

// putRecord stores a record under a name of its own and returns when that was.
// The time in the name is for people; it says nothing.
func (p *prune) putRecord(ctx context.Context, rec *record.Prune) (key string, at time.Time, err error) {
	data, err := record.Encode(rec, nil)
	if err != nil {
		return "", time.Time{}, err
	}
	key = p.layout.prune(record.NewBackupID(p.r.options.Clock(), ""))
	if err := put(ctx, p.r.store, key, data); err != nil {
		return "", time.Time{}, fmt.Errorf("store prune record: %w", err)
	}
	object, err := p.r.store.Stat(ctx, key)
	if err != nil {
		return key, time.Time{}, fmt.Errorf("look at the stored prune record: %w", err)
	}
	return key, object.LastModified, nil
}

// readRecords reads what earlier runs have condemned. A record that cannot be
// read may condemn anything, and what it condemns cannot be told from what is
// wanted: nothing is deleted.
func (p *prune) readRecords(ctx context.Context) error {
	p.records = make(map[string]pruneRecord)
	for object, err := range p.r.store.List(ctx, p.layout.prunes()) {
		if err != nil {
			return fmt.Errorf("list prune records: %w", err)
		}
		if object.Key == p.clock {
			continue
		}
		rec, err := p.readRecord(ctx, object)
		if isNotExist(err) {
			continue // a prune finished and removed its record
		}
		if err != nil {
			return err
		}
		p.records[object.Key] = rec
	}
	return nil
}

func (p *prune) readRecord(ctx context.Context, object storage.Object) (pruneRecord, error) {
	rec := pruneRecord{at: object.LastModified, size: object.Size}
	data, err := getAll(ctx, p.r.store, object.Key)
	if err != nil {
		return rec, fmt.Errorf("read prune record: %w", err)
	}
	if _, err := record.Decode(data, &rec.prune, nil); err != nil {
		return rec, fmt.Errorf("%w: %s: %w", ErrUncertain, object.Key, err)
	}
	if rec.prune.Set != p.layout.set || rec.prune.Repository != "" && rec.prune.Repository != p.r.config.Repository {
		return rec, fmt.Errorf("%w: %s belongs to %s in repository %s", ErrUncertain, object.Key, rec.prune.Set, rec.prune.Repository)
	}
	return rec, nil
}

// storeCondemned stores what this run condemns, and looks whether another one
// condemns other backups at the same moment. Two that keep different backups
// would together keep none: both step back.
func (p *prune) storeCondemned(ctx context.Context) error {
	c := p.condemns
	if len(c.Backups)+len(c.Packs)+len(c.Parts)+len(c.Maps)+len(c.Refs) == 0 {
		return nil
	}
	key, at, err := p.putRecord(ctx, c)
	if err != nil {
		return err
	}
	p.report.Due = p.matures(at)
	if len(c.Backups) == 0 {
		return nil
	}
	err = p.alone(ctx, key)
	if err != nil {
		return errors.Join(err, p.r.store.Delete(ctx, key))
	}
	return nil
}

// alone returns ErrConcurrentPrune when a record that was not there when this
// run chose condemns what this run does not.
func (p *prune) alone(ctx context.Context, own string) error {
	for object, err := range p.r.store.List(ctx, p.layout.prunes()) {
		if err != nil {
			return fmt.Errorf("list prune records: %w", err)
		}
		if _, known := p.records[object.Key]; known || object.Key == own || object.Key == p.clock {
			continue
		}
		rec, err := p.readRecord(ctx, object)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		for _, id := range rec.prune.Backups {
			if !p.doomed[id] {
				return fmt.Errorf("%w: %s condemns %s, which this one keeps; run it again when that one has ended", ErrConcurrentPrune, object.Key, id)
			}
		}
	}
	pins, err := p.r.pinned(ctx, p.layout)
	if err != nil {
		return err
	}
	for _, id := range p.chosen {
		if pins[id] {
			return fmt.Errorf("%w: %s was pinned meanwhile; run prune again", ErrConcurrentPrune, id)
		}
	}
	return nil
}

// findReleased finds the volume snapshots that only condemned refs name. These
// stay for as long as the record waits, so that a prune which was killed
// before it had deleted the snapshots finds them again.
func (p *prune) findReleased(ctx context.Context) error {
	refs := make(map[hash]bool)
	for _, name := range p.condemns.Refs {
		refs[name] = true
	}
	for _, rec := range p.records {
		for _, name := range rec.prune.Refs {
			refs[name] = true
		}
	}
	if err := p.doomedRefs(ctx, refs); err != nil {
		return err
	}
	names := slices.SortedFunc(maps.Keys(refs), compareHashes)
	for _, name := range names {
		at, found := p.stock[stockRefs].find(name)
		if !found || p.stock[stockRefs].needed.has(at) {
			continue
		}
		if err := p.releasedBy(ctx, name); err != nil {
			return err
		}
	}
	p.report.VolumeSnapshots = p.released
	return nil
}

// doomedRefs adds the refs of condemned commits, which may be too young to be
// condemned themselves.
func (p *prune) doomedRefs(ctx context.Context, refs map[hash]bool) error {
	for i := range p.infos {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !p.doomed[p.infos[i].ID] {
			continue
		}
		for _, m := range p.infos[i].Members {
			if m.Valid {
				refs[m.Commit.Refs] = true
			}
		}
	}
	return nil
}

func (p *prune) releasedBy(ctx context.Context, name hash) error {
	data, err := getAll(ctx, p.r.store, p.layout.ref(name))
	if isNotExist(err) {
		return nil // another prune was faster
	}
	if err != nil {
		return err
	}
	var refs record.Refs
	if _, err := record.Decode(bytes.Clone(data), &refs, nil); err != nil || refs.Set != p.layout.set {
		return nil //nolint:nilerr // nothing refers to it; what it may have named is found by comparing with the provider
	}
	for _, snapshot := range refs.VolumeSnapshots {
		// A record that others may have written names no copy that a backup needs.
		snapshot.Copies = slices.DeleteFunc(snapshot.Copies, func(c record.SnapshotCopy) bool {
			return p.snapshots[snapshotName(&record.VolumeSnapshot{Provider: snapshot.Provider, ID: c.ID})]
		})
		if id := snapshotName(&snapshot); !p.snapshots[id] {
			p.snapshots[id] = true // once is enough
			p.released = append(p.released, NeededSnapshot{Set: refs.Set, Backup: refs.Backup, Ordinal: refs.Ordinal, Condemned: true, Snapshot: snapshot})
		}
	}
	return nil
}
