package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// CommitStatus says whether the run has doubts about a member.
type CommitStatus struct {
	Suspect bool
	// Reasons, at least one when suspect.
	Reasons []string
}

// Commit makes the member part of the backup: it waits for all packs, stores
// index parts, map and refs, lists what is needed to see that it is all there,
// and only then stores the commit. It fails when a stream is still open or was
// aborted, with ErrVoid when the backup has taken longer than the repository
// allows, with ErrWrongKey when the writer was retired meanwhile, and when its plan is not the stored one any more. After an error the member is given up.
func (w *MemberWriter) Commit(ctx context.Context, report record.Report, status CommitStatus) (record.Commit, error) {
	c, err := w.commit(ctx, report, status)
	if err != nil {
		err = fmt.Errorf("commit ordinal %d of %s: %w", w.planned.Ordinal, w.b.plan.ID, err)
		w.giveUp(err)
	} else {
		w.mu.Lock()
		w.done = true
		w.mu.Unlock()
	}
	w.b.forget(w)
	return c, err
}

func (w *MemberWriter) commit(ctx context.Context, report record.Report, status CommitStatus) (record.Commit, error) {
	if err := w.pipeline.flush(ctx); err != nil {
		return record.Commit{}, err
	}
	parts, err := w.pipeline.index.finish(ctx)
	if err != nil {
		return record.Commit{}, err
	}
	streams, err := w.finishStreams(ctx)
	if err != nil {
		return record.Commit{}, err
	}
	refs, err := w.storeMap(ctx, report, streams)
	if err != nil {
		return record.Commit{}, err
	}
	refs.Parts = parts
	if refs.Memos, err = w.memos.seal(ctx, 0); err != nil {
		return record.Commit{}, err
	}
	refs.VolumeSnapshots = w.volumes
	refsRef, err := w.storeRefs(ctx, refs)
	if err != nil {
		return record.Commit{}, err
	}
	if err := w.listAll(ctx, refs); err != nil {
		return record.Commit{}, err
	}
	c := w.newCommit(report, status, refsRef, len(streams))
	return c, w.storeCommit(ctx, &c)
}

// storeMap stores the map, and returns refs without parts.
func (w *MemberWriter) storeMap(ctx context.Context, report record.Report, streams []record.Stream) (*record.Refs, error) {
	b := w.b
	pieces := w.pieces
	if pieces == nil {
		pieces = []record.PieceRef{}
	}
	ref, err := w.putRecord(ctx, &record.Map{
		Header: record.NewHeader(record.KindMap), Repository: b.r.config.Repository,
		Backup: b.plan.ID, Set: b.plan.Set, Ordinal: w.planned.Ordinal, Attempt: b.attempt,
		Member: w.planned, Report: report, Pieces: pieces, Streams: streams,
	})
	if err != nil {
		return nil, fmt.Errorf("store map: %w", err)
	}
	maps := append(slices.Clone(w.maps), ref)
	slices.SortFunc(maps, compareRefs)
	return &record.Refs{
		Header: record.NewHeader(record.KindRefs), Repository: b.r.config.Repository,
		Backup: b.plan.ID, Set: b.plan.Set, Ordinal: w.planned.Ordinal, Attempt: b.attempt,
		Map: ref.SHA256, Maps: maps, Packs: w.pipeline.index.packs.refs(w.packs),
	}, nil
}

func (w *MemberWriter) storeRefs(ctx context.Context, refs *record.Refs) (record.ObjectRef, error) {
	data, err := record.Encode(refs, nil)
	if err != nil {
		return record.ObjectRef{}, err
	}
	ref := contentRef(data)
	if err := putContent(ctx, w.b.r.store, w.b.layout.ref(ref.SHA256), data); err != nil {
		return record.ObjectRef{}, fmt.Errorf("store refs: %w", err)
	}
	return ref, nil
}

