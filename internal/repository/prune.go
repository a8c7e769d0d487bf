package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"keepset/internal/record"
)

// Pruning condemns in one run and deletes in a later one. In between lies the
// time that a backup may take: a writer that had not seen the condemnation has
// committed by then, and its commit is found, or never counts. docs/format.md
// has the protocol. It needs no key, and knows no clock but the store's.

// Sentinels of pruning that callers decide on; they arrive wrapped.
var (
	// ErrNewest: the newest complete backup of a set goes only if the caller insists.
	ErrNewest = errors.New("newest complete backup stays")
	// ErrCondemned: a prune is about to delete the backup.
	ErrCondemned = errors.New("backup is condemned")
	// ErrPinned: the user has pinned the backup.
	ErrPinned = errors.New("backup is pinned")
	// ErrConcurrentPrune: another prune condemns other backups of the set.
	ErrConcurrentPrune = errors.New("another prune is under way")
)

// PruneOptions say what to prune.
type PruneOptions struct {
	Set record.SetID
	// Choose names the backups that go, of those there are; nil names none. It
	// is asked once. Those that are condemned already need not be named, pinned
	// ones must not be.
	Choose func(PruneView) ([]record.BackupID, error)
	// Force lets the newest complete backup be condemned.
	Force bool
	// DryRun changes nothing.
	DryRun bool
	// Release deletes volume snapshots that no backup needs any more, from
	// whoever keeps them; now is the store's clock. It is called after the
	// commits that named them are gone, and called again by a later prune when it fails.
	// Nil leaves them where they are.
	Release func(ctx context.Context, now time.Time, list []NeededSnapshot) error
}

// PruneView is what Choose chooses from.
type PruneView struct {
	// Backups of the set, the newest first.
	Backups []BackupInfo
	// Now is the store's clock. In a dry run it is the newest time that a
	// record of the set bears, as the clock is read by writing.
	Now time.Time
}

// PruneReport is what a prune did, or in a dry run would do.
type PruneReport struct {
	Set    record.SetID
	DryRun bool
	// Now is the store's clock when the prune began; see PruneView.
	Now time.Time
	// Condemned backups, by this run, and Finished ones that an earlier one had
	// condemned and not deleted. The records of both are deleted.
	Condemned, Finished []record.BackupID
	// Marked objects are condemned by this run. They are deleted by the first
	// prune after Due, if nothing has come to need them.
	Marked Amount
	Due    time.Time
	// Deletable objects were condemned by earlier runs and are due.
	Deletable Amount
	// Waiting are condemned by earlier runs and not due yet.
	Waiting Amount
	// Freed objects are deleted, records included, and their bytes are gone.
	Freed Amount
	// Hidden objects are deleted likewise, and the store keeps their bytes as older
	// versions: no space is freed before it lets them go.
	Hidden Amount
	// Needed is what the backups that stay need.
	Needed Amount
	// HalfDead are the packs among them that were written by backups which are
	// gone. How much in them is still needed only a key would tell; it is the
	// most that packing them anew could free.
	HalfDead Amount
	// VolumeSnapshots that no backup needs any more.
	VolumeSnapshots []NeededSnapshot
}

// Amount is a number of objects, and their bytes in the store.
type Amount struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (a *Amount) add(size int64) {
	a.Objects++
	a.Bytes += size
}

// Prune plans, and unless it is a dry run executes the plan. It needs no key
// but the writers' public ones: ErrNoTrusted without them in a signed
// repository. ErrUncertain when a record cannot be read, so that nothing was
// deleted; ErrNewest when nothing complete would be left; ErrConcurrentPrune.
func (r *Repository) Prune(ctx context.Context, o PruneOptions) (report PruneReport, err error) {
	report = PruneReport{Set: o.Set, DryRun: o.DryRun}
	if err := o.Set.Validate(); err != nil {
		return report, err
	}
	if r.options.AcceptCopiedTimes {
		return report, fmt.Errorf("prune: %w: the times of a copy say nothing", ErrReadOnly)
	}
	if r.Signed() && len(r.trusted()) == 0 {
		return report, fmt.Errorf("prune: %w: set %s, or nobody knows which backups are good", ErrNoTrusted, NameTrustedWriters)
	}
	p := &prune{r: r, layout: layout{o.Set}, o: o, report: &report}
	if !o.DryRun {
		if err := p.readClock(ctx); err != nil {
			return report, fmt.Errorf("prune %s: %w", o.Set, err)
		}
	}
	if err = p.plan(ctx); err == nil && !o.DryRun {
		err = p.execute(ctx)
	}
	if p.clock != "" && ctx.Err() == nil { // it names nothing, so that one that is left does no harm
		err = errors.Join(err, r.store.Delete(ctx, p.clock))
	}
	if err != nil {
		return report, fmt.Errorf("prune %s: %w", o.Set, err)
	}
	return report, nil
}

