package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"keepset/internal/record"
)

// This file fills the index of a run: from the bases, which are the newest
// complete backups of what is planned, and from what earlier attempts at this backup, or other
// pods at work on it, have noted in commits and checkpoints.

// loadIndex is called once a run, after the plan is stored and the prune records are read.
func (b *Backup) loadIndex(ctx context.Context) error {
	if b.condemned.all {
		return nil
	}
	if err := b.findAged(ctx); err != nil {
		return err
	}
	parts, err := b.baseParts(ctx)
	if err != nil {
		return err
	}
	if err := b.addParts(ctx, parts); err != nil {
		return err
	}
	if err := b.absorb(ctx); err != nil {
		return err
	}
	b.started = true
	return b.listPacks(ctx)
}

// baseParts are the parts of the bases, and of members of this backup that
// are committed already.
func (b *Backup) baseParts(ctx context.Context) ([]record.ObjectRef, error) {
	all, err := b.r.findBackups(ctx, b.layout, "")
	if err != nil {
		return nil, err
	}
	ids := make([]record.BackupID, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(x, y record.BackupID) int { return cmp.Compare(y, x) })
	var parts []record.ObjectRef
	rank := rankBases
	wanted := newWanted(&b.plan)
	for _, id := range ids {
		own := id == b.plan.ID
		if !own && !wanted.more() {
			continue
		}
		info := BackupInfo{Set: b.layout.set, ID: id, Condemned: b.condemned.hasBackup(id)}
		if err := b.r.judge(ctx, b.layout, &info, all[id]); err != nil {
			return nil, err
		}
		if !own && ineligible(&info) != "" {
			continue
		}
		if !own && info.Plan.KeyEpoch() != b.plan.KeyEpoch() {
			wanted.others++ // its parts have other keys, and what a thief of those has stored is not to be inherited
			continue
		}
		if !own && !wanted.take(&info.Plan) {
			continue
		}
		of := rankCommits
		if !own {
			of = rank
			rank++
		}
		list, err := b.partsOf(ctx, &info, of)
		if err != nil {
			return nil, err
		}
		parts = append(parts, list...)
		if !own {
			b.r.log.Info("base chosen", "backup", id, "parts", len(list))
		}
	}
	return parts, nil
}

// baseLimit is how many good backups are looked at for bases.
const baseLimit = 16

// otherLimit is how many of another method are passed over meanwhile.
const otherLimit = 64

// wanted chooses the bases of a backup, going from the newest backup to older
// ones: the newest of all, and, where that one was taken of fewer ordinals,
// databases or paths or by another method, the newest ones that hold the rest. Otherwise
// a backup of one database, taken by hand, or a dump that is taken every hour
// between daily copies of volumes, would have the next one store everything again.
type wanted struct {
	method    string
	databases []string
	paths     []string
	ordinals  map[int]bool // planned and in no base yet
	looked    int
	others    int // of another method, among the good ones
}

func newWanted(plan *record.Plan) *wanted {
	w := &wanted{method: plan.Method, databases: plan.Databases, paths: plan.Paths, ordinals: make(map[int]bool)}
	for _, m := range plan.Members {
		w.ordinals[m.Ordinal] = true
	}
	return w
}

// more says whether to look further.
func (w *wanted) more() bool {
	return len(w.ordinals) > 0 && w.looked < baseLimit && w.others < otherLimit
}

// take says whether the backup of that plan becomes a base.
func (w *wanted) take(plan *record.Plan) bool {
	newest := w.looked+w.others == 0
	if plan.Method != w.method {
		w.others++
		return newest
	}
	w.looked++
	if len(plan.Databases) > 0 && !slices.Equal(plan.Databases, w.databases) || len(plan.Paths) > 0 && !slices.Equal(plan.Paths, w.paths) {
		return newest
	}
	before := len(w.ordinals)
	for _, m := range plan.Members {
		delete(w.ordinals, m.Ordinal)
	}
	return newest || len(w.ordinals) < before
}

// The order in which memos are asked: what this very backup has written knows
// most of what it is to write now.
const (
	rankCheckpoints = iota
	rankCommits
	rankBases
)

