package job

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// FromCluster is the inventory of a StatefulSet.
func FromCluster(c *statefulset.Client, name string, o statefulset.DiscoverOptions) Discover {
	return func(ctx context.Context) (Inventory, error) {
		set, err := c.Discover(ctx, name, o)
		if err != nil {
			return Inventory{}, err
		}
		return inventoryOf(set)
	}
}

// inventoryOf translates a discovered set. A problem of the set itself fails
// the run; one of a member fails that member.
func inventoryOf(set statefulset.Set) (Inventory, error) {
	inv := Inventory{Replicas: set.Replicas, Start: set.Start}
	for _, p := range set.Problems {
		if p.Ordinal < 0 && p.Fatal {
			return inv, errors.New(p.String())
		}
	}
	for _, m := range set.Members {
		inv.Members = append(inv.Members, memberOf(m))
	}
	return inv, nil
}

func memberOf(m statefulset.Member) Member {
	member := Member{
		PlannedMember: record.PlannedMember{Ordinal: m.Ordinal, Name: m.Pod.Name, Node: m.Pod.Node},
		Address:       m.Address(), Container: m.Container,
	}
	for _, c := range m.Claims {
		member.Claims = append(member.Claims, record.Claim{
			Name: c.Name, Template: c.Template, Volume: c.Volume, StorageClass: c.Class,
			AccessModes: c.AccessModes, Size: c.Capacity,
		})
	}
	var server, content []error
	for _, p := range m.Problems {
		switch {
		case !p.Fatal:
		case p.OfContent:
			content = append(content, errors.New(p.String()))
		default:
			server = append(server, errors.New(p.String()))
		}
	}
	member.Unreachable = errors.Join(server...)
	if member.Unreachable == nil && member.Address == "" {
		member.Unreachable = fmt.Errorf("pod %s has no address: %s", m.Pod.Name, m.Pod.Reason)
	}
	member.Problem = errors.Join(content...)
	return member
}

// LeaseGuard is the Guard of a backup: no live restore holds the set's Lease,
// neither at the start nor, with another token, at any time since.
type LeaseGuard struct {
	Client *statefulset.Client
	Set    string

	mu    sync.Mutex
	seen  bool
	first statefulset.LeaseInfo
}

// Check implements [Guard].
func (g *LeaseGuard) Check(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	if g.seen {
		err = g.Client.CheckUnchanged(ctx, g.Set, g.first)
	} else if g.first, err = g.Client.CheckFree(ctx, g.Set); err == nil {
		g.seen = true
	}
	if errors.Is(err, statefulset.ErrBusy) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}
