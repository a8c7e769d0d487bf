package repository

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// judge fills info from the plan and the commits. Only a store that fails is
// an error; a record that does not count is a problem of the backup.
func (r *Repository) judge(ctx context.Context, l layout, info *BackupInfo, f *found) error {
	info.Members = make(map[int]MemberInfo)
	info.Unchecked = r.Signed() && len(r.trusted()) == 0
	if info.Unchecked {
		info.Problems = append(info.Problems, "signatures were not checked: no trusted writer key is configured; set "+NameTrustedWriters)
	}
	if err := r.readAccepted(ctx, l, info, f.accepts); err != nil {
		return err
	}
	if err := r.judgePlan(ctx, l, info, f.plan); err != nil {
		return err
	}
	slices.SortFunc(f.commits, earlier)
	for _, object := range f.commits {
		if err := r.judgeCommit(ctx, l, info, object); err != nil {
			return err
		}
	}
	info.Status = r.status(info)
	if info.Condemned {
		info.Problems = append(info.Problems, "condemned by prune: about to be deleted")
	}
	return nil
}

// earlier orders commits so that the one that counts comes first.
func earlier(a, b storage.Object) int {
	return cmp.Or(a.LastModified.Compare(b.LastModified), cmp.Compare(a.Key, b.Key))
}

// fault is a stored plan or commit that does not count.
type fault struct {
	key string
	// ordinal of a commit; everyOrdinal for a plan.
	ordinal int
	// what is wrong with the object; problem says it in a line of the backup.
	what, problem string
	// err is why; nil when the object is not there.
	err error
	// replaced: it is a good commit for a plan that another pod overwrote.
	replaced bool
}

// everyOrdinal stands for all members of a backup.
const everyOrdinal = -1

// add notes a fault, and that the user is told of it.
func (b *BackupInfo) add(f fault) {
	b.faults = append(b.faults, f)
	b.Problems = append(b.Problems, f.problem)
}

// errQuarantined is an ErrForged that may only mean that the bucket is a copy.
var errQuarantined = fmt.Errorf("%w: quarantined", ErrForged)

// errOtherPlan is what a pod commits whose plan another pod has overwritten,
// where the store cannot make writes conditional.
var errOtherPlan = fmt.Errorf("%w: it was made for another plan", ErrForged)

// errNoPlan is a commit whose signature is right, of a backup whose plan does not count.
var errNoPlan = fmt.Errorf("%w: there is no valid plan", ErrForged)

