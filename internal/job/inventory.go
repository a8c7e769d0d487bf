package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

// Member is one ordinal of the set as it stands now: what the plan records of
// it, and how to reach it, which the plan does not record because a pod's
// address changes whenever it restarts.
type Member struct {
	record.PlannedMember
	// Address is host:port.
	Address string
	// Container of the member's pod that is the database; empty without Kubernetes.
	Container string
	// Unreachable says why the member's server cannot be asked: its pod is
	// missing or not running. Its volumes may still be cut.
	Unreachable error
	// Problem says why the member cannot be captured by any method: one of its
	// claims is gone. Both fail this member alone.
	Problem error

	// volumes behind the claims, for the method snapshot.
	volumes []snapshot.Volume
}

// Obstacle says why the member's rows cannot be read; nil when nothing does.
func (m *Member) Obstacle() error { return errors.Join(m.Problem, m.Unreachable) }

// Inventory is a set as it stands now.
type Inventory struct {
	// Replicas and Start are spec.replicas and spec.ordinals.start.
	Replicas, Start int
	// Members are in the order of their ordinals.
	Members []Member

	// objects of the set, as they are stored with every member; nil for none.
	objects []byte
}

// Discover takes the inventory of a set.
type Discover func(ctx context.Context) (Inventory, error)

// Sources is the inventory of servers outside of Kubernetes: the address of
// ordinal i is addresses[i].
func Sources(addresses []string) Discover {
	return func(context.Context) (Inventory, error) {
		inv := Inventory{Replicas: len(addresses)}
		for i, address := range addresses {
			inv.Members = append(inv.Members, Member{
				PlannedMember: record.PlannedMember{Ordinal: i, Name: address},
				Address:       address,
			})
		}
		return inv, nil
	}
}

// Ordinals is a choice of ordinals such as "0,2-4"; empty chooses all.
type Ordinals struct {
	text  string
	spans [][2]int
}

// ParseOrdinals reads a list of numbers and ranges.
func ParseOrdinals(text string) (Ordinals, error) {
	chosen := Ordinals{text: text}
	if strings.TrimSpace(text) == "" {
		return chosen, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := parseOrdinal(low)
		if err != nil {
			return Ordinals{}, fmt.Errorf("ordinals %q: %w", text, err)
		}
		last := first
		if isRange {
			if last, err = parseOrdinal(high); err != nil {
				return Ordinals{}, fmt.Errorf("ordinals %q: %w", text, err)
			}
		}
		if last < first {
			return Ordinals{}, fmt.Errorf("ordinals %q: range %s runs backwards", text, part)
		}
		chosen.spans = append(chosen.spans, [2]int{first, last})
	}
	return chosen, nil
}

func parseOrdinal(s string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not an ordinal; give numbers and ranges such as 0,2-4", s)
	}
	return n, nil
}

// String is the choice as it was given; empty when it chooses all.
func (o Ordinals) String() string { return strings.TrimSpace(o.text) }

// Contains says whether ordinal is chosen.
func (o Ordinals) Contains(ordinal int) bool {
	if len(o.spans) == 0 {
		return true
	}
	return slices.ContainsFunc(o.spans, func(s [2]int) bool { return s[0] <= ordinal && ordinal <= s[1] })
}

// filter keeps the chosen members and refuses a choice that names an ordinal
// that the set does not have: a backup of something else than was asked for
// is worse than none.
func (o Ordinals) filter(members []Member) ([]Member, error) {
	if len(o.spans) == 0 {
		return members, nil
	}
	have := map[int]bool{}
	for _, m := range members {
		have[m.Ordinal] = true
	}
	for _, s := range o.spans {
		for i := s[0]; i <= s[1]; i++ {
			if !have[i] {
				return nil, fmt.Errorf("%w: ordinals %q: the set has no ordinal %d", ErrConfig, o.text, i)
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return !o.Contains(m.Ordinal) }), nil
}

// Share is one pod's part of an Indexed Job: the members at positions Index,
// Index+Of, Index+2*Of, ... of the stored plan. The zero Share is everything.
type Share struct{ Index, Of int }

// take returns the planned members of this share.
func (s Share) take(members []record.PlannedMember) []record.PlannedMember {
	if s.Of <= 1 {
		return members
	}
	var mine []record.PlannedMember
	for i := s.Index; i < len(members); i += s.Of {
		mine = append(mine, members[i])
	}
	return mine
}
