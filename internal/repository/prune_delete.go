package repository

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// This file is the part of a prune that deletes. Its order is what a crash
// relies on: the record that condemns comes before the first deletion and goes after the
// last one; a backup loses its commits before its plan.

func (p *prune) execute(ctx context.Context) error {
	if err := p.storeCondemned(ctx); err != nil {
		return err
	}
	if err := p.deleteCommits(ctx); err != nil {
		return err
	}
	if len(p.released) > 0 && p.o.Release != nil {
		if err := p.o.Release(ctx, p.now, p.released); err != nil {
			return fmt.Errorf("delete volume snapshots: %w", err)
		}
	}
	if err := p.deleteRecords(ctx); err != nil {
		return err
	}
	if err := p.deleteReports(ctx); err != nil {
		return err
	}
	for _, due := range p.due {
		if err := p.deleteDue(ctx, due); err != nil {
			return err
		}
	}
	return nil
}

// deleteCommits makes the condemned backups none.
func (p *prune) deleteCommits(ctx context.Context) error {
	for i := range p.infos {
		if id := p.infos[i].ID; p.doomed[id] {
			if err := p.deleteBelow(ctx, p.layout.commits()+string(id)+"/", nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteRecords deletes the rest of them, the plan last: as long as it is
// there the next prune finds the backup and goes on.
func (p *prune) deleteRecords(ctx context.Context) error {
	for i := range p.infos {
		id := p.infos[i].ID
		if !p.doomed[id] {
			continue
		}
		for _, prefix := range []string{p.layout.reports(), p.layout.proofs()} {
			if err := p.deleteBelow(ctx, prefix+string(id)+".", nil); err != nil {
				return err
			}
		}
		// In key order: checkpoints begin with a digit, and the plan is the last.
		if err := p.deleteBelow(ctx, p.layout.backup(id), nil); err != nil {
			return err
		}
	}
	return nil
}

// deleteReports deletes the reports and proofs of runs that have left nothing else.
func (p *prune) deleteReports(ctx context.Context) error {
	known := make(map[record.BackupID]bool)
	for i := range p.infos {
		known[p.infos[i].ID] = true
	}
	ownerless := func(parse func(string) (record.BackupID, bool)) func(storage.Object) bool {
		return func(o storage.Object) bool {
			id, ok := parse(o.Key)
			return ok && !known[id] && p.oldEnough(o.LastModified)
		}
	}
	if err := p.deleteBelow(ctx, p.layout.proofs(), ownerless(p.layout.parseProofKey)); err != nil {
		return err
	}
	return p.deleteBelow(ctx, p.layout.reports(), ownerless(p.layout.parseReportKey))
}

// deleteDue deletes what a record has condemned, then the record.
func (p *prune) deleteDue(ctx context.Context, due dueRecord) error {
	for n, s := range p.stock {
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(listReads)
		kept := make([]bool, len(due.objects[n])) // each goroutine has its own
		for i, at := range due.objects[n] {
			group.Go(func() (err error) {
				kept[i], err = storage.Remove(inner, p.r.store, s.key(at))
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return fmt.Errorf("delete what is condemned: %w", err)
		}
		for i, at := range due.objects[n] {
			if p.stock[n].gone.add(at) {
				p.count(s.sizes[at], kept[i])
			}
		}
	}
	return p.remove(ctx, storage.Object{Key: due.key, Size: p.records[due.key].size})
}

// deleteBelow deletes the objects of a prefix, or those that only names.
func (p *prune) deleteBelow(ctx context.Context, prefix string, only func(storage.Object) bool) error {
	var objects []storage.Object
	for object, err := range p.r.store.List(ctx, prefix) {
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if only == nil || only(object) {
			objects = append(objects, object)
		}
	}
	for _, object := range objects {
		if err := p.remove(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

func (p *prune) remove(ctx context.Context, o storage.Object) error {
	kept, err := storage.Remove(ctx, p.r.store, o.Key)
	if err != nil {
		return err
	}
	p.count(o.Size, kept)
	return nil
}

// count notes what was deleted.
func (p *prune) count(size int64, kept bool) {
	if kept {
		p.report.Hidden.add(size)
	} else {
		p.report.Freed.add(size)
	}
}
