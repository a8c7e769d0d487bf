package job

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// checkSeedable refuses, before anything is touched, a backup that no seed pod
// can be filled from.
func checkSeedable(p *record.Plan) error {
	switch {
	case p.Method == record.MethodFiles:
		return errTree(p.ID)
	case p.Method == record.MethodPhysical:
		return errBase(p.ID)
	case p.Engine == command.Name:
		return fmt.Errorf("%w: backup %s was taken by a command, and only a command can bring it back, into a pod that runs: restore load --engine %s", ErrConfig, p.ID, command.Name)
	case p.Engine == "postgres":
		return fmt.Errorf("%w: backup %s is a dump of PostgreSQL, which ordinals are not seeded from: start the set, and fill its server with `restore load`; a base backup (--method physical) seeds them", ErrConfig, p.ID)
	}
	return nil
}

// checkKnown refuses to guess what a lost ordinal was whose member was left out
// of the backup, when no other member followed anybody either: a follower of
// the one that was backed up, or a server with rows of its own, which would be
// replaced by another's.
func (r *Restore) checkKnown(p *record.Plan, members backedUp, mode string, ordinal int) error {
	said := r.Request.Follow != "" || r.Request.Base >= 0
	if said || mode != ModeRecovery || !leftOut(p, ordinal) || len(members.alone()) < len(members) {
		return nil
	}
	return fmt.Errorf("%w: backup %s was taken without ordinal %d, and none of its members followed another server, so that it does not say whether ordinal %d is a follower: "+
		"give --as-follower-of host:port if it is, --as-follower-of none for what it held itself", ErrConfig, p.ID, ordinal, ordinal)
}

// checkTemplate refuses to bring the files of claims of one template into those of
// another that the set has as well: both may be in one repository, and the newest
// backup is of either.
func (r *Restore) checkTemplate(set statefulset.Set, plan *RestorePlan, members backedUp) error {
	if r.Files == nil || plan.Method != record.MethodFiles {
		return nil
	}
	into, err := set.ClaimTemplate(r.Files.Spec.Template)
	if err != nil {
		return err
	}
	for _, item := range plan.Items {
		for _, from := range members.templates(item.Base) {
			has := slices.ContainsFunc(set.Templates, func(t statefulset.ClaimTemplate) bool { return t.Name == from })
			if has && from != into.Name && !item.Keep {
				return fmt.Errorf("%w: backup %s holds the files of claims of template %s, and they would go to those of template %s: choose another backup by --backup, or another template by --claim-template",
					ErrConfig, plan.Backup, from, into.Name)
			}
		}
	}
	return nil
}

// checkRollback refuses to bring a primary back to an older state while its
// followers live on: they would be ahead of it and break. A follower need not
// be Ready for that, since one that lost its primary may well not be. Files have
// no followers that anybody knew of.
func (r *Restore) checkRollback(set statefulset.Set, plan *RestorePlan) error {
	if r.Request.AllowRollback || plan.Mode != ModeRecovery || plan.Method == record.MethodFiles {
		return nil
	}
	for _, item := range plan.Items {
		if item.Follow != "" {
			continue
		}
		var live []string
		for _, m := range set.Members {
			planned := slices.ContainsFunc(plan.Items, func(i RestoreItem) bool { return i.Ordinal == m.Ordinal })
			if !planned && m.Pod.Exists && !m.Pod.Seed {
				live = append(live, m.Pod.Name)
			}
		}
		if len(live) > 0 {
			return fmt.Errorf("%w: ordinal %d follows nobody, and %s live on: if they follow it, they are ahead of the backup and will break; "+
				"take a fresh backup of the most advanced of them and restore from that, or consent with --allow-rollback", ErrNeedsConsent, item.Ordinal, strings.Join(live, ", "))
		}
	}
	return nil
}

