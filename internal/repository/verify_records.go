package repository

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"keepset/internal/record"
)

// This file verifies what says that backups exist at all: plans, commits, and
// that none of them is gone without a trace in the listing.

// records notes the plans and commits that do not count as damages, and what
// else is wrong with the backup as notes.
func (v *verifier) records(info *BackupInfo) {
	told := make(map[string]bool)
	if !info.Condemned { // a prune deletes those, one object after the other
		for _, f := range info.faults {
			if f.replaced && info.Members[f.ordinal].Valid {
				continue // another attempt has committed for the plan that counts
			}
			told[f.problem] = true
			v.damage(f.key, f.what)
			for _, ordinal := range slices.Sorted(maps.Keys(info.Members)) {
				if !info.Members[ordinal].Valid && (f.ordinal == everyOrdinal || f.ordinal == ordinal) {
					v.harm(f.key, wholeMember(info, ordinal))
				}
			}
		}
	}
	for _, problem := range info.Problems {
		if !told[problem] {
			v.note(info, problem)
		}
	}
}

func (v *verifier) note(info *BackupInfo, problem string) {
	v.report.Problems = append(v.report.Problems, fmt.Sprintf("%s of %s: %s", info.ID, info.Set, problem))
}

func harmOf(info *BackupInfo, ordinal int) Harm {
	planned, _ := info.Plan.Member(ordinal)
	return Harm{Set: info.Set, Backup: info.ID, Ordinal: ordinal, Member: planned.Name}
}

func wholeMember(info *BackupInfo, ordinal int) Harm {
	h := harmOf(info, ordinal)
	h.Note = "the whole member"
	return h
}

