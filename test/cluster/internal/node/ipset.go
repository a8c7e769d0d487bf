package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ipsets are the names of the kernel's sets of addresses.
func (n *Node) ipsets(ctx context.Context) ([]string, error) {
	names, err := n.run(ctx, "ipset", "list", "-name")
	if err != nil {
		return nil, fmt.Errorf("read sets of addresses: %w", err)
	}
	return strings.Fields(names), nil
}

// removeIPSets removes kube-router's sets that were not there before Up.
func (n *Node) removeIPSets(ctx context.Context, m memory) error {
	if m.Boot == "" {
		return nil
	}
	now, err := n.ipsets(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, set := range ofCluster(m.IPSets, now) {
		if _, err := n.run(ctx, "ipset", "destroy", set); err != nil {
			errs = append(errs, fmt.Errorf("remove set of addresses: %w", err))
		}
	}
	return errors.Join(errs...)
}

// ofCluster returns those sets of now that kube-router made: they are called as
// its own are, and were not there before.
func ofCluster(before, now []string) []string {
	var ours []string
	for _, set := range now {
		named := strings.HasPrefix(set, "KUBE-") || strings.HasPrefix(set, "TMP-")
		if named && !slices.Contains(before, set) {
			ours = append(ours, set)
		}
	}
	return ours
}
