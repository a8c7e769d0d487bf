package job

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
)

// Orphans compares the volume snapshots that a provider keeps for a set with
// those that its backups need, in both directions, copies in other regions too.
// It changes nothing.
type Orphans struct {
	Repository  *repository.Repository
	Set         record.SetID
	Snapshotter snapshot.Snapshotter
	// Provider is whose snapshots the Snapshotter keeps.
	Provider string
	// Cluster is the origin that stands on the snapshots.
	Cluster string
	Clock   func() time.Time
}

// OrphansReport is what an Orphans found.
type OrphansReport struct {
	Set string `json:"set"`
	// Needed is how many snapshots the backups need.
	Needed int `json:"needed"`
	// Missing are needed, and the provider does not have them: the members
	// cannot be restored, or of a copy, not in its region.
	Missing []MissingSnapshot `json:"missing"`
	// Orphans are kept, and no backup needs them.
	Orphans []record.VolumeSnapshot `json:"orphans"`
	// Young are kept and not needed by now; a backup that is still running may
	// commit them.
	Young []record.VolumeSnapshot `json:"young"`
}

// MissingSnapshot is a snapshot, or a copy of one, that a member needs and that
// is gone.
type MissingSnapshot struct {
	Backup   record.BackupID       `json:"backup"`
	Ordinal  int                   `json:"ordinal"`
	Snapshot record.VolumeSnapshot `json:"snapshot"`
}

// Run compares. What the records name is read first and the provider asked
// then: a snapshot that a running backup commits meanwhile is young.
func (o *Orphans) Run(ctx context.Context) (*OrphansReport, error) {
	report := &OrphansReport{Set: o.Set.String(), Missing: []MissingSnapshot{}, Orphans: []record.VolumeSnapshot{}, Young: []record.VolumeSnapshot{}}
	needed, err := o.needed(ctx)
	if err != nil {
		return nil, err
	}
	report.Needed = len(needed)
	snapshots := make([]record.VolumeSnapshot, 0, len(needed))
	for _, n := range needed {
		snapshots = append(snapshots, n.Snapshot)
	}
	kept, err := keptWith(ctx, o.Snapshotter, snapshot.Owner{Cluster: o.Cluster, Set: o.Set}, snapshots)
	if err != nil {
		return nil, err
	}
	have := maps.Clone(kept)
	for _, n := range needed {
		name := identity(&n.Snapshot)
		delete(kept, name)
		if have[name].ID == n.Snapshot.ID {
			continue
		}
		lost, err := gone(ctx, o.Snapshotter, n.Snapshot)
		if err != nil {
			return nil, err
		}
		if lost {
			report.Missing = append(report.Missing, n)
		}
	}
	o.sort(kept, report)
	return report, nil
}

// needed are the snapshots that the backups need of the provider, and their
// copies in other regions, each by itself.
func (o *Orphans) needed(ctx context.Context) ([]MissingSnapshot, error) {
	var all []MissingSnapshot
	for n, err := range o.Repository.VolumeSnapshots(ctx, o.Set) {
		if err != nil {
			return nil, err
		}
		if n.Snapshot.Provider != o.Provider {
			continue
		}
		for _, one := range n.Snapshot.Whole() {
			all = append(all, MissingSnapshot{Backup: n.Backup, Ordinal: n.Ordinal, Snapshot: one})
		}
	}
	return all, nil
}

// sort tells orphans from what a running backup may still commit.
func (o *Orphans) sort(kept map[string]snapshot.Ref, report *OrphansReport) {
	config := o.Repository.Config()
	running := config.LongestBackup.Duration() + config.Slack.Duration()
	for _, ref := range kept {
		// What has no time yet is being cut now.
		if ref.CutAt.IsZero() || o.Clock().Sub(ref.CutAt) < running {
			report.Young = append(report.Young, ref)
		} else {
			report.Orphans = append(report.Orphans, ref)
		}
	}
	sortSnapshots(report.Orphans)
	sortSnapshots(report.Young)
}

func sortSnapshots(list []record.VolumeSnapshot) {
	slices.SortFunc(list, func(a, b record.VolumeSnapshot) int {
		return cmp.Or(a.CutAt.Compare(b.CutAt), cmp.Compare(a.ID, b.ID))
	})
}