// listAll sees with its own eyes that every object of refs is in the store in
// its right size.
func (w *MemberWriter) listAll(ctx context.Context, refs *record.Refs) error {
	l, store := w.b.layout, w.b.r.store
	for _, list := range []struct {
		prefix string
		refs   []record.ObjectRef
	}{{l.packs(), refs.Packs}, {l.parts(), mergeRefs(refs.Parts, refs.Memos)}, {l.maps(), refs.Maps}} {
		for missing, err := range compareListing(ctx, store, list.prefix, list.refs) {
			if err != nil {
				return fmt.Errorf("list before the commit: %w", err)
			}
			return fmt.Errorf("%w: %s; something deletes or changes objects: look for a lifecycle rule, then run the backup again", ErrDamaged, missing)
		}
	}
	return nil
}

func (w *MemberWriter) newCommit(report record.Report, status CommitStatus, refs record.ObjectRef, streams int) record.Commit {
	stats := w.Stats()
	c := record.Commit{
		Header: record.NewHeader(record.KindCommit), Repository: w.b.r.config.Repository,
		Backup: w.b.plan.ID, Set: w.b.plan.Set, Ordinal: w.planned.Ordinal, Attempt: w.b.attempt,
		PlanSHA256: w.b.planHash, Refs: refs.SHA256, RefsSize: refs.Size,
		Status: record.StatusComplete, Reasons: status.Reasons,
		Rows: report.Rows, Bytes: stats.Read + stats.Reused, Stored: stats.Stored,
		Streams: int64(streams), Objects: int64(len(report.Objects)),
		StartedAt: w.started, CapturedAt: report.CapturedAt.UTC(), FinishedAt: w.b.r.options.Clock().UTC(),
	}
	if status.Suspect {
		c.Status = record.StatusSuspect
	}
	return c
}

// storeCommit stores the commit and looks at it: only the store's clock says
// whether it came in time, and only the stored plan whether it counts.
func (w *MemberWriter) storeCommit(ctx context.Context, c *record.Commit) error {
	r := w.b.r
	data, err := record.Encode(c, r.keys.Writer)
	if err != nil {
		return err
	}
	key := w.b.layout.commit(c.Backup, c.Ordinal, c.Attempt)
	if err := put(ctx, r.store, key, data); err != nil {
		if errors.Is(err, storage.ErrExists) {
			return fmt.Errorf("this attempt has committed the member before: %w", err)
		}
		return err
	}
	object, err := r.store.Stat(ctx, key)
	if err != nil {
		return fmt.Errorf("look at the stored commit: %w", err)
	}
	if object.Size != int64(len(data)) {
		return fmt.Errorf("%w: the stored commit has %d bytes, not %d", ErrDamaged, object.Size, len(data))
	}
	if late := object.LastModified.Sub(w.b.planTime); late > r.longest() {
		return fmt.Errorf("%w: it was committed %s after its plan, at most %s is allowed; make a repository with a longer limit, or back up in smaller sets", ErrVoid, late.Round(time.Second), r.longest())
	}
	if err := r.stillCounts(ctx, object.LastModified); err != nil {
		return err
	}
	return w.checkPlan(ctx)
}

// errPlanReplaced says that the commit names a plan that is not stored any more.
var errPlanReplaced = errors.New("the plan of the backup has been replaced since")

// checkPlan looks whether the plan that the commit names is still the stored
// one. Where the store cannot make writes conditional, pods that begin at the
// same moment each write a plan, and the last one's counts.
func (w *MemberWriter) checkPlan(ctx context.Context) error {
	key := w.b.layout.plan(w.b.plan.ID)
	data, err := getAll(ctx, w.b.r.store, key)
	if err != nil {
		return fmt.Errorf("look at the plan after the commit: %w", err)
	}
	if hash(sha256.Sum256(data)) != w.b.planHash {
		return fmt.Errorf("%w: the store let another pod overwrite %s; run the backup again, as a retry of the same job does: it takes over the plan that is stored now", errPlanReplaced, key)
	}
	return nil
}
