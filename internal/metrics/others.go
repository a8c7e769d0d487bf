package metrics

import (
	"strconv"
	"time"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
)

type pruneMetrics struct {
	backups, freed, hidden, needed, waiting, halfDead Definition
}

var ofPrune = pruneMetrics{
	backups:  Definition{"keepset_prune_backups", "Backups that the last prune kept and deleted.", []string{"decision"}},
	freed:    Definition{"keepset_prune_freed_bytes", "Bytes that the last prune deleted.", nil},
	hidden:   Definition{"keepset_prune_hidden_bytes", "Bytes that the last prune deleted and the store keeps as older versions.", nil},
	needed:   Definition{"keepset_prune_needed_bytes", "Bytes that the backups which stay need.", nil},
	waiting:  Definition{"keepset_prune_condemned_bytes", "Bytes that are condemned and not deleted yet.", nil},
	halfDead: Definition{"keepset_prune_half_dead_bytes", "Bytes of the needed ones in packs that deleted backups have written: the most that packing them anew could free.", nil},
}

func (m pruneMetrics) list() []Definition {
	return []Definition{m.backups, m.freed, m.hidden, m.needed, m.waiting, m.halfDead}
}

// Prune fills the group of one set of a `backup prune`, which has its own end.
func (g *Group) Prune(r *job.PruneReport, started, ended time.Time, code int) {
	g.End(started, ended, code)
	if code != 0 {
		return
	}
	deleted := len(r.Condemned) + len(r.Finished)
	kept := 0
	for _, d := range r.Decisions {
		if d.Keep {
			kept++
		}
	}
	g.add(ofPrune.backups, float64(kept), "kept")
	g.add(ofPrune.backups, float64(deleted), "deleted")
	g.add(ofPrune.freed, float64(r.Freed.Bytes))
	g.add(ofPrune.hidden, float64(r.Hidden.Bytes))
	g.add(ofPrune.needed, float64(r.Needed.Bytes))
	g.add(ofPrune.waiting, float64(r.Marked.Bytes+r.Waiting.Bytes))
	g.add(ofPrune.halfDead, float64(r.HalfDead.Bytes))
}

type verifyMetrics struct {
	damages, backups, objects, read, bytes Definition
}

var ofVerify = verifyMetrics{
	damages: Definition{"keepset_verify_damages", "Objects that the last verification found missing, changed, or of no account.", nil},
	backups: Definition{"keepset_verify_backups", "Backups that it looked at, by what they are.", []string{"status"}},
	objects: Definition{"keepset_verify_objects", "Objects that these need.", nil},
	read:    Definition{"keepset_verify_objects_read", "Objects whose bytes were read and compared.", nil},
	bytes:   Definition{"keepset_verify_read_bytes", "Bytes that were read and compared.", nil},
}

func (m verifyMetrics) list() []Definition {
	return []Definition{m.damages, m.backups, m.objects, m.read, m.bytes}
}

// Verify fills the group of a `backup verify`; gone is how many volume snapshots
// are.
func (g *Group) Verify(r repository.VerifyReport, gone int) {
	g.add(ofVerify.damages, float64(len(r.Damages)+gone))
	g.add(ofVerify.objects, float64(r.Objects))
	g.add(ofVerify.read, float64(r.ObjectsRead))
	g.add(ofVerify.bytes, float64(r.BytesRead))
	g.addStatuses(ofVerify.backups, r.Statuses)
}

// addStatuses adds a value for each status, those that no backup has too.
func (g *Group) addStatuses(of Definition, counts map[repository.Status]int) {
	for _, s := range repository.Statuses() {
		g.add(of, float64(counts[s]), string(s))
	}
}

type restoreMetrics struct{ rows, bytes, members Definition }

var ofRestore = restoreMetrics{
	rows:    Definition{"keepset_restore_rows", "Rows that the last restore brought back into the ordinal.", []string{"ordinal"}},
	bytes:   Definition{"keepset_restore_bytes", "Bytes that the last restore load brought back, before compression.", []string{"ordinal"}},
	members: Definition{"keepset_restore_member_duration_seconds", "How long the ordinal took.", []string{"ordinal"}},
}

