package metrics

import (
	"strconv"

	"keepset/internal/job"
)

type backupMetrics struct {
	bytes, stored, rows, objects, lock, duration, captured, members Definition
}

var ofBackup = backupMetrics{
	bytes:    Definition{"keepset_backup_bytes", "Bytes that the member's last capture holds, before compression.", []string{"ordinal"}},
	stored:   Definition{"keepset_backup_stored_bytes", "Bytes of it that were new in the store.", []string{"ordinal"}},
	rows:     Definition{"keepset_backup_rows", "Rows that it holds.", []string{"ordinal"}},
	objects:  Definition{"keepset_backup_objects", "Tables, views, routines and the like that it holds.", []string{"ordinal"}},
	lock:     Definition{"keepset_backup_lock_seconds", "For how long the server's writers were kept waiting.", []string{"ordinal"}},
	duration: Definition{"keepset_backup_member_duration_seconds", "How long the member took.", []string{"ordinal"}},
	captured: Definition{"keepset_backup_captured_timestamp_seconds", "The point in time that it holds.", []string{"ordinal"}},
	members:  Definition{"keepset_backup_members", "Members of the last run that are complete, suspect and failed.", []string{"status"}},
}

func (m backupMetrics) list() []Definition {
	return []Definition{m.bytes, m.stored, m.rows, m.objects, m.lock, m.duration, m.captured, m.members}
}

// Backup fills the group of a `backup run`. A report without a status is one of
// a run that failed before it had a plan.
func (g *Group) Backup(r *job.BackupReport, share job.Share) {
	if share.Of > 1 {
		g.Share = strconv.Itoa(share.Index)
	}
	if r == nil || r.Status == "" {
		return
	}
	states := map[string]int{job.StatusComplete: 0, job.StatusSuspect: 0, job.StatusFailed: 0}
	for _, m := range r.Members {
		states[m.Status]++
		if m.Status == job.StatusFailed {
			continue
		}
		ordinal := strconv.Itoa(m.Ordinal)
		g.add(ofBackup.bytes, float64(m.Bytes), ordinal)
		g.add(ofBackup.stored, float64(m.Stored), ordinal)
		g.add(ofBackup.rows, float64(m.Rows), ordinal)
		g.add(ofBackup.objects, float64(m.Objects), ordinal)
		if !m.CapturedAt.IsZero() {
			g.add(ofBackup.captured, seconds(m.CapturedAt), ordinal)
		}
		if !m.Resumed { // an earlier attempt has said how long it took
			g.add(ofBackup.lock, m.LockSeconds, ordinal)
			g.add(ofBackup.duration, m.Seconds, ordinal)
		}
	}
	for status, n := range states {
		g.add(ofBackup.members, float64(n), status)
	}
}
