package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

const restorePlanFormat = 1

// RestorePlan is a resolved restore. It is stored under the Job's UID, so that
// a retry restores the same backup to the same ordinals.
type RestorePlan struct {
	Format     int             `json:"format"`
	Run        string          `json:"run"`
	Mode       string          `json:"mode"`
	Set        string          `json:"set"`
	SetUID     string          `json:"setUID"`
	From       record.SetID    `json:"from"`
	Backup     record.BackupID `json:"backup"`
	CapturedAt time.Time       `json:"capturedAt"`
	// Method by which the backup was captured.
	Method string `json:"method"`
	// Incomplete and Suspect: the user allowed a backup that is.
	Incomplete bool `json:"incomplete,omitempty"`
	Suspect    bool `json:"suspect,omitempty"`
	// Replicas before and after.
	ReplicasNow  int           `json:"replicasNow"`
	ReplicasThen int           `json:"replicasThen"`
	Items        []RestoreItem `json:"items"`
	// Notes are what the user should know before it is run.
	Notes []string `json:"notes,omitempty"`
}

// RestoreItem is one ordinal of a RestorePlan.
type RestoreItem struct {
	Ordinal int `json:"ordinal"`
	// Base is the member of the backup that is loaded.
	Base int `json:"base"`
	// Follow is the upstream's host:port; empty for a server that follows nobody.
	Follow string `json:"follow,omitempty"`
	// Beginning: the upstream is itself restored from Base by this restore, so
	// that the follower starts at the beginning of its binary log.
	Beginning bool `json:"beginning,omitempty"`
	// Slot is the replication slot that keeps the upstream's log for the ordinal.
	Slot string `json:"slot,omitempty"`
	// Place is where in the claim a server's files go, for the method physical, and
	// Coordinates what they were recorded with, where its server is asked for that.
	Place       *statefulset.DataPlace `json:"place,omitempty"`
	Coordinates *record.Coordinates    `json:"coordinates,omitempty"`
	// Snapshots are the volume snapshots that the ordinal's claims are made of,
	// and Zone where; for the method snapshot.
	Snapshots []record.VolumeSnapshot `json:"snapshots,omitempty"`
	Zone      string                  `json:"zone,omitempty"`
	// FromCopy: they are made anew of their blocks in the repository.
	FromCopy bool `json:"fromCopy,omitempty"`
	// Replace and Keep are the user's consent, see Request.
	Replace bool `json:"replace,omitempty"`
	Keep    bool `json:"keep,omitempty"`
	// Steps say what will be done, in words.
	Steps []string `json:"steps,omitempty"`
}

// Resolve makes the plan and checks everything that can be checked before
// something is touched. It changes nothing. An upstream that cannot be reached
// from outside of the cluster is a note of the plan: the Job will ask it.
func (r *Restore) Resolve(ctx context.Context) (*RestorePlan, error) {
	return r.resolve(ctx, r.Run.Local)
}

