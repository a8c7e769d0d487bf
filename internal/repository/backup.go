package repository

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"keepset/internal/record"
)

// Backup is a backup being written by one attempt. Its members may be
// written at the same time; they share one index, so that what one has stored
// another does not store again.
type Backup struct {
	r        *Repository
	layout   layout
	attempt  record.AttemptID
	plan     record.Plan
	planHash hash
	planTime time.Time

	mu       sync.Mutex
	closed   bool
	pipeline *pipeline
	members  []*MemberWriter // being written
	stop     context.CancelFunc
	done     chan struct{}

	condemned *condemned // as read when the backup was begun

	// The rest belongs to whoever loads the index, and then to the
	// goroutine that writes checkpoints.
	agedParts  map[hash]struct{} // see Options.ReuseWithin
	started    bool
	absorbed   map[writerName]int
	previous   []record.ObjectRef
	remembered map[int][]record.ObjectRef // memos of an earlier container of this pod
	sequence   int
	noted      int

	recall *recall
}

// Begin writes the plan, or adopts the one that an earlier attempt at the same
// backup wrote: [Backup.Plan] says which. The caller fills ID, Set, Origin,
// CreatedAt, Method, Engine, Members and what else it knows. ErrOrigin when
// the set's keys belong to another cluster; ErrNoKey when a key is missing; ErrCondemned.
func (r *Repository) Begin(ctx context.Context, plan record.Plan, attempt record.AttemptID) (*Backup, error) {
	plan.Header = record.NewHeader(record.KindPlan)
	plan.Repository = r.config.Repository
	plan.Epoch = r.planEpoch()
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	if err := attempt.Validate(); err != nil {
		return nil, err
	}
	if err := r.canWrite(); err != nil {
		return nil, err
	}
	if err := r.requireKeyFiles(ctx); err != nil {
		return nil, err
	}
	l := layout{plan.Set}
	if err := r.claimOrigin(ctx, l, plan.Origin); err != nil {
		return nil, err
	}
	b := &Backup{
		r: r, layout: l, attempt: attempt, absorbed: make(map[writerName]int), remembered: make(map[int][]record.ObjectRef),
		recall: newRecall(r, l),
	}
	if err := b.storePlan(ctx, &plan); err != nil {
		return nil, err
	}
	if err := b.readCondemned(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// readCondemned reads what prunes are about to delete, after the plan is stored:
// a prune that has not been seen here sees the commits. A backup that is condemned
// itself was deleted by the user while it ran, and this is the next attempt at it:
// the next prune would delete all that it commits.
func (b *Backup) readCondemned(ctx context.Context) (err error) {
	if b.condemned, err = b.r.condemned(ctx, b.layout); err != nil {
		return err
	}
	if b.condemned.hasBackup(b.plan.ID) {
		return fmt.Errorf("%w: %s, and the next prune deletes all that is written for it; start a new one: delete its Job, or leave out --id", ErrCondemned, b.plan.ID)
	}
	return nil
}

// storePlan writes the plan; when there is one already, that one counts.
func (b *Backup) storePlan(ctx context.Context, plan *record.Plan) error {
	data, err := record.Encode(plan, b.r.keys.Writer)
	if err != nil {
		return err
	}
	key := b.layout.plan(plan.ID)
	_, err = b.r.store.Stat(ctx, key)
	if isNotExist(err) {
		err = putContent(ctx, b.r.store, key, data)
	}
	if err != nil {
		return fmt.Errorf("store plan: %w", err)
	}
	object, err := b.r.store.Stat(ctx, key)
	if err != nil {
		return fmt.Errorf("look at the stored plan: %w", err)
	}
	stored, sum, err := b.r.readPlan(ctx, b.layout, plan.ID, object.LastModified, nil)
	if err != nil {
		return fmt.Errorf("read the stored plan %s: %w", key, err)
	}
	if stored.KeyEpoch() != plan.KeyEpoch() {
		return fmt.Errorf("%w: backup %s was begun with the keys of epoch %d, and these are of epoch %d; start a new one: delete its Job, or leave out --id", ErrWrongKey, plan.ID, stored.KeyEpoch(), plan.KeyEpoch())
	}
	if sum != hash(sha256.Sum256(data)) {
		b.r.log.Info("continuing a backup that was begun before", "backup", plan.ID, "planned", stored.CreatedAt)
	}
	b.plan, b.planHash, b.planTime = stored, sum, object.LastModified
	return nil
}

// Plan returns the plan as it is stored. It may be an earlier attempt's, and
// it is the one that counts.
func (b *Backup) Plan() record.Plan { return b.plan }

// Committed returns the valid commit of a member that an earlier attempt, or
// another pod, has written.
func (b *Backup) Committed(ctx context.Context, ordinal int) (record.Commit, bool, error) {
	info, err := b.r.Backup(ctx, b.plan.Set, b.plan.ID)
	if err != nil {
		return record.Commit{}, false, err
	}
	member := info.Members[ordinal]
	return member.Commit, member.Valid, nil
}

// Member starts writing one planned member. The first call reads the index.
func (b *Backup) Member(ctx context.Context, ordinal int) (*MemberWriter, error) {
	planned, ok := b.plan.Member(ordinal)
	if !ok {
		return nil, fmt.Errorf("ordinal %d is not in the plan of %s", ordinal, b.plan.ID)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fmt.Errorf("backup %s: %w", b.plan.ID, ErrClosed)
	}
	if b.pipeline == nil {
		if err := b.start(ctx); err != nil {
			return nil, err
		}
	}
	w := newMemberWriter(b, planned)
	b.members = append(b.members, w)
	return w, nil
}

// start makes the pipeline, fills its index, and begins to write checkpoints.
func (b *Backup) start(ctx context.Context) error {
	p, err := newPipeline(b.r, b.layout)
	if err != nil {
		return err
	}
	b.pipeline = p
	if err := b.loadIndex(ctx); err != nil {
		b.pipeline = nil
		return errors.Join(err, p.close())
	}
	run, stop := context.WithCancel(p.ctx)
	b.stop, b.done = stop, make(chan struct{})
	go b.checkpoints(run)
	return nil
}

// forget is called when a member is committed or aborted.
func (b *Backup) forget(w *MemberWriter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members = slices.DeleteFunc(b.members, func(other *MemberWriter) bool { return other == w })
}

// Report stores the report of the run, encrypted to I.
func (b *Backup) Report(ctx context.Context, report any) error {
	plain, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	data, _, err := b.r.codec.seal(append(plain, '\n'), b.r.partRecipient())
	if err != nil {
		return fmt.Errorf("store report: %w", err)
	}
	err = putContent(ctx, b.r.store, b.layout.report(b.plan.ID, b.attempt), data)
	if err != nil {
		return fmt.Errorf("store report: %w", err)
	}
	return nil
}

// Close ends the backup and frees what it holds. Members that are not
// committed are given up.
func (b *Backup) Close() error {
	b.mu.Lock()
	members, p, closed := b.members, b.pipeline, b.closed
	b.members, b.closed = nil, true
	b.mu.Unlock()
	if closed || p == nil {
		return nil
	}
	for _, w := range members {
		w.giveUp(ErrClosed)
	}
	b.stop()
	<-b.done
	return p.close()
}
