package job

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"keepset/internal/statefulset"
)

// Notes travel in the stored plan, whose size is limited: how many there are,
// how many of them repeat one member's warnings, and how many bytes one has.
const (
	mostNotes    = 50
	mostWarnings = 10
	noteBytes    = 500
)

// note adds what the user should know, once.
func (p *RestorePlan) note(format string, args ...any) {
	const more = "there is more to know than this plan has room for; restore fewer ordinals at a time to see it"
	text := fmt.Sprintf(format, args...)
	if len(text) > noteBytes {
		text = strings.ToValidUTF8(text[:noteBytes], "") + "..."
	}
	if slices.Contains(p.Notes, text) {
		return
	}
	switch {
	case len(p.Notes) < mostNotes:
		p.Notes = append(p.Notes, text)
	case len(p.Notes) == mostNotes:
		p.Notes = append(p.Notes, more)
	}
}

// noteFollowing warns of an upstream that may not be the primary any more: it
// was itself a follower when it was backed up, or it is not the first ordinal
// and was the primary then, or it is the first ordinal because the recorded
// upstream, an address or a Service perhaps, is not known as a member.
func (r *Restore) noteFollowing(plan *RestorePlan, set statefulset.Set, members backedUp, item RestoreItem) {
	host, _, err := net.SplitHostPort(item.Follow)
	if err != nil || item.Beginning {
		return
	}
	recorded := members.report(item.Base).Coordinates.Upstream
	switch {
	case r.Request.Follow != "":
	case recorded != nil && hostOf(set, set.Start, host) && !hostOf(set, set.Start, recorded.Host):
		plan.note("ordinal %d will follow the first ordinal, %d: the backed-up server followed %s:%d, which is no name of a member that could be followed; name the primary with --as-follower-of if it is another one",
			item.Ordinal, set.Start, recorded.Host, recorded.Port)
	case !hostOf(set, set.Start, host):
		plan.note("ordinal %d will follow %s, as the backed-up server did, and not the first ordinal, %d; name the primary with --as-follower-of if it has changed since",
			item.Ordinal, item.Follow, set.Start)
	}
	for _, m := range members {
		if up := m.report.Coordinates.Upstream; up != nil && hostOf(set, m.Ordinal, host) {
			plan.note("ordinal %d will follow ordinal %d, which was itself a follower of %s:%d when it was backed up; name the primary with --as-follower-of if that is another one",
				item.Ordinal, m.Ordinal, up.Host, up.Port)
		}
	}
}

// noteClaims warns of claims that were changed by hand: the new ones are made
// as the set's templates say, as its controller does it, and may be too small for
// what is loaded. A template cannot be changed in place.
func (p *RestorePlan) noteClaims(set statefulset.Set) {
	if !slices.ContainsFunc(p.Items, func(i RestoreItem) bool { return !i.Keep }) {
		return
	}
	for _, t := range set.Templates {
		for _, c := range set.ClaimsOf(t) {
			if t.Makes(c) {
				continue
			}
			p.note("claim %s asks for %s, and its template in the set for %s, which is what new claims get (not less than a volume snapshot's size); "+
				"to change the template: kubectl delete statefulset %s --cascade=orphan, and apply the set anew, before the restore",
				c.Name, sizeOf(c.Request, c.Class), sizeOf(t.Size, t.Class), set.Name)
			break
		}
	}
}

func sizeOf(size, class string) string {
	if class == "" {
		class = "the default class"
	}
	return size + " of " + class
}

// noteWarnings repeats what was warned of when the members that are going to be
// loaded were backed up: such as tables that a restart empties.
func (p *RestorePlan) noteWarnings(members backedUp) {
	for i, item := range p.Items {
		if slices.ContainsFunc(p.Items[:i], func(before RestoreItem) bool { return before.Base == item.Base }) {
			continue
		}
		warnings := members.report(item.Base).Warnings
		for _, warning := range warnings[:min(len(warnings), mostWarnings)] {
			p.note("the backup of ordinal %d says: %s", item.Base, warning)
		}
		if more := len(warnings) - mostWarnings; more > 0 {
			p.note("the backup of ordinal %d says %d things more; backup show %s lists them", item.Base, more, p.Backup)
		}
	}
}
