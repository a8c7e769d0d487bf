package job

import (
	"context"
	"fmt"

	"keepset/internal/repository"
)

// drill looks when a restore of the set was last proven, and how the last drill ended.
func (l *look) drill(ctx context.Context) Check {
	c := Check{Check: CheckDrill, State: CheckOK}
	if !l.Repository.ProofsCount() {
		c.State, c.What = CheckUnchecked, "no key of drills is trusted, so that their proofs say nothing"
		c.Remedy = "set " + repository.NameTrustedProvers
		return c
	}
	if err := l.Repository.ReadDrills(ctx, l.Set, l.infos); err != nil {
		return l.fail(CheckDrill, err)
	}
	var last, good *repository.Drill
	for i := range l.infos {
		for j := range l.infos[i].Drills {
			d := &l.infos[i].Drills[j]
			if last == nil || d.At.After(last.At) {
				last = d
			}
			if d.Passed && (good == nil || d.At.After(good.At)) {
				good = d
			}
		}
	}
	const remedy = "restore drill (docs/drill.md)"
	passed := "no restore was ever proven"
	if good != nil {
		l.report.LastDrilled, l.report.DrilledAt = good.Backup, good.At.UTC()
		passed = fmt.Sprintf("the last restore was proven %s, of backup %s, in %.1f s", l.ago(good.At), good.Backup, good.RestoreSeconds)
	}
	switch {
	case last != nil && !last.Passed:
		c.State, c.What = CheckAlert, fmt.Sprintf("the drill of backup %s, %s, has failed; %s", last.Backup, l.ago(last.At), passed)
		c.Remedy = "read the log of that drill, and repeat it: " + remedy
	case l.DrillWithin > 0 && (good == nil || l.now.Sub(good.At) > l.DrillWithin):
		c.State, c.What, c.Remedy = CheckAlert, passed, remedy
	case good == nil:
		c.State, c.What, c.Remedy = CheckUnchecked, passed, remedy
	default:
		c.What = passed
	}
	return c
}
