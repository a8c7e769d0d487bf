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
	"keepset/internal/storage"
)

// Status is what a backup is, judged from its plan and commits.
type Status string

// The states of a backup.
const (
	// StatusComplete: every planned member has a valid commit, none suspect.
	StatusComplete Status = "complete"
	// StatusSuspect: complete, but for a doubt that the run recorded.
	StatusSuspect Status = "suspect"
	// StatusUnchecked: every planned member has a commit, and whose they are
	// is not known: the repository is signed and no trusted key was given.
	StatusUnchecked Status = "unchecked"
	// StatusIncomplete: a planned member has no valid commit.
	StatusIncomplete Status = "incomplete"
	// StatusInvalid: the plan is missing, unreadable, forged or quarantined.
	StatusInvalid Status = "invalid"
)

// Statuses lists them, the best first.
func Statuses() []Status {
	return []Status{StatusComplete, StatusSuspect, StatusUnchecked, StatusIncomplete, StatusInvalid}
}

// BackupInfo is what the store knows of one backup.
type BackupInfo struct {
	Set record.SetID
	ID  record.BackupID
	// Plan is the zero plan when Status is StatusInvalid.
	Plan record.Plan
	// PlanTime is the store's clock when the plan was stored.
	PlanTime time.Time
	// Members by ordinal, those that have a commit, valid or not.
	Members map[int]MemberInfo
	Status  Status
	// Condemned: a prune has marked it; it is about to go.
	Condemned bool
	// Pinned: no prune removes it.
	Pinned bool
	// Accepted are the doubts that the user has set aside.
	Accepted []record.Accept
	// Drills that it went through, the newest first; filled by [Repository.ReadDrills] alone.
	Drills []Drill
	// Unchecked: the repository is signed and no trusted key was given.
	Unchecked bool
	// Problems, each a line for the user; empty when all is well.
	Problems []string

	planHash hash
	accepted acceptance
	faults   []fault
	// planLost: there are commits whose signature is right, and the plan that
	// they were made for is not there any more.
	planLost bool
}

// InDoubt says why nobody knows what the backup is; empty when it is what its
// Status says. A plan or commit that does not count is a reason, as it may be a good
// one that was damaged, copied or overwritten, but for a commit that came too late.
func (b *BackupInfo) InDoubt() string {
	if b.Status == StatusUnchecked {
		return "signatures were not checked"
	}
	for _, f := range b.faults {
		if f.ordinal == everyOrdinal || !b.Members[f.ordinal].Valid && !errors.Is(f.err, ErrVoid) {
			return f.problem
		}
	}
	return ""
}

// MemberInfo is one member's commit: of several valid ones the earliest, of
// none valid the earliest invalid one.
type MemberInfo struct {
	Commit record.Commit
	// CommitTime is the store's clock.
	CommitTime time.Time
	Valid      bool
	// Why it is not valid.
	Why string
	// Accepted: it is suspect, and the user has said that it is good.
	Accepted bool

	sum hash // of the stored commit
}

// Suspect says whether the member is in doubt: its run found it so, and nobody
// has accepted it.
func (m *MemberInfo) Suspect() bool {
	return m.Commit.Status == record.StatusSuspect && !m.Accepted
}

// Copied says that the times at which the backup was stored say nothing, as it
// was adopted from a copy.
func (b *BackupInfo) Copied() bool { return b.accepted.times[b.planHash] }

