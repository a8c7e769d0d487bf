package job

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// The statuses of a member and of a backup in a report.
const (
	StatusComplete   = record.StatusComplete
	StatusSuspect    = record.StatusSuspect
	StatusFailed     = "failed"
	StatusIncomplete = "incomplete"
	StatusBusy       = "busy"
)

// Event is how far one member is.
type Event struct {
	Ordinal int
	Name    string
	// Bytes were read from (or written to) the server, Stored are new in the store.
	Bytes, Stored int64
	// Expected is how many Bytes there will probably be; 0 when unknown.
	Expected int64
	// Done comes once, last, and with it whether the member failed.
	Done, Failed bool
}

// Progress hears Events, about one a second and member, from several
// goroutines. Nil hears nothing.
type Progress func(Event)

// BackupReport is what a run of Backup did. Its JSON form is what --json
// prints and what the repository keeps in reports/.
type BackupReport struct {
	Backup     record.BackupID  `json:"backup"`
	Set        string           `json:"set"`
	Attempt    record.AttemptID `json:"attempt"`
	Status     string           `json:"status"`
	StartedAt  time.Time        `json:"startedAt"`
	FinishedAt time.Time        `json:"finishedAt"`
	// Planned counts the members of the whole plan; Members are this run's.
	Planned int            `json:"planned"`
	Members []MemberResult `json:"members"`
}

// MemberResult is what became of one member.
type MemberResult struct {
	Ordinal int    `json:"ordinal"`
	Name    string `json:"name"`
	Status  string `json:"status"`
	Error   string `json:"error,omitempty"`
	// Reasons say why a suspect member is doubtful.
	Reasons []string `json:"reasons,omitempty"`
	// Resumed says that an earlier attempt of the same Job had committed it.
	Resumed bool  `json:"resumed,omitempty"`
	Rows    int64 `json:"rows"`
	// Bytes before compression, and bytes that were new in the store.
	Bytes       int64     `json:"bytes"`
	Stored      int64     `json:"stored"`
	Objects     int64     `json:"objects"`
	CapturedAt  time.Time `json:"capturedAt,omitzero"`
	Seconds     float64   `json:"seconds"`
	LockSeconds float64   `json:"lockSeconds,omitempty"`
	Omitted     []string  `json:"omitted,omitempty"`
	Warnings    []string  `json:"warnings,omitempty"`
	// Consistency names what made the capture one point in time.
	Consistency string `json:"consistency,omitempty"`
	// VolumeSnapshots that the member needs, by the method snapshot.
	VolumeSnapshots []record.VolumeSnapshot `json:"volumeSnapshots,omitempty"`

	err error
}

// fill takes over what a commit and the engine's report say.
func (m *MemberResult) fill(c record.Commit, r record.Report) {
	m.Status, m.Reasons = c.Status, c.Reasons
	m.Rows, m.Bytes, m.Stored, m.Objects, m.CapturedAt = c.Rows, c.Bytes, c.Stored, c.Objects, c.CapturedAt
	m.LockSeconds, m.Omitted, m.Warnings, m.Consistency = r.LockSeconds, r.Omitted, r.Warnings, r.Consistency
}

// finish sets the status of the whole from its members.
func (r *BackupReport) finish(now time.Time) {
	r.FinishedAt = now.UTC()
	var failed, suspect int
	busy := false
	for _, m := range r.Members {
		switch m.Status {
		case StatusFailed:
			failed++
			busy = busy || isBusy(m.err)
		case StatusSuspect:
			suspect++
		}
	}
	switch {
	case busy:
		r.Status = StatusBusy
	case failed > 0 && failed == len(r.Members):
		r.Status = StatusFailed
	case failed > 0:
		r.Status = StatusIncomplete
	case suspect > 0:
		r.Status = StatusSuspect
	default:
		r.Status = StatusComplete
	}
}

// outcome is the error that belongs to the status.
func (r *BackupReport) outcome() error {
	switch r.Status {
	case StatusComplete:
		return nil
	case StatusBusy:
		return fmt.Errorf("backup %s: %w", r.Backup, r.firstError(isBusy))
	case StatusSuspect:
		return fmt.Errorf("backup %s of %s: %w: %s", r.Backup, r.Set, ErrSuspect, r.problems())
	case StatusIncomplete:
		return fmt.Errorf("backup %s of %s: %w: %s", r.Backup, r.Set, ErrIncomplete, r.problems())
	default:
		if r.refused() {
			return fmt.Errorf("backup %s of %s: %w: %s", r.Backup, r.Set, ErrConfig, r.problems())
		}
		return fmt.Errorf("backup %s of %s: %w: %s", r.Backup, r.Set, ErrFailed, r.problems())
	}
}

// refused tells that no member can be captured as it was asked for, whoever
// tries again. What one share of a fan-out says is no word about the others, whose
// pods would be ended with it.
func (r *BackupReport) refused() bool {
	return !r.Partial() && !slices.ContainsFunc(r.Members, func(m MemberResult) bool {
		return !errors.Is(m.err, dbdump.ErrSelection) && !errors.Is(m.err, ErrConfig)
	})
}

func (r *BackupReport) firstError(match func(error) bool) error {
	for _, m := range r.Members {
		if m.err != nil && match(m.err) {
			return m.err
		}
	}
	return errors.New("no member says why")
}

// problems names every member that is not complete, and why.
func (r *BackupReport) problems() string {
	var parts []string
	for _, m := range r.Members {
		switch m.Status {
		case StatusFailed:
			parts = append(parts, fmt.Sprintf("ordinal %d (%s) failed: %s", m.Ordinal, m.Name, m.Error))
		case StatusSuspect:
			parts = append(parts, fmt.Sprintf("ordinal %d (%s) is suspect: %s", m.Ordinal, m.Name, strings.Join(m.Reasons, ", ")))
		}
	}
	return strings.Join(parts, "; ")
}

// Partial says that other pods of a fan-out have the rest of the plan: what
// became of this share says nothing about the whole backup.
func (r *BackupReport) Partial() bool { return len(r.Members) < r.Planned }

// Title names what the report is about.
func (r *BackupReport) Title() string {
	title := fmt.Sprintf("backup %s of %s", r.Backup, r.Set)
	if r.Partial() {
		return fmt.Sprintf("this pod's share (%d of %d members) of %s", len(r.Members), r.Planned, title)
	}
	return title
}

// Summary is the report in one line.
func (r *BackupReport) Summary() string {
	var rows, bytes, stored int64
	good := 0
	for _, m := range r.Members {
		rows, bytes, stored = rows+m.Rows, bytes+m.Bytes, stored+m.Stored
		if m.Status == StatusComplete {
			good++
		}
	}
	return fmt.Sprintf("%s is %s: %d of %d members, %d rows, %d bytes, %d bytes new in the store, %s",
		r.Title(), r.Status, good, len(r.Members), rows, bytes, stored, r.FinishedAt.Sub(r.StartedAt).Round(time.Second))
}