// checkUpstreams asks each upstream that exists by now whether it still has
// the logs from the coordinates on. From outside of the cluster it may not be
// reachable; then the run inside of it will ask. The replication account has
// to be known for those, too, that this restore will only bring up.
func (r *Restore) checkUpstreams(ctx context.Context, set statefulset.Set, plan *RestorePlan, members backedUp, mayBeUnreachable bool) error {
	for _, item := range plan.Items {
		if item.Follow == "" || item.Keep {
			continue
		}
		follows, err := r.checkUpstream(ctx, plan, item, members.report(item.Base))
		if errors.Is(err, dbdump.ErrUnreachable) && mayBeUnreachable {
			plan.note("not checked from here whether %s still has the logs that ordinal %d needs; the restore checks it before it touches anything", item.Follow, item.Ordinal)
			continue
		}
		if err != nil {
			return fmt.Errorf("check that %s can be followed by ordinal %d of %s: %w", item.Follow, item.Ordinal, set.Name, err)
		}
		if follows && r.Request.Follow == "" {
			plan.note("ordinal %d will follow %s, which is set up to follow another server by now; name the primary with --as-follower-of if that is another one", item.Ordinal, item.Follow)
		}
	}
	return nil
}

// checkUpstream also tells whether the upstream is itself set up to follow
// another server, as far as the target's account may ask it.
func (r *Restore) checkUpstream(ctx context.Context, plan *RestorePlan, item RestoreItem, report record.Report) (follows bool, err error) {
	if r.filesAlone() {
		return false, r.checkBase(ctx, plan, item)
	}
	up, err := r.Servers.Upstream(item.Follow)
	if err != nil || item.Beginning || unseen(report) {
		return false, err
	}
	engine, err := r.Servers.Target(item.Follow, true)
	if err != nil {
		return false, err
	}
	defer closeEngine(engine)
	f, ok := engine.(dbdump.Follower)
	if !ok {
		return false, fmt.Errorf("%w: this engine's servers cannot follow another", ErrConfig)
	}
	if err := f.Check(ctx, report.Coordinates, up); err != nil {
		return false, err
	}
	if p, ok := engine.(dbdump.Prober); ok && r.Request.Follow == "" { // else the user has said whom, where our account may be nobody
		if follows, err = p.Replicates(ctx); err != nil {
			r.Log.Info("whether the upstream follows another server is not known", "upstream", item.Follow, "error", err)
			return false, ctx.Err()
		}
	}
	return follows, nil
}

// checkBase asks the upstream of a server's files, unless this restore will bring
// that up itself: then only its account has to be known.
func (r *Restore) checkBase(ctx context.Context, plan *RestorePlan, item RestoreItem) error {
	if item.Beginning {
		_, err := r.Files.Base(item)
		return err
	}
	_, err := r.entries(ctx, plan, item)
	return err
}

// checkSlots refuses slots of the upstream's that cannot be there, or serve only one
// standby.
func (r *Restore) checkSlots(set statefulset.Set, plan *RestorePlan) error {
	if r.Request.Slot == "" {
		return nil
	}
	taken := map[string]int{}
	for _, item := range plan.Items {
		switch other, twice := taken[item.Slot]; {
		case item.Slot == "":
			continue
		case item.Beginning || restoresUpstream(set, plan, item):
			return fmt.Errorf("%w: --replication-slot: ordinal %d will follow a primary that this restore brings back, and a backup has no replication slots: leave it out, make them when the set is back, and set primary_slot_name",
				ErrConfig, item.Ordinal)
		case twice:
			return fmt.Errorf("%w: --replication-slot %s: a slot serves one standby, and ordinals %d and %d would share it: write %s into its name, which stands for the ordinal",
				ErrConfig, item.Slot, other, item.Ordinal, SlotOrdinal)
		}
		taken[item.Slot] = item.Ordinal
	}
	if len(taken) == 0 {
		return fmt.Errorf("%w: --replication-slot is for standbys, and none of the ordinals will follow another server", ErrConfig)
	}
	return nil
}

// restoresUpstream says that the plan brings back the very server that an item follows.
func restoresUpstream(set statefulset.Set, plan *RestorePlan, item RestoreItem) bool {
	host, _, err := net.SplitHostPort(item.Follow)
	return err == nil && slices.ContainsFunc(plan.Items, func(other RestoreItem) bool { return hostOf(set, other.Ordinal, host) })
}