// Sets lists the sets that have anything stored, in order.
func (r *Repository) Sets(ctx context.Context) ([]record.SetID, error) {
	seen := make(map[record.SetID]bool)
	for object, err := range r.store.List(ctx, prefixSets) {
		if err != nil {
			return nil, fmt.Errorf("list sets: %w", err)
		}
		if set, _, ok := parseSetKey(object.Key); ok {
			seen[set] = true
		}
	}
	sets := make([]record.SetID, 0, len(seen))
	for set := range seen {
		sets = append(sets, set)
	}
	slices.SortFunc(sets, func(a, b record.SetID) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return sets, nil
}

// Backups lists all backups of a set, the newest first. None is dropped for
// being unreadable: it appears with its Problems.
func (r *Repository) Backups(ctx context.Context, set record.SetID) ([]BackupInfo, error) {
	return r.backups(ctx, set, "")
}

// Backup returns one backup; ErrNoBackup when there is none of that ID.
func (r *Repository) Backup(ctx context.Context, set record.SetID, id record.BackupID) (BackupInfo, error) {
	if err := id.Validate(); err != nil {
		return BackupInfo{}, err
	}
	list, err := r.backups(ctx, set, id)
	if err != nil {
		return BackupInfo{}, err
	}
	if len(list) == 0 {
		return BackupInfo{}, fmt.Errorf("%w: %s of %s", ErrNoBackup, id, set)
	}
	return list[0], nil
}

// found is what the listings say of one backup.
type found struct {
	plan             storage.Object
	commits, accepts []storage.Object
}

// listReads is how many small records are read at the same time.
const listReads = 16

func (r *Repository) backups(ctx context.Context, set record.SetID, only record.BackupID) ([]BackupInfo, error) {
	if err := set.Validate(); err != nil {
		return nil, err
	}
	l := layout{set}
	all, err := r.findBackups(ctx, l, only)
	if err != nil {
		return nil, err
	}
	condemned, err := r.condemned(ctx, l)
	if err != nil {
		return nil, err
	}
	pinned, err := r.pinned(ctx, l)
	if err != nil {
		return nil, err
	}
	infos := make([]BackupInfo, 0, len(all))
	for id := range all {
		infos = append(infos, BackupInfo{Set: set, ID: id, Condemned: condemned.hasBackup(id), Pinned: pinned[id]})
	}
	slices.SortFunc(infos, func(a, b BackupInfo) int { return cmp.Compare(b.ID, a.ID) })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listReads)
	for i := range infos {
		group.Go(func() error { return r.judge(ctx, l, &infos[i], all[infos[i].ID]) })
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("list backups of %s: %w", set, err)
	}
	slices.SortStableFunc(infos, laterFirst)
	return infos, nil
}

// laterFirst orders backups by their IDs' times, which are whole seconds, and
// those of one second by when their plans were made.
func laterFirst(a, b BackupInfo) int {
	return cmp.Or(b.ID.Time().Compare(a.ID.Time()), b.Plan.CreatedAt.Compare(a.Plan.CreatedAt))
}

func (r *Repository) findBackups(ctx context.Context, l layout, only record.BackupID) (map[record.BackupID]*found, error) {
	all := make(map[record.BackupID]*found)
	entry := func(id record.BackupID) *found {
		if all[id] == nil {
			all[id] = &found{}
		}
		return all[id]
	}
	prefixBackups, prefixCommits := l.backups(), l.commits()
	if only != "" {
		prefixBackups += string(only) + "/"
		prefixCommits += string(only) + "/"
	}
	// A commit is written after its plan: listed first, none is seen without it.
	for object, err := range r.store.List(ctx, prefixCommits) {
		if err != nil {
			return nil, fmt.Errorf("list commits of %s: %w", l.set, err)
		}
		if id, _, _, ok := l.parseCommitKey(object.Key); ok {
			e := entry(id)
			e.commits = append(e.commits, object)
		}
	}
	for object, err := range r.store.List(ctx, prefixBackups) {
		if err != nil {
			return nil, fmt.Errorf("list plans of %s: %w", l.set, err)
		}
		if id, rest, ok := l.parseBackupKey(object.Key); ok {
			switch e := entry(id); {
			case rest == "plan":
				e.plan = object
			case parseAccept(rest):
				e.accepts = append(e.accepts, object)
			}
		}
	}
	return all, nil
}