// lostCommits notes the members whose refs are stored and whose commit is not,
// although their run has ended: the commit has been deleted. It is no damage,
// as a run that failed between the two writes leaves the same, and the
// run's report, which would tell, is encrypted.
func (v *verifier) lostCommits(ctx context.Context, all []BackupInfo) error {
	known, open := make(map[hash]bool), make(map[record.BackupID]*BackupInfo)
	for i := range all {
		for _, member := range all[i].Members {
			if member.Valid {
				known[member.Commit.Refs] = true
			}
		}
	}
	for i := range v.infos {
		if info := &v.infos[i]; info.Status == StatusIncomplete && !info.Condemned {
			open[info.ID] = info
		}
	}
	if len(open) == 0 {
		return nil
	}
	for object, err := range v.r.store.List(ctx, v.layout.refs()) {
		if err != nil {
			return fmt.Errorf("list refs: %w", err)
		}
		name, ok := parseHashKey(object.Key, v.layout.refs())
		if !ok || known[name] {
			continue
		}
		data, err := getAll(ctx, v.r.store, object.Key)
		if isNotExist(err) {
			continue // a prune was faster
		}
		if err != nil {
			return err
		}
		var refs record.Refs
		if _, err := record.Decode(data, &refs, nil); err != nil || hash(sha256.Sum256(data)) != name {
			continue // nothing refers to it, so it harms nobody
		}
		if err := v.lostCommit(ctx, open[refs.Backup], &refs); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) lostCommit(ctx context.Context, info *BackupInfo, refs *record.Refs) error {
	if info == nil {
		return nil
	}
	_, committed := info.Members[refs.Ordinal]
	if _, planned := info.Plan.Member(refs.Ordinal); committed || !planned {
		return nil
	}
	if ended, err := v.ended(ctx, info, refs.Attempt); err != nil || !ended {
		return err
	}
	key := v.layout.commit(refs.Backup, refs.Ordinal, refs.Attempt)
	// A run that went on while we listed has committed by now.
	if there, err := v.exists(ctx, key); err != nil || there {
		return err
	}
	v.note(info, fmt.Sprintf("ordinal %d has refs and no commit: its run failed right before it, or %s was deleted", refs.Ordinal, key))
	return nil
}

// ended says whether an attempt at a backup is over: it has left its report,
// or it has had all the time that a backup may take.
func (v *verifier) ended(ctx context.Context, info *BackupInfo, attempt record.AttemptID) (bool, error) {
	if !v.young(info) {
		return true, nil
	}
	return v.exists(ctx, v.layout.report(info.ID, attempt))
}

// young says whether a backup may still be running.
func (v *verifier) young(info *BackupInfo) bool {
	return v.r.options.Clock().Sub(info.PlanTime) <= v.r.longest()
}

func (v *verifier) exists(ctx context.Context, key string) (bool, error) {
	_, err := v.r.store.Stat(ctx, key)
	if isNotExist(err) {
		return false, nil
	}
	return err == nil, err
}

// anythingLeft says so when the set has objects, or backups, and nothing of
// it can be restored.
func (v *verifier) anythingLeft(ctx context.Context) error {
	if len(v.o.IDs) > 0 || len(v.damages) > 0 {
		return nil
	}
	if len(v.infos) == 0 {
		return v.withoutBackups(ctx)
	}
	var running *BackupInfo
	first := true // no backup has had all the time that one may take
	for i := range v.infos {
		info := &v.infos[i]
		for _, member := range info.Members {
			if member.Valid {
				return nil
			}
		}
		switch {
		case info.Condemned:
		case info.Status == StatusIncomplete && v.young(info):
			running = info
		default:
			first = false
		}
	}
	if running != nil && first {
		v.note(running, "nothing of the set can be restored yet: this backup may still be running, and no other has a commit that counts")
		return nil
	}
	v.damage(v.layout.commits(), "no backup of the set has a commit that counts: none has ever been finished, or the commits were deleted")
	for i := range v.infos {
		for _, planned := range v.infos[i].Plan.Members {
			v.harm(v.layout.commits(), wholeMember(&v.infos[i], planned.Ordinal))
		}
	}
	return nil
}

// withoutBackups looks at a set that had no plan and no commit. Of what a
// backup writes the plan comes first, but for the origin, so that where anything
// is left there has to be a plan, or one that was written since, or a prune has
// deleted the last one by the user's word.
func (v *verifier) withoutBackups(ctx context.Context) error {
	for _, err := range v.r.store.List(ctx, v.layout.prunes()) {
		if err != nil {
			return fmt.Errorf("list prune records: %w", err)
		}
		v.report.Problems = append(v.report.Problems, fmt.Sprintf("%s has no backup any more, and the next prunes delete what is left of them", v.layout.set))
		return nil
	}
	for object, err := range v.r.store.List(ctx, v.layout.root()) {
		if err != nil {
			return fmt.Errorf("list what is left: %w", err)
		}
		if _, ok := v.layout.parseOriginKey(object.Key); ok {
			continue
		}
		now, err := v.r.findBackups(ctx, v.layout, "")
		if err != nil {
			return err
		}
		if len(now) > 0 {
			v.report.Problems = append(v.report.Problems, begunMeanwhile(v.layout.set))
			return nil
		}
		v.damage(v.layout.backups(), "no plan and no commit is here, and the set has other objects: its records were deleted")
		return nil
	}
	return nil
}

func begunMeanwhile(set record.SetID) string {
	return fmt.Sprintf("the first backup of %s has begun while this looked; verify again later", set)
}

// noSets looks at a repository that has no set: it is new, or damaged.
func (r *Repository) noSets(ctx context.Context, report *VerifyReport) error {
	for object, err := range r.store.List(ctx, prefixSets) {
		if err != nil {
			return fmt.Errorf("list what is left: %w", err)
		}
		if set, _, ok := parseSetKey(object.Key); ok {
			report.Problems = append(report.Problems, begunMeanwhile(set))
			return nil
		}
		report.Damages = append(report.Damages, Damage{Key: object.Key, What: "it belongs to no set, and there is none"})
		return nil
	}
	report.Problems = append(report.Problems, "the repository is empty: it holds no backup of any set")
	return nil
}
