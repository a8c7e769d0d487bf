package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/statefulset"
)

func newStatus(a *cli.App) *cobra.Command {
	var set cli.SetFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running or dead restore has put on a set",
		Long: `Show what a running or dead restore has put on a set: the Lease, seed pods, claims that
are held or half loaded, suspended CronJobs. A restore that died is continued by its
Job's retry, or cleared away by "restore abort".`,
		Example: "restore status --set mysql/mysql",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, name, err := set.Cluster(a)
			if err != nil {
				return err
			}
			l, err := client.Leftovers(cmd.Context(), name)
			if err != nil {
				return err
			}
			return a.Print(statusOf(client.Namespace()+"/"+name, l), func(w io.Writer) error { return printLeftovers(w, client.Namespace()+"/"+name, l) })
		},
	}
	set.Add(cmd.Flags())
	return cmd
}

// status is what --json prints.
type status struct {
	Set     string `json:"set"`
	Running bool   `json:"running"`
	// Run holds the Lease until Expires, unless it renews it.
	Run      string       `json:"run,omitempty"`
	Expires  time.Time    `json:"expires,omitzero"`
	Seeds    []seedStatus `json:"seeds"`
	Claims   []string     `json:"claims"`
	CronJobs []string     `json:"cronJobs"`
	Runs     []runStatus  `json:"runs"`
	// Volumes that ordinals had before, kept from their reclaim policies.
	Volumes []string `json:"volumes"`
	// Drills are the pods and claims of drills; DrillRunning: of one that is alive.
	Drills       []string `json:"drills"`
	DrillRunning bool     `json:"drillRunning"`
}

type seedStatus struct {
	Pod     string `json:"pod"`
	Ordinal int    `json:"ordinal"`
	Phase   string `json:"phase"`
	Run     string `json:"run"`
	// Backup that it is loaded with; empty while it is half loaded.
	Backup string `json:"backup,omitempty"`
}

type runStatus struct {
	ID       string          `json:"id"`
	Job      string          `json:"job,omitempty"`
	Finished bool            `json:"finished"`
	Plan     json.RawMessage `json:"plan,omitempty"`
}

func statusOf(set string, l statefulset.Leftovers) status {
	s := status{
		Set: set, Running: l.Lease.Live, Seeds: []seedStatus{}, Claims: []string{}, CronJobs: []string{}, Runs: []runStatus{}, Volumes: []string{},
		Drills: append([]string{}, l.Drills.Objects...), DrillRunning: l.Drills.Live,
	}
	if l.Lease.Live {
		s.Run, s.Expires = l.Lease.Run(), l.Lease.Expires
	}
	for _, x := range l.Seeds {
		s.Seeds = append(s.Seeds, seedStatus{x.Pod, x.Ordinal, x.Phase, x.Run, x.LoadedBackup})
	}
	for _, c := range l.Claims {
		s.Claims = append(s.Claims, c.Name)
	}
	for _, j := range l.CronJobs {
		s.CronJobs = append(s.CronJobs, j.Name)
	}
	for _, v := range l.Volumes {
		s.Volumes = append(s.Volumes, v.Name)
	}
	for _, r := range l.Runs {
		run := runStatus{ID: r.ID, Job: r.Job, Finished: r.Finished}
		if json.Valid(r.Plan) {
			run.Plan = r.Plan
		}
		s.Runs = append(s.Runs, run)
	}
	return s
}

func printLeftovers(w io.Writer, set string, l statefulset.Leftovers) error {
	var b strings.Builder
	switch {
	case l.Lease.Live:
		fmt.Fprintf(&b, "%s: restore run %s is under way (its Lease expires %s unless renewed)\n", set, l.Lease.Run(), cli.Time(l.Lease.Expires))
	case l.Empty():
		fmt.Fprintf(&b, "%s: no restore is running and none has left anything\n", set)
	default:
		fmt.Fprintf(&b, "%s: no restore is running, and a dead one has left this behind:\n", set)
	}
	for _, r := range l.Runs {
		fmt.Fprintf(&b, "run %s, job %s, finished: %v\n", r.ID, r.Job, r.Finished)
	}
	for _, s := range l.Seeds {
		state := "half loaded"
		if s.LoadedBackup != "" {
			state = "loaded with backup " + s.LoadedBackup
		}
		fmt.Fprintf(&b, "seed pod %s (%s), ordinal %d, %s, run %s\n", s.Pod, s.Phase, s.Ordinal, state, s.Run)
	}
	for _, c := range l.Claims {
		fmt.Fprintf(&b, "claim %s, ordinal %d, held: %v, being filled by run %s\n", c.Name, c.Ordinal, c.Held, c.Seeding)
	}
	for _, v := range l.Volumes {
		fmt.Fprintf(&b, "volume %s, ordinal %d's before (claim %s), kept; its reclaim policy was %s\n", v.Name, v.Ordinal, v.Claim, v.Policy)
	}
	for _, name := range l.Drills.Objects {
		of := "of a dead drill, run "
		if l.Drills.Live {
			of = "of the drill that is under way, run "
		}
		fmt.Fprintf(&b, "%s %s%s\n", name, of, l.Drills.Run)
	}
	for _, j := range l.CronJobs {
		fmt.Fprintf(&b, "cronjob %s, suspended by run %s\n", j.Name, j.SuspendedByRestore)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
