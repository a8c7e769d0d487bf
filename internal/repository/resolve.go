package repository

import (
	"context"
	"fmt"
	"strings"
	"time"

	"keepset/internal/record"
)

// Selector says which backup is meant: ID, else the newest that was captured
// not after At, else the newest.
type Selector struct {
	ID record.BackupID
	At time.Time
	// Allow lets an ID name an incomplete or suspect backup.
	Allow bool
	// Unfit says why a backup, although it is good, is not what the caller
	// looks for; empty when it is. It is asked by At and for the newest, not
	// by ID, of good backups alone, the newest first, until one is taken. Nil
	// takes any.
	Unfit func(BackupInfo) string
}

// ParseSelector reads "latest", a backup ID, or a time (RFC 3339, or
// 2006-01-02 15:04[:05] or 2006-01-02 in UTC, a date meaning its end).
func ParseSelector(text string) (Selector, error) {
	if text == "" || text == "latest" {
		return Selector{}, nil
	}
	if id, err := record.ParseBackupID(text); err == nil {
		return Selector{ID: id}, nil
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return Selector{At: day.Add(24*time.Hour - time.Second)}, nil
	}
	for _, form := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if at, err := time.Parse(form, text); err == nil && !at.IsZero() { // which would mean the latest
			return Selector{At: at}, nil
		}
	}
	return Selector{}, fmt.Errorf("backup %q is neither 'latest', nor an ID like 20261120T131730Z-1a2b3c4d, nor a time like 2026-11-20T13:17:30Z", text)
}

// Resolve finds the backup that a restore would use. By time or "latest" only
// complete ones count; by ID, others too when Allow is set. ErrNoEligible
// says what there is and why it was passed over.
func (r *Repository) Resolve(ctx context.Context, set record.SetID, s Selector) (BackupInfo, error) {
	if s.ID != "" {
		return r.resolveID(ctx, set, s)
	}
	list, err := r.Backups(ctx, set)
	if err != nil {
		return BackupInfo{}, err
	}
	var passed []string
	for _, info := range list {
		why := ineligible(&info)
		if at := info.CapturedAt(); why == "" && !s.At.IsZero() && at.After(s.At) {
			why = fmt.Sprintf("was captured %s, after %s", at.UTC().Format(time.RFC3339), s.At.UTC().Format(time.RFC3339))
		}
		if why == "" && s.Unfit != nil {
			why = s.Unfit(info)
		}
		if why == "" {
			return info, nil
		}
		passed = append(passed, fmt.Sprintf("%s %s", info.ID, why))
	}
	if len(passed) == 0 {
		return BackupInfo{}, fmt.Errorf("%w: %s has none at all", ErrNoEligible, set)
	}
	return BackupInfo{}, fmt.Errorf("%w of %s: %s", ErrNoEligible, set, strings.Join(passed, "; "))
}

// CapturedAt is the newest point in time that the backup holds: that of the
// member which was captured last. Members that have no valid commit do not
// count; without any it is when the run began. The run may have begun long
// before: it waited for a lock, or for its other members.
func (b *BackupInfo) CapturedAt() time.Time {
	var last time.Time
	for _, m := range b.Members {
		if m.Valid && m.Commit.CapturedAt.After(last) {
			last = m.Commit.CapturedAt
		}
	}
	if last.IsZero() {
		return b.ID.Time()
	}
	return last
}

func (r *Repository) resolveID(ctx context.Context, set record.SetID, s Selector) (BackupInfo, error) {
	info, err := r.Backup(ctx, set, s.ID)
	if err != nil {
		return BackupInfo{}, err
	}
	why := ineligible(&info)
	if why == "" || s.Allow && (info.Status == StatusIncomplete || info.Status == StatusSuspect) && !info.Unchecked {
		return info, nil
	}
	return info, fmt.Errorf("%w: %s of %s %s", ErrNoEligible, s.ID, set, why)
}

// ineligible says why a backup is not offered, empty when it is.
func ineligible(info *BackupInfo) string {
	var why string
	switch {
	case info.Unchecked:
		return fmt.Sprintf("could not be checked: set %s", NameTrustedWriters)
	case info.Status != StatusComplete:
		why = "is " + string(info.Status)
	case info.Condemned:
		return "is condemned by prune"
	default:
		return ""
	}
	if len(info.Problems) > 0 {
		why += " (" + strings.Join(info.Problems, ", ") + ")"
	}
	return why
}