// prune is one run over one set.
type prune struct {
	r      *Repository
	layout layout
	o      PruneOptions
	report *PruneReport

	// clock is the key of the empty record by which the store's clock was read.
	clock string
	now   time.Time
	infos []BackupInfo
	// records that earlier runs have left, by key.
	records map[string]pruneRecord
	// chosen by this run; doomed are these and what earlier ones have condemned.
	chosen []record.BackupID
	doomed map[record.BackupID]bool
	stock  []*stock
	// snapshots that the backups which stay need.
	snapshots map[string]bool
	// released are those that only condemned ones need.
	released []NeededSnapshot
	condemns *record.Prune // what this run condemns
	due      []dueRecord
}

// longestSlack is L+S: what is older was not written by a run that may still commit.
func (p *prune) longestSlack() time.Duration {
	return p.r.longest() + p.r.config.Slack.Duration()
}

// matures is when what a record of that time condemns may be deleted.
func (p *prune) matures(at time.Time) time.Time {
	return at.Add(p.longestSlack() + p.r.config.Slack.Duration())
}

// plan finds out what is to be done. It changes nothing.
func (p *prune) plan(ctx context.Context) error {
	if err := p.readRecords(ctx); err != nil {
		return err
	}
	infos, err := p.r.Backups(ctx, p.o.Set)
	if err != nil {
		return err
	}
	p.infos = infos
	if err := p.r.ReadDrills(ctx, p.o.Set, p.infos); err != nil {
		return err
	}
	if p.o.DryRun {
		p.now = p.newestTime()
	}
	p.report.Now = p.now
	if err := p.choose(); err != nil {
		return err
	}
	if err := p.takeStock(ctx); err != nil {
		return err
	}
	if err := p.mark(ctx); err != nil {
		return err
	}
	if err := p.condemn(ctx); err != nil {
		return err
	}
	return p.findReleased(ctx)
}

// newestTime is the latest that the store's clock is known to have reached.
func (p *prune) newestTime() time.Time {
	var newest time.Time
	later := func(t time.Time) {
		if t.After(newest) {
			newest = t
		}
	}
	for _, rec := range p.records {
		later(rec.at)
	}
	for i := range p.infos {
		later(p.infos[i].PlanTime)
		for _, m := range p.infos[i].Members {
			later(m.CommitTime)
		}
	}
	return newest
}

// choose asks which backups go, and sees that the newest complete one stays.
func (p *prune) choose() error {
	p.doomed = make(map[record.BackupID]bool)
	for i := range p.infos {
		info := &p.infos[i]
		if info.Condemned && !info.Pinned {
			p.doomed[info.ID] = true
			p.report.Finished = append(p.report.Finished, info.ID)
		}
	}
	if p.o.Choose != nil {
		chosen, err := p.o.Choose(PruneView{Backups: slices.Clone(p.infos), Now: p.now})
		if err != nil {
			return err
		}
		for _, id := range chosen {
			if err := p.take(id); err != nil {
				return err
			}
		}
	}
	return p.newestStays()
}

func (p *prune) take(id record.BackupID) error {
	at := slices.IndexFunc(p.infos, func(info BackupInfo) bool { return info.ID == id })
	switch {
	case at < 0:
		return fmt.Errorf("%w: %s of %s", ErrNoBackup, id, p.o.Set)
	case p.infos[at].Pinned:
		return fmt.Errorf("%w: unpin %s first", ErrPinned, id)
	case p.doomed[id]:
		return nil
	}
	p.chosen = append(p.chosen, id)
	p.doomed[id] = true
	p.report.Condemned = append(p.report.Condemned, id)
	return nil
}

// newestStays also holds when two runs have each condemned what the other one
// kept, and were both killed before they could see it.
func (p *prune) newestStays() error {
	if p.o.Force {
		return nil
	}
	newest, condemned := -1, false
	for i := range p.infos {
		info := &p.infos[i]
		if info.Status != StatusComplete {
			continue
		}
		if info.Condemned && !info.Pinned {
			condemned = true
			continue
		}
		if newest < 0 || info.CapturedAt().After(p.infos[newest].CapturedAt()) {
			newest = i
		}
	}
	switch {
	case newest >= 0 && p.doomed[p.infos[newest].ID]:
		return fmt.Errorf("%w: it is %s", ErrNewest, p.infos[newest].ID)
	case newest < 0 && condemned:
		return fmt.Errorf("%w: every complete backup is condemned, and none is deleted before there is another one", ErrNewest)
	}
	return nil
}
