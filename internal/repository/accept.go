package repository

import (
	"context"
	"fmt"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// acceptance is what the user has accepted of a backup, by the hashes of the
// records that were looked at.
type acceptance struct {
	// times: the store's times of these plans and commits say nothing.
	times map[hash]bool
	// suspect: these commits count as complete.
	suspect map[hash]bool
}

// readAccepted reads the records of acceptance of one backup. One that does not
// count is a problem of the backup, and accepts nothing.
func (r *Repository) readAccepted(ctx context.Context, l layout, info *BackupInfo, objects []storage.Object) error {
	info.accepted = acceptance{times: make(map[hash]bool), suspect: make(map[hash]bool)}
	for _, object := range objects {
		var a record.Accept
		data, err := getAll(ctx, r.store, object.Key)
		if isNotExist(err) {
			continue // deleted during the listing
		}
		if err != nil {
			return err
		}
		if err = r.decodeSigned(data, &a, object.LastModified); err == nil && (a.Backup != info.ID || a.Set != l.set || a.Repository != r.config.Repository) {
			err = fmt.Errorf("%w: it is of %s of %s in repository %s", ErrForged, a.Backup, a.Set, a.Repository)
		}
		if err != nil {
			info.Problems = append(info.Problems, fmt.Sprintf("%s accepts nothing: %v", object.Key, err))
			continue
		}
		info.accepted.add(&a)
		info.Accepted = append(info.Accepted, a)
	}
	return nil
}

func (a *acceptance) add(rec *record.Accept) {
	to := a.suspect
	if rec.Doubt == record.DoubtTimes {
		to = a.times
		to[rec.PlanSHA256] = true
	}
	for _, c := range rec.Commits {
		to[c] = true
	}
}

// Accept says that a suspect backup is good as it is: it then counts as complete
// for everybody. In a signed repository it takes the writer's key (ErrNoKey).
// Nil when there is nothing to accept, as the backup is complete; ErrNoEligible
// when it is something else, ErrCondemned when it is about to go. With dryRun
// nothing is stored.
func (r *Repository) Accept(ctx context.Context, set record.SetID, id record.BackupID, reason string, dryRun bool) (*record.Accept, error) {
	if err := r.canSign(); err != nil {
		return nil, fmt.Errorf("accept a backup: %w", err)
	}
	info, err := r.Backup(ctx, set, id)
	if err != nil {
		return nil, err
	}
	switch {
	case info.Status == StatusComplete:
		return nil, nil
	case info.Status != StatusSuspect:
		return nil, fmt.Errorf("%w: %s of %s is %s, and only what is suspect can be accepted", ErrNoEligible, id, set, info.Status)
	case info.Condemned:
		return nil, fmt.Errorf("%w: it is too late to accept %s", ErrCondemned, id)
	}
	rec := r.newAccept(&info, record.DoubtSuspect, reason)
	for _, m := range info.Members {
		if m.Valid && m.Suspect() {
			rec.Commits = append(rec.Commits, m.sum)
		}
	}
	record.SortHashes(rec.Commits)
	if dryRun {
		return &rec, nil
	}
	if err := r.storeAccept(ctx, &rec); err != nil {
		return nil, err
	}
	if info, err = r.Backup(ctx, set, id); err != nil {
		return nil, fmt.Errorf("look at the accepted backup: %w", err)
	}
	if info.Status != StatusComplete || info.Condemned {
		return nil, fmt.Errorf("%w: %s is stored, and the backup is %s all the same: somebody changes it at this moment", ErrNoEligible, id, info.Status)
	}
	return &rec, nil
}

// canSign says what keeps an acceptance from being written.
func (r *Repository) canSign() error {
	switch {
	case r.options.AcceptCopiedTimes:
		return ErrReadOnly
	case r.Signed() && r.keys.Writer == nil:
		return fmt.Errorf("%w: this repository is signed; set %s", ErrNoKey, NameWriterKey)
	}
	return nil
}

func (r *Repository) newAccept(info *BackupInfo, doubt, reason string) record.Accept {
	return record.Accept{
		Header: record.NewHeader(record.KindAccept), Repository: r.config.Repository, Set: info.Set, Backup: info.ID,
		Doubt: doubt, PlanSHA256: info.planHash, CreatedAt: r.options.Clock().UTC(), Reason: reason,
	}
}

// storeAccept stores it under a name of its own: another doubt, or another
// attempt's commit, may have to be accepted later.
func (r *Repository) storeAccept(ctx context.Context, rec *record.Accept) error {
	data, err := record.Encode(rec, r.keys.Writer)
	if err != nil {
		return err
	}
	if err := put(ctx, r.store, layout{rec.Set}.accept(rec.Backup, record.NewAttemptID()), data); err != nil {
		return fmt.Errorf("accept %s: %w", rec.Backup, err)
	}
	return nil
}