// resolve is Resolve; the plan that is going to be executed from here does not
// let an upstream off that cannot be asked.
func (r *Restore) resolve(ctx context.Context, mayBeUnreachable bool) (*RestorePlan, error) {
	set, err := r.discover(ctx)
	if err != nil {
		return nil, err
	}
	choice := r.Choice
	choice.Whole, choice.Ordinals = true, r.Request.needs(set.Start)
	info, passed, err := choice.resolve(ctx, r.Repository, r.From)
	if err != nil {
		return nil, err
	}
	if err := r.checkMethod(&info.Plan); err != nil {
		return nil, err
	}
	ordinals, replicas, err := r.Request.targets(set, info)
	if err != nil {
		return nil, err
	}
	mode, err := r.Request.mode()
	if err != nil {
		return nil, err
	}
	plan := &RestorePlan{
		Format: restorePlanFormat, Run: r.Run.ID, Mode: mode, Set: set.Namespace + "/" + set.Name, SetUID: set.UID,
		From: r.From, Backup: info.ID, Incomplete: info.Status == repository.StatusIncomplete, Suspect: suspect(info),
		Method: info.Plan.Method, ReplicasNow: set.Replicas, ReplicasThen: replicas,
	}
	if passed != "" {
		plan.note("%s", passed)
	}
	if partial := filtered(&info.Plan); partial != "" {
		plan.note("the backup %s: nothing else will be on the restored servers, and a follower breaks when its upstream writes to it", partial)
	}
	if blocking := set.Blocking(ordinals); len(blocking) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrConfig, blocking[0])
	}
	members, err := r.members(ctx, info)
	if err != nil {
		return nil, err
	}
	for _, ordinal := range ordinals {
		item, err := r.resolveItem(set, members, mode, ordinal)
		if err == nil {
			err = r.checkKnown(&info.Plan, members, mode, ordinal)
		}
		if err == nil {
			err = r.placeFiles(set, members.report(item.Base), &item)
		}
		if err != nil {
			return nil, err
		}
		plan.Items = append(plan.Items, item)
		r.noteFollowing(plan, set, members, item)
	}
	plan.CapturedAt = members.report(plan.Items[0].Base).CapturedAt
	if err := errors.Join(r.checkSlots(set, plan), r.checkRollback(set, plan)); err != nil {
		return nil, err
	}
	if err := r.checkTemplate(set, plan, members); err != nil {
		return nil, err
	}
	if err := r.checkRoom(set, plan, members); err != nil {
		return nil, err
	}
	if err := r.checkUpstreams(ctx, set, plan, members, mayBeUnreachable); err != nil {
		return nil, err
	}
	plan.noteClaims(set)
	plan.noteWarnings(members)
	if plan.Method == record.MethodSnapshot {
		if err := r.planVolumes(ctx, set, plan, members); err != nil {
			return nil, err
		}
	}
	return plan, r.addSteps(ctx, set, plan)
}

// members opens every member of the backup that may be loaded.
func (r *Restore) members(ctx context.Context, info repository.BackupInfo) (backedUp, error) {
	return openMembers(ctx, r.Repository, info)
}

// openMembers opens every member of a backup that has a commit that counts.
func openMembers(ctx context.Context, r *repository.Repository, info repository.BackupInfo) (backedUp, error) {
	var found backedUp
	for _, planned := range info.Plan.Members {
		if m := info.Members[planned.Ordinal]; !m.Valid {
			continue
		}
		reader, err := r.OpenMember(ctx, info, planned.Ordinal)
		if err != nil {
			return nil, fmt.Errorf("open ordinal %d of backup %s: %w", planned.Ordinal, info.ID, err)
		}
		member := backedUpMember{PlannedMember: planned, report: reader.Report(), snapshots: reader.VolumeSnapshots()}
		for _, s := range reader.Map().Streams {
			member.stored += s.Size
		}
		found = append(found, member)
		if err := reader.Close(); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: %s of %s has no member that could be loaded", repository.ErrNoEligible, info.ID, info.Set)
	}
	return found, nil
}

// resolveItem decides what one ordinal is filled with and whom it follows.
func (r *Restore) resolveItem(set statefulset.Set, members backedUp, mode string, ordinal int) (RestoreItem, error) {
	item := RestoreItem{Ordinal: ordinal, Replace: r.Request.Replace, Keep: r.Request.Keep}
	follows := r.Request.Follow != "none" && ordinal != set.Start
	if own, ok := members.find(ordinal); ok && r.Request.Follow == "" && !unseen(own) {
		// What the ordinal was when it was backed up, it becomes again; the
		// first ordinal may follow as well, when another is the primary.
		follows = own.Coordinates.Upstream != nil
	}
	if mode == ModeWholeSet {
		follows = r.Request.Follow != "none" && ordinal != set.Start
		item.Beginning = follows
	}
	if r.Request.Follow != "" && r.Request.Follow != "none" {
		follows, item.Follow, item.Beginning = true, r.Request.Follow, false
	}
	base, err := r.base(members, mode, ordinal, follows)
	if err != nil {
		return item, err
	}
	item.Base = base
	if follows && item.Follow == "" {
		recorded := members.report(base).Coordinates.Upstream
		if mode == ModeWholeSet {
			recorded = nil // every ordinal begins anew, behind the first
		}
		item.Follow, err = upstreamOf(set, ordinal, recorded, cmp.Or(r.Seed.Port, r.Seed.DefaultPort))
	}
	if follows {
		item.Slot = strings.ReplaceAll(r.Request.Slot, SlotOrdinal, strconv.Itoa(ordinal))
	}
	return item, err
}