// partsOf also notes where the memos are.
func (b *Backup) partsOf(ctx context.Context, info *BackupInfo, rank int) ([]record.ObjectRef, error) {
	var parts []record.ObjectRef
	for ordinal, member := range info.Members {
		if !member.Valid {
			continue
		}
		refs, err := b.r.readRefs(ctx, b.layout, &member.Commit)
		if isNotExist(err) || unreadable(err) {
			b.r.log.Warn("refs cannot be used; their chunks may be stored again", "backup", info.ID, "ordinal", ordinal, "error", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		parts = append(parts, refs.Parts...)
		b.noteMemos(ordinal, rank, refs.Memos)
	}
	return parts, nil
}

// noteMemos lets memos be asked, but for condemned ones. Their age does not matter:
// a backup writes its own.
func (b *Backup) noteMemos(ordinal, rank int, refs []record.ObjectRef) {
	refs = slices.DeleteFunc(slices.Clone(refs), func(ref record.ObjectRef) bool { return b.condemned.hasPart(ref.SHA256) })
	b.recall.add(ordinal, rank, refs)
}

// partReads is how many parts are read at the same time.
const partReads = 4

// addParts reads parts into the index. One that is missing or damaged costs
// bytes in the store, nothing else.
func (b *Backup) addParts(ctx context.Context, refs []record.ObjectRef) error {
	slices.SortFunc(refs, compareRefs)
	refs = slices.CompactFunc(refs, func(x, y record.ObjectRef) bool { return x.SHA256 == y.SHA256 })
	x := b.pipeline.index
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(partReads)
	for _, ref := range refs {
		group.Go(func() error {
			x.mu.Lock()
			known := x.byName[ref.SHA256] != nil
			x.mu.Unlock()
			if known {
				return nil
			}
			rows, err := b.r.readPart(ctx, b.layout, ref)
			if isNotExist(err) || errors.Is(err, ErrDamaged) {
				b.r.log.Warn("index part cannot be used; its chunks may be stored again", "part", ref.SHA256, "error", err)
				return nil
			}
			if err != nil {
				return err
			}
			x.mu.Lock()
			defer x.mu.Unlock()
			_, aged := b.agedParts[ref.SHA256]
			x.add(ref, rows, false, aged || b.condemned.hasPart(ref.SHA256))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	return nil
}

// absorb reads the checkpoints of other attempts at this backup that are new
// since the last call.
func (b *Backup) absorb(ctx context.Context) error {
	newest, err := b.newestCheckpoints(ctx)
	if err != nil {
		return err
	}
	for name, found := range newest {
		if last, seen := b.absorbed[name]; seen && last >= found.sequence {
			continue
		}
		if err := b.absorbOne(ctx, name, found); err != nil {
			return err
		}
		b.absorbed[name] = found.sequence
	}
	return nil
}

func (b *Backup) absorbOne(ctx context.Context, name writerName, found foundCheckpoint) error {
	key := b.layout.checkpoint(b.plan.ID, name.ordinal, name.attempt, found.sequence)
	c, err := b.readCheckpoint(ctx, key, found.stored)
	if err != nil {
		if !isNotExist(err) && !unreadable(err) {
			return err
		}
		b.r.log.Warn("checkpoint cannot be used", "key", key, "error", err)
		return nil
	}
	if err := b.addParts(ctx, c.Parts); err != nil {
		return err
	}
	if !b.started { // the pods that run beside this one write other members
		for _, m := range c.Memos {
			b.noteMemos(m.Ordinal, rankCheckpoints, m.Objects)
		}
	}
	if name.attempt == b.attempt {
		b.previous = append(b.previous, c.Parts...)
		for _, m := range c.Memos {
			b.remembered[m.Ordinal] = mergeRefs(b.remembered[m.Ordinal], m.Objects)
		}
	}
	return nil
}

// writerName is one attempt at one member.
type writerName struct {
	ordinal int
	attempt record.AttemptID
}

// foundCheckpoint is what a listing says of a checkpoint.
type foundCheckpoint struct {
	sequence int
	stored   time.Time
}

func (b *Backup) newestCheckpoints(ctx context.Context) (map[writerName]foundCheckpoint, error) {
	newest := make(map[writerName]foundCheckpoint)
	for object, err := range b.r.store.List(ctx, b.layout.backup(b.plan.ID)) {
		if err != nil {
			return nil, fmt.Errorf("list checkpoints: %w", err)
		}
		_, rest, _ := b.layout.parseBackupKey(object.Key)
		ordinal, attempt, sequence, ok := parseCheckpoint(rest)
		if !ok || attempt == b.attempt && b.started {
			continue // our own; those of an earlier container of this pod count
		}
		if attempt == b.attempt {
			b.sequence = max(b.sequence, sequence+1)
		}
		name := writerName{ordinal, attempt}
		if last, seen := newest[name]; !seen || sequence > last.sequence {
			newest[name] = foundCheckpoint{sequence, object.LastModified}
		}
	}
	return newest, nil
}

func (b *Backup) readCheckpoint(ctx context.Context, key string, stored time.Time) (record.Checkpoint, error) {
	data, err := getAll(ctx, b.r.store, key)
	if err != nil {
		return record.Checkpoint{}, err
	}
	var c record.Checkpoint
	if err := b.r.decodeSigned(data, &c, stored); err != nil {
		return record.Checkpoint{}, err
	}
	if c.Backup != b.plan.ID || c.Set != b.layout.set || c.Repository != b.r.config.Repository {
		return record.Checkpoint{}, fmt.Errorf("%w: it is a checkpoint of %s of %s", ErrForged, c.Backup, c.Set)
	}
	return c, nil
}

// listPacks lets the listing judge all packs that the index names: only those
// that are there in their right size, not condemned and not too old are reused.
func (b *Backup) listPacks(ctx context.Context) error {
	table, prefix := b.pipeline.index.packs, b.layout.packs()
	for object, err := range b.r.store.List(ctx, prefix) {
		if err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
		if name, ok := parseHashKey(object.Key, prefix); ok {
			table.listed(name, object.Size, b.condemned.hasPack(name) || b.aged(object))
		}
	}
	if missing := len(table.unlisted()); missing > 0 {
		b.r.log.Warn("packs of the base are missing; their chunks are stored again", "packs", missing)
	}
	return nil
}

// listNewPacks does the same for few packs, one by one.
func (b *Backup) listNewPacks(ctx context.Context) error {
	table := b.pipeline.index.packs
	for _, name := range table.unlisted() {
		for object, err := range b.r.store.List(ctx, b.layout.pack(name)) {
			if err != nil {
				return fmt.Errorf("look for pack %s: %w", name, err)
			}
			table.listed(name, object.Size, b.condemned.hasPack(name) || b.aged(object))
		}
	}
	return nil
}