func (m restoreMetrics) list() []Definition { return []Definition{m.rows, m.bytes, m.members} }

// Restore fills the group of a `restore run`; nil when it had no plan yet.
func (g *Group) Restore(r *job.RestoreReport) {
	if r == nil {
		return
	}
	for _, m := range r.Members {
		ordinal := strconv.Itoa(m.Ordinal)
		g.add(ofRestore.rows, float64(m.Rows), ordinal)
		g.add(ofRestore.members, m.Seconds, ordinal)
	}
}

// Load fills the group of a `restore load` that has succeeded.
func (g *Group) Load(r *job.LoadReport) {
	ordinal := strconv.Itoa(r.Ordinal)
	g.add(ofRestore.rows, float64(r.Rows), ordinal)
	g.add(ofRestore.bytes, float64(r.Bytes), ordinal)
	g.add(ofRestore.members, r.Seconds, ordinal)
}

type drillMetrics struct{ check, rows, restore, captured Definition }

var ofDrill = drillMetrics{
	check:    Definition{"keepset_drill_check_failed", "1 when the last drill's check has failed, 0 when it has passed; absent when it was not made.", []string{"check"}},
	rows:     Definition{"keepset_drill_rows", "Rows that the last drill restored.", nil},
	restore:  Definition{"keepset_drill_restore_duration_seconds", "How long it took the last drill until the data was there, its server included.", nil},
	captured: Definition{"keepset_drill_captured_timestamp_seconds", "The point in time that the backup holds which was drilled last.", nil},
}

func (m drillMetrics) list() []Definition {
	return []Definition{m.check, m.rows, m.restore, m.captured}
}

// Drill fills the group of a `restore drill`; nil when it had not begun.
func (g *Group) Drill(r *job.DrillReport) {
	if r == nil {
		return
	}
	for _, c := range r.Checks {
		switch c.State {
		case record.ProofOK:
			g.add(ofDrill.check, 0, c.Check)
		case record.ProofFailed:
			g.add(ofDrill.check, 1, c.Check)
		}
	}
	g.add(ofDrill.captured, seconds(r.CapturedAt))
	if r.RestoreSeconds > 0 {
		g.add(ofDrill.rows, float64(r.Rows))
		g.add(ofDrill.restore, r.RestoreSeconds)
	}
}

type statusMetrics struct{ alert, captured, due, backups, drilled Definition }

var ofStatus = statusMetrics{
	alert:    Definition{"keepset_status_alert", "1 when the check has a finding, 0 when it has none; absent when it was not made.", []string{"check"}},
	captured: Definition{"keepset_status_last_complete_timestamp_seconds", "The point in time that the last complete backup holds.", nil},
	due:      Definition{"keepset_status_due_timestamp_seconds", "When the next backup after it is due, by the schedule.", nil},
	backups:  Definition{"keepset_status_backups", "Backups of the set, by what they are.", []string{"status"}},
	drilled:  Definition{"keepset_status_last_drill_timestamp_seconds", "When a restore of the set was last proven.", nil},
}

func (m statusMetrics) list() []Definition {
	return []Definition{m.alert, m.captured, m.due, m.backups, m.drilled}
}

// Status fills the group of a `backup status`.
func (g *Group) Status(r *job.StatusReport) {
	for _, c := range r.Checks {
		switch c.State {
		case job.CheckOK:
			g.add(ofStatus.alert, 0, c.Check)
		case job.CheckAlert:
			g.add(ofStatus.alert, 1, c.Check)
		}
	}
	if !r.CapturedAt.IsZero() {
		g.add(ofStatus.captured, seconds(r.CapturedAt))
	}
	if !r.DueAt.IsZero() {
		g.add(ofStatus.due, seconds(r.DueAt))
	}
	if !r.DrilledAt.IsZero() {
		g.add(ofStatus.drilled, seconds(r.DrilledAt))
	}
	g.addStatuses(ofStatus.backups, r.Backups)
}
