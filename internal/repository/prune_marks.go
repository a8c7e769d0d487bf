package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// This file finds out what the backups that stay need, and so what nobody needs.

// stock is the listing of one prefix of content.
type stock struct {
	inventory
	modified []int64 // Unix time, by the store's clock
	gone     bitset  // deleted by this run
	// list is where a prune record names objects of this prefix.
	list func(*record.Prune) *[]hash
}

// The places of the stocks.
const (
	stockPacks = iota
	stockParts
	stockMaps
	stockRefs
)

func newStocks(l layout) []*stock {
	return []*stock{
		stockPacks: {inventory: inventory{prefix: l.packs()}, list: func(p *record.Prune) *[]hash { return &p.Packs }},
		stockParts: {inventory: inventory{prefix: l.parts()}, list: func(p *record.Prune) *[]hash { return &p.Parts }},
		stockMaps:  {inventory: inventory{prefix: l.maps()}, list: func(p *record.Prune) *[]hash { return &p.Maps }},
		stockRefs:  {inventory: inventory{prefix: l.refs()}, list: func(p *record.Prune) *[]hash { return &p.Refs }},
	}
}

func compareHashes(a, b hash) int { return bytes.Compare(a[:], b[:]) }

// find returns the place of an object; false when the listing did not show it.
func (s *stock) find(name hash) (int, bool) {
	return slices.BinarySearchFunc(s.names, name, compareHashes)
}

func (s *stock) key(at int) string { return s.prefix + s.names[at].String() }

// takeStock lists the content. What is put meanwhile is too young to matter.
func (p *prune) takeStock(ctx context.Context) error {
	p.stock = newStocks(p.layout)
	for _, s := range p.stock {
		for object, err := range p.r.store.List(ctx, s.prefix) {
			if err != nil {
				return fmt.Errorf("list %s: %w", s.prefix, err)
			}
			if name, ok := parseHashKey(object.Key, s.prefix); ok {
				s.names = append(s.names, name)
				s.sizes = append(s.sizes, object.Size)
				s.modified = append(s.modified, object.LastModified.Unix())
			}
		}
	}
	return nil
}

