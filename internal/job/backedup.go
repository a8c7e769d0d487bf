package job

import (
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"keepset/internal/record"
)

// backedUpMember is a member of a backup with what its engine said of it.
type backedUpMember struct {
	record.PlannedMember
	report    record.Report
	snapshots []record.VolumeSnapshot
	// stored is how many bytes its streams have: of files with their names, and
	// without the holes of sparse ones.
	stored int64
}

// backedUp are the valid members of a backup, by ordinal.
type backedUp []backedUpMember

// find returns the report of an ordinal.
func (b backedUp) find(ordinal int) (record.Report, bool) {
	for _, m := range b {
		if m.Ordinal == ordinal {
			return m.report, true
		}
	}
	return record.Report{}, false
}

// report is find for an ordinal that is known to be there.
func (b backedUp) report(ordinal int) record.Report {
	r, _ := b.find(ordinal)
	return r
}

// least is how many bytes an ordinal's files take at the very least.
func (b backedUp) least(ordinal int) int64 {
	for _, m := range b {
		if m.Ordinal == ordinal {
			return min(m.report.Bytes, m.stored)
		}
	}
	return 0
}

// templates are those of the claims that an ordinal had as far as it was backed up; none
// outside of Kubernetes.
func (b backedUp) templates(ordinal int) (names []string) {
	for _, m := range b {
		for _, c := range m.Claims {
			if m.Ordinal == ordinal && c.Template != "" {
				names = append(names, c.Template)
			}
		}
	}
	return names
}

// minded tells whether the storage that an ordinal's files come from minded how much
// its claim had. It did not if the files had more, as NFS and local directories let
// them; where nobody knows, it is taken to.
func (b backedUp) minded(ordinal int, template string) bool {
	for _, m := range b {
		for _, c := range m.Claims {
			size, err := resource.ParseQuantity(c.Size)
			if m.Ordinal == ordinal && c.Template == template && err == nil && size.Value() < b.least(ordinal) {
				return false
			}
		}
	}
	return true
}

// snapshots are the volume snapshots of an ordinal.
func (b backedUp) snapshots(ordinal int) []record.VolumeSnapshot {
	for _, m := range b {
		if m.Ordinal == ordinal {
			return m.snapshots
		}
	}
	return nil
}

// alone are the members that followed nobody: the primary of a set that
// replicates, all members of one that does not.
func (b backedUp) alone() backedUp {
	var alone backedUp
	for _, m := range b {
		if m.report.Coordinates.Upstream == nil {
			alone = append(alone, m)
		}
	}
	return alone
}

// primary is the first member that followed nobody, else the healthiest follower.
func (b backedUp) primary() int {
	if alone := b.alone(); len(alone) > 0 {
		return alone[0].Ordinal
	}
	return b.healthiest()
}

// healthiest is the follower whose replication ran and that was least behind,
// of equal ones the one captured last; without a follower, the first member.
func (b backedUp) healthiest() int {
	best := -1
	for i, m := range b {
		if m.report.Coordinates.Upstream == nil {
			continue
		}
		if best < 0 || healthier(m.report, b[best].report) {
			best = i
		}
	}
	return b[max(best, 0)].Ordinal
}

// healthier compares two followers.
func healthier(a, b record.Report) bool {
	x, y := a.Coordinates.Upstream, b.Coordinates.Upstream
	if x.Running != y.Running {
		return x.Running
	}
	// A lag of -1 means that the server could not say.
	if (x.LagSeconds < 0) != (y.LagSeconds < 0) {
		return x.LagSeconds >= 0
	}
	if x.LagSeconds != y.LagSeconds {
		return x.LagSeconds < y.LagSeconds
	}
	return a.CapturedAt.After(b.CapturedAt)
}

// ordinals lists them for a message.
func (b backedUp) ordinals() string {
	texts := make([]string, 0, len(b))
	for _, m := range b {
		texts = append(texts, strconv.Itoa(m.Ordinal))
	}
	return strings.Join(texts, ", ")
}
