package main

import (
	"fmt"
	"io"
	"strings"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/repository"
)

// This file is what `backup prune` and `backup delete` say at their end.

func printPruned(a *cli.App, reports []*job.PruneReport) error {
	return a.Print(reports, func(w io.Writer) error {
		var rows [][]string
		for _, r := range reports {
			rows = append(rows, pruneRows(r)...)
		}
		if len(rows) == 0 {
			if _, err := fmt.Fprintln(w, "no backups"); err != nil {
				return err
			}
		} else if err := cli.Table(w, []string{"SET", "BACKUP", "STATE", "KIND", "CAPTURED", "DECISION", "REASON"}, rows); err != nil {
			return err
		}
		for _, r := range reports {
			if err := printSpace(w, r); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(w, pruneSummary(reports))
		return err
	})
}

func pruneRows(r *job.PruneReport) [][]string {
	rows := make([][]string, 0, len(r.Decisions))
	for _, d := range r.Decisions {
		decision := "delete"
		if d.Keep {
			decision = "keep"
		}
		rows = append(rows, []string{
			r.Set, string(d.Backup), string(d.State), dash(d.Group), cli.Time(d.CapturedAt), decision, strings.Join(d.Reasons, ", "),
		})
	}
	return rows
}

// printSpace says of one set what its objects come to.
func printSpace(w io.Writer, r *job.PruneReport) error {
	var lines []string
	if r.Marked.Objects > 0 {
		lines = append(lines, fmt.Sprintf("%s condemned: a prune after %s deletes what no backup needs by then", amount(r.Marked), cli.Time(r.Due)))
	}
	if r.DryRun && r.Deletable.Objects > 0 {
		lines = append(lines, amount(r.Deletable)+" condemned earlier would be deleted")
	}
	if r.Waiting.Objects > 0 {
		lines = append(lines, amount(r.Waiting)+" condemned earlier wait for a later prune")
	}
	if r.Hidden.Objects > 0 {
		lines = append(lines, amount(r.Hidden)+" deleted and still in the store as older versions: a lifecycle rule for noncurrent versions frees them, once no lock holds them")
	}
	if r.HalfDead.Objects > 0 {
		lines = append(lines, fmt.Sprintf("up to %s still held by packs that deleted backups have written and others need parts of", amount(r.HalfDead)))
	}
	for _, s := range r.Released {
		lines = append(lines, fmt.Sprintf("volume snapshot %s of claim %s%s, backup %s: no backup needs it", s.Snapshot.ID, s.Snapshot.Claim, inRegion(s.Snapshot), s.Backup))
	}
	if kept := len(r.Released) - len(r.Deleted); kept > 0 && !r.DryRun {
		lines = append(lines, fmt.Sprintf("%d of these volume snapshots are still there: --snapshotter deletes those that it keeps", kept))
	}
	for _, line := range lines {
		if _, err := fmt.Fprintf(w, "%s: %s\n", r.Set, line); err != nil {
			return err
		}
	}
	return nil
}

func amount(a repository.Amount) string {
	return fmt.Sprintf("%s in %s objects", cli.Bytes(a.Bytes), cli.Count(int64(a.Objects)))
}

// pruneSummary is one line over all sets.
func pruneSummary(reports []*job.PruneReport) string {
	deleted, of, failed, snapshots, dry := 0, 0, 0, 0, false
	var freed, hidden, needed repository.Amount
	for _, r := range reports {
		deleted += len(r.Condemned) + len(r.Finished)
		of += len(r.Decisions)
		freed.Objects += r.Freed.Objects
		freed.Bytes += r.Freed.Bytes
		hidden.Objects += r.Hidden.Objects
		hidden.Bytes += r.Hidden.Bytes
		needed.Objects += r.Needed.Objects
		needed.Bytes += r.Needed.Bytes
		snapshots += len(r.Deleted)
		dry = dry || r.DryRun
		if r.Error != "" {
			failed++
		}
	}
	text := fmt.Sprintf("deleted %d of %d backups; freed %s; %s needed", deleted, of, amount(freed), amount(needed))
	if hidden.Objects > 0 {
		text = fmt.Sprintf("deleted %d of %d backups; freed %s, hid %s; %s needed", deleted, of, amount(freed), amount(hidden), amount(needed))
	}
	if dry {
		text = fmt.Sprintf("would delete %d of %d backups; %s needed", deleted, of, amount(needed))
	}
	if snapshots > 0 {
		text += fmt.Sprintf("; %d volume snapshots deleted", snapshots)
	}
	if failed > 0 {
		text += fmt.Sprintf("; %d of %d sets were not pruned", failed, len(reports))
	}
	return text
}
