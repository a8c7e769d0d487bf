package job

import (
	"fmt"

	"keepset/internal/statefulset"
)

// checkRoom refuses to fill claims with files that obviously do not fit: the seed pod
// would find that out when the claims that were there are gone. How much a volume will
// hold, only its storage knows. It may give more than is asked for, which claims that
// the template has made show, or not mind at all, which files show that had more than
// their claim when they were backed up. Where neither does, the user says so. What is
// a little too large for its file system is not noticed here.
func (r *Restore) checkRoom(set statefulset.Set, plan *RestorePlan, members backedUp) error {
	if r.Files == nil || r.Request.AllowSmallClaim {
		return nil
	}
	for _, item := range plan.Items {
		name := r.Files.Spec.Template
		if item.Place != nil {
			name = item.Place.Template
		}
		template, err := set.ClaimTemplate(name)
		if err != nil {
			return err
		}
		room, known := set.Room(template)
		if least := members.least(item.Base); known && !item.Keep && least > room && members.minded(item.Base, template.Name) {
			return fmt.Errorf("%w: the files of ordinal %d have %d bytes, and the claim that they go to is of the template %s, which asks for %s: they will not fit; "+
				"change the template (kubectl delete statefulset %s --cascade=orphan, and apply the set anew), or consent with --allow-small-claim where its storage gives more than is asked for, or compresses",
				ErrNeedsConsent, item.Base, least, template.Name, template.Size, set.Name)
		}
	}
	return nil
}
