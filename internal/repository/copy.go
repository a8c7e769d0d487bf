package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// Copying brings backups into a second store, as they are: the same names, the
// same bytes, the same keys, so that it takes no key, and what is there already
// is not copied again. The copy is the same repository in another place. Towards
// the prunes of that place a copier is a writer, and keeps a writer's order:
// content, plan, a look at what is condemned, a listing of everything, commits.

// CopyOptions say what to copy.
type CopyOptions struct {
	Set record.SetID
	// IDs of backups; empty means all that are complete, suspect or unchecked.
	IDs []record.BackupID
	// DryRun changes nothing.
	DryRun bool
	// Creates: a place that is not there yet would be made. Only a dry run asks.
	Creates bool
	// Done hears of each backup that is in the copy; nil hears nothing.
	Done func(CopiedBackup)
}

// CopyReport is what a Copy did, or in a dry run would do.
type CopyReport struct {
	Set     record.SetID
	Backups []CopiedBackup
	// Copied objects, and those that the copy had already.
	Copied, Present Amount
}

// CopiedBackup is one backup.
type CopiedBackup struct {
	ID record.BackupID
	// Before: it was in the copy already, all of it.
	Before bool
	// Status is what the copy says of it, and Problems why; empty in a dry run.
	Status   Status
	Problems []string
}

const (
	// copyParallel objects are held in memory at the same time.
	copyParallel = 4
	// maxCopied is the largest object, which is the largest pack that readers accept.
	maxCopied = 256 << 20
)

// ErrCopyWaits says that a prune of the copy is about to delete what the backup needs.
var ErrCopyWaits = errors.New("copy has to wait for a prune")

// Copy copies backups, the oldest first, and compares the bytes of every object
// with its name on the way. It can be killed at any point and run again.
// ErrExists when the other store holds another repository, ErrDamaged when an
// object is not what it was, ErrCopyWaits.
func (r *Repository) Copy(ctx context.Context, to storage.Store, o CopyOptions) (CopyReport, error) {
	c := &copier{r: r, to: to, o: o, layout: layout{o.Set}, added: make(map[hash]bool), report: CopyReport{Set: o.Set}}
	infos, err := r.Backups(ctx, o.Set)
	if err != nil {
		return c.report, err
	}
	chosen, err := chooseCopies(infos, o)
	if err != nil {
		return c.report, err
	}
	if err := c.open(ctx); err != nil {
		return c.report, err
	}
	for i := range chosen {
		copied, err := c.backup(ctx, &chosen[i])
		if err != nil {
			return c.report, fmt.Errorf("copy %s of %s: %w", chosen[i].ID, o.Set, err)
		}
		c.report.Backups = append(c.report.Backups, copied)
		if o.Done != nil {
			o.Done(copied)
		}
	}
	return c.report, nil
}

// chooseCopies returns the backups to copy, the oldest first.
func chooseCopies(infos []BackupInfo, o CopyOptions) ([]BackupInfo, error) {
	var chosen []BackupInfo
	for _, id := range o.IDs {
		if !slices.ContainsFunc(infos, func(b BackupInfo) bool { return b.ID == id }) {
			return nil, fmt.Errorf("%w: %s of %s", ErrNoBackup, id, o.Set)
		}
	}
	for _, info := range slices.Backward(infos) {
		named := slices.Contains(o.IDs, info.ID)
		if len(o.IDs) > 0 && !named {
			continue
		}
		switch {
		case info.Condemned:
			if named {
				return nil, fmt.Errorf("%w: %s is about to be deleted", ErrCondemned, info.ID)
			}
		case info.Status == StatusComplete || info.Status == StatusSuspect || info.Status == StatusUnchecked,
			named && info.Status == StatusIncomplete && info.committed() > 0:
			chosen = append(chosen, info)
		case named:
			return nil, fmt.Errorf("%w: %s is %s, and has nothing that could be copied", ErrNoEligible, info.ID, info.Status)
		}
	}
	return chosen, nil
}

// copier copies backups of one set.
type copier struct {
	r      *Repository
	to     storage.Store
	o      CopyOptions
	layout layout
	// there is the repository of the other store; nil in a dry run that would make it.
	there *Repository
	stock []*stock // what the other store had
	added map[hash]bool

	mu     sync.Mutex // of the report
	report CopyReport
}

// open sees that the other store holds this repository, or nothing yet.
func (c *copier) open(ctx context.Context) error {
	config, _, err := loadConfig(ctx, c.to)
	switch {
	case errors.Is(err, storage.ErrNoContainer) && c.o.DryRun && c.o.Creates:
		c.stock = newStocks(c.layout)
		return nil
	case errors.Is(err, ErrNotRepository):
		if err := CheckVacant(ctx, c.to); err != nil {
			return err
		}
		if c.o.DryRun {
			c.stock = newStocks(c.layout)
			return nil
		}
	case err != nil:
		return fmt.Errorf("open the copy: %w", err)
	case config.Repository != c.r.config.Repository:
		return fmt.Errorf("%w there, %s, and not a copy of this one, %s: backups are copied into an empty place, or to where they were copied before",
			ErrExists, config.Repository, c.r.config.Repository)
	}
	if !c.o.DryRun {
		if err := c.frame(ctx); err != nil {
			return err
		}
	}
	if c.there, err = Open(ctx, c.to, Keys{Trusted: c.r.trusted(), Until: c.r.keys.Until}, Options{Clock: c.r.options.Clock, Logger: c.r.log}); err != nil {
		return fmt.Errorf("open the copy: %w", err)
	}
	stock := &prune{r: c.there, layout: c.layout}
	err = stock.takeStock(ctx)
	c.stock = stock.stock
	return err
}

// frame copies what makes the repository one: key files, then the configurations,
// then whose the set is.
func (c *copier) frame(ctx context.Context) error {
	for _, prefix := range []string{prefixKeys, prefixConfig, c.layout.origin()} {
		for object, err := range c.r.store.List(ctx, prefix) {
			if err != nil {
				return fmt.Errorf("list %s: %w", prefix, err)
			}
			if _, ok := c.layout.parseOriginKey(object.Key); prefix == c.layout.origin() && !ok {
				continue
			}
			data, err := getAll(ctx, c.r.store, object.Key)
			if err != nil {
				return err
			}
			if err := put(ctx, c.to, object.Key, data); err != nil {
				return fmt.Errorf("copy: %w", err)
			}
		}
	}
	return nil
}
