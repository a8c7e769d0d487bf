package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// firewallSaves are the commands that print the rules, to the command that
// takes what was printed.
var firewallSaves = map[string]string{"iptables-save": "iptables-restore", "ip6tables-save": "ip6tables-restore"}

// restoreFirewall removes the rules and chains of Kubernetes and its network
// plugins that were not there before Up. Others, whoever made them, stay.
func (n *Node) restoreFirewall(ctx context.Context, m memory) error {
	var errs []error
	for save, restore := range firewallSaves {
		if _, saved := m.Firewall[save]; !saved {
			continue
		}
		now, err := n.run(ctx, save)
		if err != nil {
			errs = append(errs, fmt.Errorf("read firewall rules: %w", err))
			continue
		}
		wanted := withoutCluster(m.Firewall[save], now)
		if wanted == now {
			continue
		}
		cmd := n.command(ctx, restore)
		cmd.Stdin = strings.NewReader(wanted)
		if _, err := output(cmd); err != nil {
			errs = append(errs, fmt.Errorf("restore firewall rules: %w", err))
		}
	}
	return errors.Join(errs...)
}

// withoutCluster returns the rules of now, as iptables-save prints them, less
// those lines that name a chain of Kubernetes or of a network plugin and were
// not there before.
func withoutCluster(before, now string) string {
	old := map[string]bool{}
	for line := range strings.Lines(before) {
		old[withoutCounters(line)] = true
	}
	var kept strings.Builder
	for line := range strings.Lines(now) {
		ours := strings.Contains(line, "KUBE-") || strings.Contains(line, "CNI-")
		if !ours || old[withoutCounters(line)] {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// withoutCounters drops the [packets:bytes] at the end of a chain's line.
func withoutCounters(line string) string {
	if strings.HasPrefix(line, ":") {
		line, _, _ = strings.Cut(line, " [")
	}
	return strings.TrimSpace(line)
}
