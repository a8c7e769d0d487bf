package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// This file is what `backup verify` says at its end.

var errDamaged = errors.New("the repository is damaged")

// finishVerify prints the report and says how it ends: damage first; then a
// backup that was named and is not complete.
func finishVerify(a *cli.App, r repository.VerifyReport, orphans *job.OrphansReport, named bool) error {
	summary := fmt.Sprintf("checked %d backups%s, %d members, %d objects; read %d objects, %s; %d damaged",
		r.Backups, statuses(r), r.Members, r.Objects, r.ObjectsRead, cli.Bytes(r.BytesRead), len(r.Damages))
	if orphans != nil {
		summary += fmt.Sprintf("; %d volume snapshots needed, %d of them gone, %d kept that no backup needs", orphans.Needed, len(orphans.Missing), len(orphans.Orphans))
	}
	a.SetMessage(summary)
	verified := verifiedOf(r)
	verified.VolumeSnapshots = orphans
	err := a.Print(verified, func(w io.Writer) error {
		if err := printOrphans(w, orphans); err != nil {
			return err
		}
		return printVerified(w, r, summary)
	})
	if err != nil {
		return err
	}
	switch {
	case orphans != nil && len(orphans.Missing) > 0:
		return fmt.Errorf("%w: %d volume snapshots that backups need are gone", errDamaged, len(orphans.Missing))
	case len(r.Damages) > 0:
		return fmt.Errorf("%w: %d objects are missing, changed or do not count", errDamaged, len(r.Damages))
	case named && r.Statuses[repository.StatusIncomplete] > 0:
		return fmt.Errorf("what is stored is undamaged: %w: members have no commit, as the notes say", job.ErrIncomplete)
	case named && r.Statuses[repository.StatusUnchecked] > 0:
		return fmt.Errorf("what is stored is undamaged: %w: whether it counts is not known, as signatures were not checked; set %s", job.ErrIncomplete, repository.NameTrustedWriters)
	case named && r.Statuses[repository.StatusSuspect] > 0:
		return fmt.Errorf("what is stored is undamaged: %w", job.ErrSuspect)
	}
	return nil
}

func printVerified(w io.Writer, r repository.VerifyReport, summary string) error {
	for _, problem := range r.Problems {
		if _, err := fmt.Fprintln(w, "note:", problem); err != nil {
			return err
		}
	}
	for _, d := range r.Damages {
		of := ""
		if d.Set != (record.SetID{}) {
			of = " of " + d.Set.String()
		}
		if _, err := fmt.Fprintf(w, "damaged: %s%s: %s; harms %s\n", d.Key, of, d.What, harms(d.Harmed)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, summary)
	return err
}

// printOrphans names the volume snapshots that are gone, and those that nobody needs.
func printOrphans(w io.Writer, r *job.OrphansReport) error {
	if r == nil {
		return nil
	}
	for _, m := range r.Missing {
		if _, err := fmt.Fprintf(w, "damaged: volume snapshot %s of claim %s%s is gone; harms %s ordinal %d\n", m.Snapshot.ID, m.Snapshot.Claim, inRegion(m.Snapshot), m.Backup, m.Ordinal); err != nil {
			return err
		}
	}
	for _, s := range r.Orphans {
		if _, err := fmt.Fprintf(w, "orphan: volume snapshot %s of claim %s%s, cut %s: no backup needs it\n", s.ID, s.Claim, inRegion(s), cli.Time(s.CutAt)); err != nil {
			return err
		}
	}
	for _, s := range r.Young {
		if _, err := fmt.Fprintf(w, "note: volume snapshot %s of claim %s%s, cut %s: no backup needs it yet\n", s.ID, s.Claim, inRegion(s), cli.Time(s.CutAt)); err != nil {
			return err
		}
	}
	return nil
}

// inRegion says in which region a volume snapshot is, where there are any.
func inRegion(s record.VolumeSnapshot) string {
	if s.Region == "" {
		return ""
	}
	return " in " + s.Region
}

// statuses counts the backups: " (3 complete, 1 incomplete)".
func statuses(r repository.VerifyReport) string {
	var parts []string
	for _, s := range repository.Statuses() {
		if n := r.Statuses[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// verified is the report in the form that --json prints.
type verified struct {
	Backups int `json:"backups"`
	// Statuses says how many backups are complete, incomplete, ...
	Statuses    map[repository.Status]int `json:"statuses"`
	Members     int                       `json:"members"`
	Objects     int                       `json:"objects"`
	ObjectsRead int                       `json:"objectsRead"`
	BytesRead   int64                     `json:"bytesRead"`
	Damages     []damage                  `json:"damages"`
	Problems    []string                  `json:"problems,omitempty"`
	Started     time.Time                 `json:"startedAt"`
	Finished    time.Time                 `json:"finishedAt"`
	// VolumeSnapshots compares them, with --orphans.
	VolumeSnapshots *job.OrphansReport `json:"volumeSnapshots,omitempty"`
}

// damage is one object that is missing or changed, and what it harms. Set is
// empty for what belongs to the whole repository.
type damage struct {
	Set    string `json:"set"`
	Object string `json:"object"`
	What   string `json:"what"`
	Harmed []harm `json:"harmed"`
}

type harm struct {
	Set     string          `json:"set"`
	Backup  record.BackupID `json:"backup"`
	Ordinal int             `json:"ordinal"`
	Streams []string        `json:"streams,omitempty"`
	Note    string          `json:"note,omitempty"`
}

func verifiedOf(r repository.VerifyReport) verified {
	v := verified{
		Backups: r.Backups, Statuses: r.Statuses, Members: r.Members, Objects: r.Objects, ObjectsRead: r.ObjectsRead, BytesRead: r.BytesRead,
		Damages: []damage{}, Problems: r.Problems, Started: r.Started, Finished: r.Finished,
	}
	for _, d := range r.Damages {
		one := damage{Object: d.Key, What: d.What, Harmed: []harm{}}
		if d.Set != (record.SetID{}) {
			one.Set = d.Set.String()
		}
		for _, h := range d.Harmed {
			one.Harmed = append(one.Harmed, harm{h.Set.String(), h.Backup, h.Ordinal, h.Streams, h.Note})
		}
		v.Damages = append(v.Damages, one)
	}
	return v
}

// mostHarms is how many harmed members a line names; --json names all.
const mostHarms = 10

func harms(list []repository.Harm) string {
	if len(list) == 0 {
		return "no backup"
	}
	parts := make([]string, 0, mostHarms+1)
	for n, h := range list {
		if n == mostHarms {
			parts = append(parts, fmt.Sprintf("and %d more", len(list)-n))
			break
		}
		part := fmt.Sprintf("%s ordinal %d", h.Backup, h.Ordinal)
		if len(h.Streams) > 0 {
			part += " (" + strings.Join(h.Streams, ", ") + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