// mark notes what the backups that stay need. Every commit of theirs counts
// here, also one that no restore would take: what is forged, quarantined or
// void must not be the reason that anything goes. One that cannot be followed
// to its refs may need anything, and ends the prune.
func (p *prune) mark(ctx context.Context) error {
	for i := range p.infos {
		if err := p.readable(&p.infos[i]); err != nil {
			return err
		}
	}
	p.snapshots = make(map[string]bool)
	var mu sync.Mutex
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(listReads)
	for object, err := range p.r.store.List(ctx, p.layout.commits()) {
		if err != nil {
			return errors.Join(fmt.Errorf("list commits: %w", err), group.Wait())
		}
		id, _, _, ok := p.layout.parseCommitKey(object.Key)
		if p.doomed[id] {
			continue
		}
		if !ok {
			return errors.Join(fmt.Errorf("%w: %s is nothing that this version knows", ErrUncertain, object.Key), group.Wait())
		}
		group.Go(func() error {
			name, refs, err := p.followCommit(inner, object)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			p.need(p.stock[stockRefs], name)
			p.markRefs(refs)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	p.weigh()
	return nil
}

// readable returns ErrUncertain when the plan of a backup that stays is of a
// newer format, or no plan at all.
func (p *prune) readable(info *BackupInfo) error {
	if p.doomed[info.ID] {
		return nil
	}
	for _, f := range info.faults {
		if f.ordinal == everyOrdinal && (errors.Is(f.err, record.ErrNewerFormat) || errors.Is(f.err, record.ErrInvalid) || errors.Is(f.err, ErrDamaged)) {
			return fmt.Errorf("%w: %s: %s", ErrUncertain, f.key, f.what)
		}
	}
	return nil
}

// followCommit reads a commit, whoever wrote it, and its refs; name is theirs.
func (p *prune) followCommit(ctx context.Context, object storage.Object) (name hash, refs *record.Refs, err error) {
	data, err := getAll(ctx, p.r.store, object.Key)
	if isNotExist(err) {
		return hash{}, nil, fmt.Errorf("%w: commit %s was deleted while this one looked", ErrConcurrentPrune, object.Key)
	}
	if err != nil {
		return hash{}, nil, err
	}
	var c record.Commit
	var read record.Refs
	if _, err = record.Decode(data, &c, nil); err == nil {
		read, err = p.readAnyRefs(ctx, c.Refs)
	}
	if isNotExist(err) || unreadable(err) {
		err = fmt.Errorf("%w: commit %s: %w; nothing of %s is deleted as long as it stands there: put back what it needs, or delete its backup by its ID", ErrUncertain, object.Key, err, p.layout.set)
	}
	return c.Refs, &read, err
}

// readAnyRefs reads refs whatever backup they say they are of: a copy of a
// commit under another ID, which anybody can make, is no reason to stop.
func (p *prune) readAnyRefs(ctx context.Context, name hash) (record.Refs, error) {
	var refs record.Refs
	data, err := p.r.getContent(ctx, p.layout.ref(name), record.ObjectRef{SHA256: name})
	if err != nil {
		return refs, err
	}
	_, err = record.Decode(data, &refs, nil)
	return refs, err
}

func (p *prune) markRefs(refs *record.Refs) {
	for n, list := range [][]record.ObjectRef{
		stockPacks: refs.Packs, stockParts: mergeRefs(refs.Parts, refs.Memos), stockMaps: refs.Maps,
	} {
		for _, ref := range list {
			p.need(p.stock[n], ref.SHA256)
		}
	}
	for i := range refs.VolumeSnapshots {
		for _, one := range refs.VolumeSnapshots[i].Whole() {
			p.snapshots[snapshotName(&one)] = true
		}
	}
}

// need marks one object. One that is not there is for verify to tell.
func (p *prune) need(s *stock, name hash) {
	if at, found := s.find(name); found {
		s.needed.add(at)
	}
}

func snapshotName(s *record.VolumeSnapshot) string { return s.Provider + " " + s.ID }

// weigh sums up what is needed, and the packs of which some may not be.
func (p *prune) weigh() {
	runs := p.runs()
	for n, s := range p.stock {
		for at, size := range s.sizes {
			if !s.needed.has(at) {
				continue
			}
			p.report.Needed.add(size)
			if n == stockPacks && !runs.hold(s.modified[at]) {
				p.report.HalfDead.add(size)
			}
		}
	}
}

// spans are stretches of time in order, of which none touch.
type spans []struct{ from, to int64 }

// runs are the times, by the store's clock, at which a backup that stays was
// being written, between its plan and its last commit.
func (p *prune) runs() spans {
	var all spans
	for i := range p.infos {
		info := &p.infos[i]
		if p.doomed[info.ID] || info.PlanTime.IsZero() {
			continue
		}
		run := struct{ from, to int64 }{info.PlanTime.Unix(), info.PlanTime.Unix()}
		for _, m := range info.Members {
			run.to = max(run.to, m.CommitTime.Unix())
		}
		all = append(all, run)
	}
	slices.SortFunc(all, func(a, b struct{ from, to int64 }) int { return cmp.Compare(a.from, b.from) })
	merged := all[:0]
	for _, run := range all {
		if last := len(merged) - 1; last >= 0 && run.from <= merged[last].to {
			merged[last].to = max(merged[last].to, run.to)
			continue
		}
		merged = append(merged, run)
	}
	return merged
}

func (s spans) hold(t int64) bool {
	at, _ := slices.BinarySearchFunc(s, t, func(run struct{ from, to int64 }, t int64) int { return cmp.Compare(run.to, t) })
	return at < len(s) && s[at].from <= t
}

// markedAtOnce bounds how many objects one record condemns: writers hold all
// records in memory. The next prune goes on.
const markedAtOnce = 250_000

// condemn chooses what to condemn now, and what is due of that which earlier
// runs have condemned.
func (p *prune) condemn(ctx context.Context) error {
	p.condemns = &record.Prune{
		Header: record.NewHeader(record.KindPrune), Repository: p.r.config.Repository, Set: p.layout.set, Backups: p.chosen,
	}
	named := p.sortRecords()
	young := p.now.Add(-p.longestSlack()).Unix()
	room := markedAtOnce
	for n, s := range p.stock {
		list := s.list(p.condemns)
		for at, name := range s.names {
			if err := ctx.Err(); err != nil {
				return err
			}
			switch {
			case s.needed.has(at) || named[n].has(at) || s.modified[at] >= young:
			case room > 0:
				*list = append(*list, name)
				p.report.Marked.add(s.sizes[at])
				room--
			}
		}
	}
	p.report.Due = p.matures(p.now)
	return nil
}

// dueRecord is a record of which everything may be deleted by now.
type dueRecord struct {
	key     string
	objects [][]int // by stock, those that are there and still not needed
}

// sortRecords parts the records of earlier runs into those that are due and
// those that wait, and returns which objects any of them names.
func (p *prune) sortRecords() []bitset {
	named := make([]bitset, len(p.stock))
	seen := make([]bitset, len(p.stock))
	for _, key := range sortedRecords(p.records) {
		rec := p.records[key]
		isDue := p.now.After(p.matures(rec.at))
		due := dueRecord{key: key, objects: make([][]int, len(p.stock))}
		for n, s := range p.stock {
			for _, name := range *s.list(&rec.prune) {
				at, found := s.find(name)
				if !found || s.needed.has(at) {
					continue
				}
				named[n].add(at)
				if !isDue {
					continue
				}
				due.objects[n] = append(due.objects[n], at)
				if seen[n].add(at) {
					p.report.Deletable.add(s.sizes[at])
				}
			}
		}
		if isDue {
			p.due = append(p.due, due)
		}
	}
	for n, s := range p.stock {
		for at, size := range s.sizes {
			if named[n].has(at) && !seen[n].has(at) {
				p.report.Waiting.add(size)
			}
		}
	}
	return named
}

// oldEnough says whether a time lies before that of any run that may still commit.
func (p *prune) oldEnough(t time.Time) bool { return t.Before(p.now.Add(-p.longestSlack())) }
