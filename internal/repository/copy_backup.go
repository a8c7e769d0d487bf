package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"keepset/internal/record"
)

// This file copies one backup.

// storedCommit is one commit with its bytes, and what it needs.
type storedCommit struct {
	key  string
	data []byte
	refs record.Refs
	at   record.ObjectRef
}

func (c *copier) backup(ctx context.Context, info *BackupInfo) (CopiedBackup, error) {
	copied := CopiedBackup{ID: info.ID}
	before, err := c.before(ctx, info)
	if err != nil {
		return copied, err
	}
	if copied.Before = before; !before {
		commits, err := c.commits(ctx, info)
		if err != nil {
			return copied, err
		}
		needed := needs(commits)
		if err := c.free(ctx, info, needed); err != nil {
			return copied, err
		}
		if err := c.content(ctx, needed); err != nil {
			return copied, err
		}
		if c.o.DryRun {
			return copied, nil
		}
		if err := c.records(ctx, info, commits, needed); err != nil {
			return copied, err
		}
	}
	now, err := c.there.Backup(ctx, c.o.Set, info.ID)
	copied.Status, copied.Problems = now.Status, now.Problems
	return copied, err
}

// before says whether the copy has all of a backup, whatever the times there: its
// records, and what they need. An object that the copy has lost since (a lifecycle rule, a
// hand) is brought again, as by nothing else it would be.
func (c *copier) before(ctx context.Context, info *BackupInfo) (bool, error) {
	if c.there == nil {
		return false, nil
	}
	have, err := c.there.timeless().Backup(ctx, c.o.Set, info.ID)
	if errors.Is(err, ErrNoBackup) {
		return false, nil
	}
	same := have.committed() == info.committed() && have.planHash == info.planHash && len(have.Accepted) >= len(info.Accepted)
	if err != nil || !same || have.Condemned {
		return false, err
	}
	stock := &prune{stock: c.stock}
	for ordinal, m := range have.Members {
		if !m.Valid {
			continue
		}
		refs, err := c.there.readRefs(ctx, c.layout, &m.Commit)
		if err != nil && !isNotExist(err) && !unreadable(err) {
			return false, err
		}
		missing := "its refs cannot be read"
		if err == nil {
			missing = stock.lacks(&refs)
		}
		if missing != "" {
			c.r.log.Warn("the copy has lost something of a backup; it is copied again", "backup", info.ID, "ordinal", ordinal, "lost", missing, "error", err)
			return false, nil
		}
	}
	return true, nil
}

// commits reads the commits of a backup that count, and the refs of each.
func (c *copier) commits(ctx context.Context, info *BackupInfo) ([]storedCommit, error) {
	var list []storedCommit
	for ordinal, m := range info.Members {
		if !m.Valid {
			continue
		}
		s := storedCommit{key: c.layout.commit(info.ID, ordinal, m.Commit.Attempt), at: record.ObjectRef{SHA256: m.Commit.Refs, Size: m.Commit.RefsSize}}
		var err error
		if s.data, err = getAll(ctx, c.r.store, s.key); err != nil {
			return nil, err
		}
		if sha256.Sum256(s.data) != m.sum {
			return nil, fmt.Errorf("%w: %s has changed while it was copied", ErrDamaged, s.key)
		}
		if s.refs, err = c.r.readRefs(ctx, c.layout, &m.Commit); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b storedCommit) int { return a.refs.Ordinal - b.refs.Ordinal })
	return list, nil
}

// needs are the objects of all members, by their place among the stocks.
func needs(commits []storedCommit) [][]record.ObjectRef {
	all := make([][]record.ObjectRef, stockRefs+1)
	for i := range commits {
		s := &commits[i]
		all[stockPacks] = mergeRefs(all[stockPacks], s.refs.Packs)
		all[stockParts] = mergeRefs(all[stockParts], mergeRefs(s.refs.Parts, s.refs.Memos))
		all[stockMaps] = mergeRefs(all[stockMaps], s.refs.Maps)
		all[stockRefs] = mergeRefs(all[stockRefs], []record.ObjectRef{s.at})
	}
	return all
}