// base chooses the member that is loaded. A server that follows nobody gets
// what its own ordinal held; a follower what the healthiest follower held,
// which disturbs the primary least and says whom it followed; a whole set that
// replicates one and the same member, the primary's if there is one.
func (r *Restore) base(members backedUp, mode string, ordinal int, follows bool) (int, error) {
	if r.Request.Base >= 0 {
		if _, ok := members.find(r.Request.Base); !ok {
			return 0, fmt.Errorf("%w: --base %d: the backup has no valid member of that ordinal; it has %s", ErrConfig, r.Request.Base, members.ordinals())
		}
		return r.Request.Base, nil
	}
	if mode == ModeWholeSet && r.Request.Follow != "none" {
		if alone := members.alone(); len(alone) > 1 {
			return 0, fmt.Errorf("%w: ordinals %s of the backup followed nobody, so that one of them cannot stand for all; "+
				"--as-follower-of none gives each ordinal its own data back, --base names the one that all shall hold", ErrConfig, alone.ordinals())
		}
		return members.primary(), nil
	}
	if !follows {
		if _, ok := members.find(ordinal); ok {
			return ordinal, nil
		}
		return 0, fmt.Errorf("%w: the backup has no valid member of ordinal %d, and no upstream is to be followed; name one of %s with --base", ErrConfig, ordinal, members.ordinals())
	}
	return members.healthiest(), nil
}

// upstreamOf is whom a follower of the set follows by default: the member that
// the backed-up server followed, or else the first ordinal, which is where a
// StatefulSet of MySQL keeps its primary until there is a failover. port is that
// of a pod which is not there yet.
func upstreamOf(set statefulset.Set, ordinal int, recorded *record.UpstreamCoordinates, port int) (string, error) {
	upstream := set.Start
	if recorded != nil {
		for o := set.Start; o < set.Start+set.Replicas; o++ {
			if o != ordinal && hostOf(set, o, recorded.Host) {
				upstream = o
			}
		}
	}
	host := set.Host(upstream)
	if host == "" || ordinal == upstream {
		return "", fmt.Errorf("%w: ordinal %d follows another server, and which one is not known; give --as-follower-of host:port", ErrConfig, ordinal)
	}
	if m, ok := set.Member(upstream); ok && m.Port > 0 {
		port = m.Port
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// hostOf tells whether the host is a name of the ordinal's pod, be it written
// with or without its Service, its namespace and the cluster's domain.
func hostOf(set statefulset.Set, ordinal int, host string) bool {
	given, own := strings.Split(strings.ToLower(host), "."), strings.Split(set.Host(ordinal), ".")
	n := min(len(given), len(own))
	return slices.Equal(given[:n], own[:n])
}

// addSteps says in words what each ordinal's seed will do, and thereby finds
// out whether it would refuse.
func (r *Restore) addSteps(ctx context.Context, set statefulset.Set, plan *RestorePlan) error {
	for i := range plan.Items {
		item := &plan.Items[i]
		spec, err := r.spec(ctx, set, plan, *item)
		if err != nil {
			return err
		}
		seed, err := r.Cluster.NewSeed(set, spec, r.Run, func(context.Context) error { return nil })
		if err != nil {
			return err
		}
		status, err := seed.Inspect(ctx)
		if err != nil {
			return err
		}
		if item.Keep && status.State == statefulset.SeedClaimsExist {
			item.Steps = []string{"keep what is there: " + status.Text}
			continue
		}
		if item.Steps, err = seed.Plan(ctx); err != nil {
			return err
		}
		if item.Place != nil {
			for _, space := range item.Place.Apart {
				item.Steps = append(item.Steps, fmt.Sprintf("the tablespace that was in %s is in %s then", space.Was, space.Seen))
			}
		}
		if item.Ordinal >= set.Start+set.Replicas {
			item.Steps = append(item.Steps, fmt.Sprintf("scale the set to %d", item.Ordinal+1-set.Start))
		}
	}
	return nil
}
