package job

import (
	"fmt"
	"slices"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// Request is what a user asks of a restore: exactly one of Replicas, Ordinals
// and All (All may carry Replicas).
type Request struct {
	// Replicas scales the set up to as many, seeding each new ordinal.
	Replicas int
	// Ordinals are recovered in place.
	Ordinals []int
	// All restores the whole set, which stands at zero replicas.
	All bool
	// Replace consents to the loss of what an ordinal's claims hold; Keep lets
	// pods come up on claims that exist.
	Replace, Keep bool
	// Base is the ordinal of the backup that is loaded; -1 lets the job choose.
	Base int
	// Follow is host:port, "none", or empty to let the job choose.
	Follow string
	// Slot is the replication slot that keeps the upstream's log for a standby, with
	// SlotOrdinal in its name where there are several; may be empty.
	Slot string
	// AllowRollback consents to restoring a primary behind live followers.
	AllowRollback bool
	// AllowSmallClaim consents to claims that ask for less than the files have.
	AllowSmallClaim bool
}

// SlotOrdinal stands for the ordinal in the name of a slot.
const SlotOrdinal = "{ordinal}"

// The modes of a restore.
const (
	ModeScaleUp  = "scale-up"
	ModeRecovery = "recovery"
	ModeWholeSet = "whole-set"
)

// mode says which of the three was asked for.
func (q Request) mode() (string, error) {
	switch {
	case q.Replicas < 0:
		return "", fmt.Errorf("%w: --replicas %d is no number of replicas", ErrConfig, q.Replicas)
	case q.Replace && q.Keep:
		return "", fmt.Errorf("%w: --replace and --keep exclude each other", ErrConfig)
	case q.All && len(q.Ordinals) == 0:
		return ModeWholeSet, nil
	case q.Replicas > 0 && len(q.Ordinals) == 0 && !q.All:
		return ModeScaleUp, nil
	case len(q.Ordinals) > 0 && q.Replicas == 0 && !q.All:
		return ModeRecovery, nil
	default:
		return "", fmt.Errorf("%w: give exactly one of --replicas, --ordinal and --all", ErrConfig)
	}
}

// needs are the ordinals whose own members the backup should have, in a set
// that begins at start: the one that is named as the base, those that are told
// to follow nobody, and the first one, which follows nobody unless its own
// member says so. All others are filled from any member.
func (q Request) needs(start int) []int {
	switch {
	case q.Base >= 0:
		return []int{q.Base}
	case q.Follow == "none":
		return q.Ordinals
	case q.Follow == "" && slices.Contains(q.Ordinals, start):
		return []int{start}
	}
	return nil
}

// targets are the ordinals to fill from the backup, in order, and the replicas
// that the set then has.
func (q Request) targets(set statefulset.Set, backup repository.BackupInfo) (ordinals []int, replicas int, err error) {
	mode, err := q.mode()
	if err != nil {
		return nil, 0, err
	}
	switch mode {
	case ModeScaleUp:
		if q.Replicas <= set.Replicas {
			return nil, 0, fmt.Errorf("%w: the set has %d replicas; --replicas %d adds none (a lost replica comes back with --ordinal)", ErrConfig, set.Replicas, q.Replicas)
		}
		return span(set.Start+set.Replicas, set.Start+q.Replicas), q.Replicas, nil
	case ModeWholeSet:
		replicas = q.Replicas
		if replicas == 0 {
			replicas = backup.Plan.Replicas
		}
		if set.Replicas != 0 && (set.Replicas >= replicas || !filledFrom(set, backup.ID)) {
			return nil, 0, fmt.Errorf("%w: --all restores a set that stands at zero replicas, and this one has %d, which are not the first ones of a restore of backup %s; "+
				"recover its ordinals with --ordinal, or scale it to zero", ErrConfig, set.Replicas, backup.ID)
		}
		if replicas == 0 {
			return nil, 0, fmt.Errorf("%w: the backup does not say how many replicas its set had; say it with --replicas", ErrConfig)
		}
		return span(set.Start+set.Replicas, set.Start+replicas), replicas, nil
	default:
		ordinals = set.RecoveryOrder(q.Ordinals)
		ordinals = slices.Compact(ordinals)
		for _, o := range ordinals {
			if !set.Wanted(o) {
				return nil, 0, fmt.Errorf("%w: ordinal %d is not one of the set's, which has %d replicas from ordinal %d; a new one comes with --replicas", ErrConfig, o, set.Replicas, set.Start)
			}
		}
		return ordinals, set.Replicas, nil
	}
}

// filledFrom tells whether all replicas of a set came out of one backup: then a
// restore of the whole set from it was killed half-way, and goes on.
func filledFrom(set statefulset.Set, backup record.BackupID) bool {
	if len(set.Members) != set.Replicas {
		return false
	}
	for _, m := range set.Members {
		filled := false
		for _, c := range m.Claims {
			switch {
			case c.Seeding != "" || c.Seeded != "" && c.Seeded != string(backup):
				return false
			case c.Seeded != "":
				filled = true
			}
		}
		if !filled {
			return false
		}
	}
	return true
}

func span(from, to int) []int {
	var list []int
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}