// content copies what is needed and the other store does not have.
func (c *copier) content(ctx context.Context, needed [][]record.ObjectRef) error {
	for n, list := range needed {
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(copyParallel)
		for _, ref := range list {
			at, found := c.stock[n].find(ref.SHA256)
			if found && c.stock[n].sizes[at] != ref.Size {
				err := fmt.Errorf("%w: the copy has %s in %d bytes, not %d; delete it there", ErrDamaged, c.stock[n].key(at), c.stock[n].sizes[at], ref.Size)
				return errors.Join(err, group.Wait())
			}
			if found || c.added[ref.SHA256] {
				c.count(&c.report.Present, ref)
				continue
			}
			c.added[ref.SHA256] = true
			group.Go(func() error { return c.object(inner, c.stock[n].prefix+ref.SHA256.String(), ref) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) count(to *Amount, ref record.ObjectRef) {
	c.mu.Lock()
	defer c.mu.Unlock()
	to.add(ref.Size)
}

// object copies one object whose name is the hash of its bytes.
func (c *copier) object(ctx context.Context, key string, ref record.ObjectRef) error {
	if ref.Size > maxCopied {
		return fmt.Errorf("%w: %s is said to have %d bytes, at most %d are read", ErrDamaged, key, ref.Size, maxCopied)
	}
	if !c.o.DryRun {
		data, err := c.r.getContent(ctx, key, ref)
		if err != nil {
			return err
		}
		if err := putContent(ctx, c.to, key, data); err != nil {
			return err
		}
	}
	c.count(&c.report.Copied, ref)
	return nil
}

// records copies what makes the content a backup: acceptances and the plan, then,
// if nothing of it is condemned or missing, the commits. A prune that condemns
// later sees these commits before it deletes anything.
func (c *copier) records(ctx context.Context, info *BackupInfo, commits []storedCommit, needed [][]record.ObjectRef) error {
	planAt, err := c.planOf(ctx, info)
	if err != nil {
		return err
	}
	if err := c.free(ctx, info, needed); err != nil {
		return err
	}
	if err := c.listAll(ctx, needed); err != nil {
		return err
	}
	for _, commit := range commits {
		if err := put(ctx, c.to, commit.key, commit.data); err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		object, err := c.to.Stat(ctx, commit.key)
		if err != nil {
			return fmt.Errorf("look at the copied commit: %w", err)
		}
		if late := object.LastModified.Sub(planAt); late > c.r.longest() {
			return fmt.Errorf("%w: a copy that was killed has left the plan %s ago; all of the backup is there, and backup adopt makes it count", ErrVoid, late.Round(time.Second))
		}
	}
	return nil
}

// planOf copies the records of a backup that come before its commits, and returns
// when the plan was stored there.
func (c *copier) planOf(ctx context.Context, info *BackupInfo) (time.Time, error) {
	plan := c.layout.plan(info.ID)
	for object, err := range c.r.store.List(ctx, c.layout.backup(info.ID)) {
		if err != nil {
			return time.Time{}, fmt.Errorf("list the records of %s: %w", info.ID, err)
		}
		_, rest, _ := c.layout.parseBackupKey(object.Key)
		if object.Key != plan && !parseAccept(rest) {
			continue // checkpoints serve a run that goes on
		}
		data, err := getAll(ctx, c.r.store, object.Key)
		if err != nil {
			return time.Time{}, err
		}
		if object.Key == plan && sha256.Sum256(data) != info.planHash {
			return time.Time{}, fmt.Errorf("%w: %s has changed while it was copied", ErrDamaged, plan)
		}
		if err := put(ctx, c.to, object.Key, data); err != nil {
			return time.Time{}, fmt.Errorf("copy: %w", err)
		}
	}
	object, err := c.to.Stat(ctx, plan)
	if err != nil {
		return time.Time{}, fmt.Errorf("look at the copied plan: %w", err)
	}
	return object.LastModified, nil
}

// free sees that no prune of the copy is about to delete any of what is needed.
func (c *copier) free(ctx context.Context, info *BackupInfo, needed [][]record.ObjectRef) error {
	if c.there == nil {
		return nil // nobody has pruned what is not there
	}
	condemned, err := c.there.condemned(ctx, c.layout)
	switch {
	case err != nil:
		return err
	case condemned.all:
		return fmt.Errorf("%w: a record of it cannot be read: backup status says which, there", ErrCopyWaits)
	case condemned.hasBackup(info.ID):
		return fmt.Errorf("%w: it has condemned the backup there, and deletes it first", ErrCopyWaits)
	}
	for n, list := range needed {
		for _, ref := range list {
			if condemned.names(n, ref.SHA256) {
				return fmt.Errorf("%w: it is about to delete %s there, which the backup needs; copy it once a prune there has done so, a day and two hours after it was condemned",
					ErrCopyWaits, c.stock[n].prefix+ref.SHA256.String())
			}
		}
	}
	return nil
}

// listAll sees with its own eyes that the other store has everything that is needed.
func (c *copier) listAll(ctx context.Context, needed [][]record.ObjectRef) error {
	for n, list := range needed {
		for missing, err := range compareListing(ctx, c.to, c.stock[n].prefix, list) {
			if err != nil {
				return fmt.Errorf("list before the commit: %w", err)
			}
			return fmt.Errorf("%w: in the copy %s; something deletes or changes objects there", ErrDamaged, missing)
		}
	}
	return nil
}
