package repository

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keepset/internal/record"
)

// This file is what a repository tells of the jobs that work on it, to those
// who watch them: only listings and small records, no key.

// Ended says whether an attempt at a backup has come to its end, well or not:
// the report is the last thing that it stores. Another attempt may be at work.
func (r *Repository) Ended(ctx context.Context, set record.SetID, id record.BackupID) (bool, error) {
	if err := errors.Join(set.Validate(), id.Validate()); err != nil {
		return false, err
	}
	for _, err := range r.store.List(ctx, layout{set}.reports()+string(id)+".") {
		if err != nil {
			return false, fmt.Errorf("list the reports of %s: %w", id, err)
		}
		return true, nil
	}
	return false, nil
}

// Backlog is what prunes of a set have condemned and not deleted yet.
type Backlog struct {
	// Records that condemn anything; 0 when there is nothing to delete.
	Records int
	// Due is when the earliest of them may be deleted: the first prune after
	// that has to.
	Due time.Time
}

// Backlog reads the prune records of a set. ErrUncertain when one cannot be
// read, on which every prune stops.
func (r *Repository) Backlog(ctx context.Context, set record.SetID) (Backlog, error) {
	if err := set.Validate(); err != nil {
		return Backlog{}, err
	}
	p := &prune{r: r, layout: layout{set}, o: PruneOptions{Set: set}, report: &PruneReport{}}
	if err := p.readRecords(ctx); err != nil {
		return Backlog{}, fmt.Errorf("read what prunes of %s have condemned: %w", set, err)
	}
	var b Backlog
	for _, rec := range p.records {
		c := &rec.prune
		if len(c.Backups)+len(c.Packs)+len(c.Parts)+len(c.Maps)+len(c.Refs) == 0 {
			continue // somebody looked at the clock
		}
		b.Records++
		if due := p.matures(rec.at); b.Due.IsZero() || due.Before(b.Due) {
			b.Due = due
		}
	}
	return b, nil
}

// Took is how long a complete backup took, 0 for others.
func (b *BackupInfo) Took() time.Duration {
	if b.Status != StatusComplete {
		return 0
	}
	var end time.Time
	for _, m := range b.Members {
		if m.Commit.FinishedAt.After(end) {
			end = m.Commit.FinishedAt
		}
	}
	return end.Sub(b.Plan.CreatedAt)
}
