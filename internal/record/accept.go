package record

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// The doubts that a user can set aside.
const (
	// DoubtSuspect: the run found a member smaller than it should be, or the like.
	DoubtSuspect = "suspect"
	// DoubtTimes: the times at which plan and commits were stored do not fit the
	// backup's ID, as the bucket was copied.
	DoubtTimes = "times"
)

// Accept is the user's word that one doubt about one backup is settled. It names
// the very records that were looked at, so that it never covers others, and is
// an object of its own, since nothing that is stored is ever changed.
type Accept struct {
	Header
	Repository string   `json:"repository"`
	Set        SetID    `json:"set"`
	Backup     BackupID `json:"backup"`
	// Doubt is DoubtSuspect or DoubtTimes.
	Doubt string `json:"doubt"`
	// PlanSHA256 is the hash of the stored plan, both lines.
	PlanSHA256 Hash `json:"planSHA256"`
	// Commits are the hashes of the stored commits, both lines, in order.
	Commits   []Hash    `json:"commits"`
	CreatedAt time.Time `json:"createdAt"`
	// Reason that the user gave.
	Reason string `json:"reason,omitempty"`
}

// RecordKind is KindAccept.
func (a *Accept) RecordKind() Kind { return KindAccept }

// Validate checks the IDs, and that the doubt is a known one and names commits.
func (a *Accept) Validate() error {
	if err := a.Set.Validate(); err != nil {
		return err
	}
	if err := a.Backup.Validate(); err != nil {
		return err
	}
	switch {
	case a.Doubt != DoubtSuspect && a.Doubt != DoubtTimes:
		return fmt.Errorf("%w: it accepts the doubt %q", ErrNewerFormat, a.Doubt)
	case a.CreatedAt.IsZero():
		return fmt.Errorf("%w: accepted without a time", ErrInvalid)
	case a.PlanSHA256.IsZero() || len(a.Commits) == 0:
		return fmt.Errorf("%w: accepted without plan or commits", ErrInvalid)
	}
	for i, c := range a.Commits {
		if c.IsZero() || i > 0 && bytes.Compare(a.Commits[i-1][:], c[:]) >= 0 {
			return fmt.Errorf("%w: accepted commit %s is out of order or empty", ErrInvalid, c)
		}
	}
	return nil
}

// SortHashes puts hashes in the order that records want.
func SortHashes(list []Hash) {
	slices.SortFunc(list, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
}