// unreadable says whether err is about the bytes of a record, not the store.
func unreadable(err error) bool {
	for _, target := range []error{
		record.ErrInvalid, record.ErrNewerFormat, record.ErrUnsigned,
		record.ErrSignature, record.ErrUntrusted, ErrForged, ErrDamaged, ErrVoid,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func (r *Repository) judgePlan(ctx context.Context, l layout, info *BackupInfo, object storage.Object) error {
	f := fault{key: l.plan(info.ID), ordinal: everyOrdinal}
	if object.Key == "" {
		f.what, f.problem = "missing", "the plan is missing"
		info.add(f)
		return nil
	}
	info.PlanTime = object.LastModified
	plan, sum, err := r.readPlan(ctx, l, info.ID, object.LastModified, info.accepted.times)
	f.err = err
	switch {
	case err == nil:
		info.Plan, info.planHash = plan, sum
		return nil
	case isNotExist(err):
		f.what, f.problem = "listed, but not there", "the plan was deleted during the listing"
	case errors.Is(err, errQuarantined):
		f.what = err.Error() + "; what was copied is read with --accept-copied-times, and counts once it is adopted (backup adopt)"
		f.problem = "plan: " + f.what
	case unreadable(err):
		f.what, f.problem = err.Error(), "plan: "+err.Error()
	default:
		return err
	}
	info.add(f)
	return nil
}

// readPlan reads the plan of a backup, checks who wrote it and that it is
// where and when it says it is; the times of those that are adopted say nothing.
// It also returns the hash of its bytes.
func (r *Repository) readPlan(ctx context.Context, l layout, id record.BackupID, stored time.Time, adopted map[hash]bool) (record.Plan, hash, error) {
	var plan record.Plan
	data, err := getAll(ctx, r.store, l.plan(id))
	if err != nil {
		return plan, hash{}, err
	}
	sum := hash(sha256.Sum256(data))
	if err := r.decodeSigned(data, &plan, r.timeOf(id, stored, adopted[sum])); err != nil {
		return record.Plan{}, hash{}, err
	}
	if plan.ID != id || plan.Set != l.set || plan.Repository != r.config.Repository {
		return record.Plan{}, hash{}, fmt.Errorf("%w: it is the plan of %s of %s in repository %s", ErrForged, plan.ID, plan.Set, plan.Repository)
	}
	if off := stored.Sub(id.Time()).Abs(); off > r.longest() && !r.options.AcceptCopiedTimes && !adopted[sum] {
		return record.Plan{}, hash{}, fmt.Errorf("%w, since its ID and the time it was stored differ by %s, more than %s: copied, forged, or written with a wrong clock", errQuarantined, off.Round(time.Minute), r.longest())
	}
	return plan, sum, nil
}

// timeOf is when a record of a backup came to be: when it was stored, and of a
// copy, whose times say nothing, what its ID says.
func (r *Repository) timeOf(id record.BackupID, stored time.Time, adopted bool) time.Time {
	if adopted || r.options.AcceptCopiedTimes {
		return id.Time()
	}
	return stored
}

func (r *Repository) judgeCommit(ctx context.Context, l layout, info *BackupInfo, object storage.Object) error {
	_, ordinal, attempt, _ := l.parseCommitKey(object.Key)
	if info.Members[ordinal].Valid {
		return nil // an earlier one counts
	}
	member := MemberInfo{CommitTime: object.LastModified}
	commit, sum, err := r.readCommit(ctx, l, info, object)
	switch {
	case isNotExist(err):
		return nil // deleted during the listing
	case err == nil:
		member.Commit, member.Valid = commit, true
		member.sum, member.Accepted = sum, commit.Status == record.StatusSuspect && info.accepted.suspect[sum]
	case unreadable(err):
		member.Why = err.Error()
		problem := fmt.Sprintf("commit of ordinal %d, attempt %s: %v", ordinal, attempt, err)
		if info.planHash.IsZero() { // the plan is at fault, and it is named already
			info.Problems = append(info.Problems, problem)
			info.planLost = info.planLost || errors.Is(err, errNoPlan)
		} else {
			info.add(fault{key: object.Key, ordinal: ordinal, what: member.Why, problem: problem, err: err, replaced: errors.Is(err, errOtherPlan)})
		}
	default:
		return err
	}
	if _, seen := info.Members[ordinal]; !seen || member.Valid {
		info.Members[ordinal] = member
	}
	return nil
}

// readCommit reads a commit and says why it does not count, if so. It also
// returns the hash of its bytes.
func (r *Repository) readCommit(ctx context.Context, l layout, info *BackupInfo, object storage.Object) (record.Commit, hash, error) {
	var c record.Commit
	data, err := getAll(ctx, r.store, object.Key)
	if err != nil {
		return c, hash{}, err
	}
	sum := hash(sha256.Sum256(data))
	if err := r.decodeSigned(data, &c, r.timeOf(info.ID, object.LastModified, info.accepted.times[sum])); err != nil {
		return record.Commit{}, hash{}, err
	}
	if err := r.checkCommit(l, info, object, &c, sum); err != nil {
		return record.Commit{}, hash{}, err
	}
	return c, sum, nil
}

// checkCommit compares a commit with the place and the time at which it is
// stored, and with its plan.
func (r *Repository) checkCommit(l layout, info *BackupInfo, object storage.Object, c *record.Commit, sum hash) error {
	_, ordinal, attempt, _ := l.parseCommitKey(object.Key)
	_, planned := info.Plan.Member(ordinal)
	timed := !r.options.AcceptCopiedTimes && !info.accepted.times[sum]
	switch {
	case c.Backup != info.ID || c.Set != l.set || c.Ordinal != ordinal || c.Attempt != attempt || c.Repository != r.config.Repository:
		return fmt.Errorf("%w: it is the commit of ordinal %d of %s of %s in repository %s", ErrForged, c.Ordinal, c.Backup, c.Set, c.Repository)
	case info.planHash.IsZero():
		return errNoPlan
	case c.PlanSHA256 != info.planHash:
		return errOtherPlan
	case !planned:
		return fmt.Errorf("%w: the plan has no ordinal %d", ErrForged, ordinal)
	case timed && object.LastModified.Sub(info.PlanTime) > r.longest():
		return fmt.Errorf("%w: stored %s after its plan, at most %s is allowed", ErrVoid, object.LastModified.Sub(info.PlanTime).Round(time.Second), r.longest())
	case timed && info.PlanTime.Sub(object.LastModified) > r.config.Slack.Duration():
		return fmt.Errorf("%w: stored before its plan", errQuarantined)
	}
	return nil
}

func (r *Repository) status(info *BackupInfo) Status {
	if info.planHash.IsZero() {
		return StatusInvalid
	}
	status := StatusComplete
	for _, planned := range info.Plan.Members {
		member, ok := info.Members[planned.Ordinal]
		if !member.Valid {
			status = StatusIncomplete
			if !ok {
				info.Problems = append(info.Problems, fmt.Sprintf("ordinal %d (%s) has no commit", planned.Ordinal, planned.Name))
			}
			continue
		}
		if member.Suspect() {
			info.Problems = append(info.Problems, fmt.Sprintf("ordinal %d is suspect: %v", planned.Ordinal, member.Commit.Reasons))
			if status == StatusComplete {
				status = StatusSuspect
			}
		}
	}
	if info.Unchecked && status != StatusIncomplete {
		return StatusUnchecked
	}
	return status
}
