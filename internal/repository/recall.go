package repository

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"keepset/internal/record"
)

// recall finds what is remembered of streams. It holds
//
//   - of every object of memos a few numbers, and as many objects as fit into
//     a budget, least recently used ones going first;
//   - of streams with several rows where each row is;
//   - of one key in 64 ("hooks") in which object it is.
//
// Objects are written in the order in which streams end, and asked for in about
// the same order by the next backup. So the object after the one that had the
// last answer is brought in when a key is in none; hooks find the place again
// where the order has changed. While all objects fit into the budget every
// stream is found. Beyond that one may be missed, and is read again.
type recall struct {
	r      *Repository
	layout layout
	budget int

	mu      sync.Mutex
	sources []memoSource
	members map[int]*memberRecall
	objects []*memoObject
	byName  map[hash]struct{}
	byPlace map[memoPlace]*memoObject
	hooks   map[memoKey]*memoObject
	long    map[memoKey][]longRow
	recent  []*memoObject // loaded ones, most recently used first
	loaded  int
}

// memoSource is what one commit or checkpoint lists for a member. Lower ranks
// are asked first: what is of this backup, then newer bases before older ones.
type memoSource struct {
	ordinal, rank int
	refs          []record.ObjectRef
}

// memberRecall is the place of a member's last answer.
type memberRecall struct{ last memoPlace }

// memoPlace is an object's place in the order in which a run has written them.
type memoPlace struct {
	run    [nonceSize]byte
	number uint32
}

type memoObject struct {
	ref   record.ObjectRef
	rank  int
	place memoPlace
	memos *memos // loaded when not nil
}

// longRow is one of several rows of a stream.
type longRow struct {
	object       *memoObject
	row          int
	stream       uint32
	offset, size int64
	last         bool
}

func newRecall(r *Repository, l layout) *recall {
	return &recall{
		r: r, layout: l, budget: r.options.RecallBytes, members: make(map[int]*memberRecall), byName: make(map[hash]struct{}),
		byPlace: make(map[memoPlace]*memoObject), hooks: make(map[memoKey]*memoObject), long: make(map[memoKey][]longRow),
	}
}

// memoSecret is what keys are hashed with: it is derived from I, which every
// reader of memos holds. Where nothing is encrypted it is no secret.
func (r *Repository) memoSecret() []byte {
	secret := r.config.Repository
	for _, identity := range r.keys.Index {
		if Fingerprint(identity.Recipient().String()) == r.config.Epoch().Index {
			secret = identity.String()
		}
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("keepset memo v1"))
	return mac.Sum(nil)
}

// memoKey is the name under which a member's stream is remembered. The ordinal
// is part of it: no member is given another one's bytes.
func (r *Repository) memoKey(ordinal int, name string) (key memoKey) {
	mac := hmac.New(sha256.New, r.memoMAC)
	mac.Write(append(strconv.AppendInt(nil, int64(ordinal), 10), 0))
	mac.Write([]byte(name))
	copy(key[:], mac.Sum(nil))
	return key
}

// add notes a source. It must be called before the first question.
func (x *recall) add(ordinal, rank int, refs []record.ObjectRef) {
	if len(refs) > 0 {
		x.sources = append(x.sources, memoSource{ordinal, rank, refs})
	}
}

// open reads all objects of a member, once, into what is kept of each.
func (x *recall) open(ctx context.Context, ordinal int) (*memberRecall, error) {
	if m := x.members[ordinal]; m != nil {
		return m, nil
	}
	slices.SortStableFunc(x.sources, func(a, b memoSource) int { return cmp.Compare(a.rank, b.rank) })
	m := &memberRecall{}
	for _, source := range x.sources {
		if source.ordinal != ordinal {
			continue
		}
		before := len(x.objects)
		if err := x.openSource(ctx, source); err != nil {
			return nil, fmt.Errorf("read memos: %w", err)
		}
		if before < len(x.objects) && m.last == (memoPlace{}) {
			// So that the first question brings in the first object.
			m.last = memoPlace{x.objects[before].place.run, math.MaxUint32}
		}
	}
	x.members[ordinal] = m
	return m, nil
}

// openSource leaves out what cannot be read: its streams are read again.
func (x *recall) openSource(ctx context.Context, source memoSource) error {
	var adding sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(partReads)
	for _, ref := range source.refs {
		group.Go(func() error {
			m, err := x.r.readMemos(ctx, x.layout, ref)
			if isNotExist(err) || errors.Is(err, ErrDamaged) {
				x.r.log.Warn("memos cannot be used; their streams are read again", "object", ref.SHA256, "error", err)
				return nil
			}
			if err != nil {
				return err
			}
			adding.Lock()
			defer adding.Unlock()
			x.index(ref, source.rank, m)
			return nil
		})
	}
	return group.Wait()
}

// readMemos reads an object of memos.
func (r *Repository) readMemos(ctx context.Context, l layout, ref record.ObjectRef) (*memos, error) {
	data, err := r.getContent(ctx, l.part(ref.SHA256), ref)
	if err != nil {
		return nil, err
	}
	plain, err := r.codec.open(data, r.secrets.index)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", l.part(ref.SHA256), err)
	}
	return parseMemos(plain)
}

// index makes an object known.
func (x *recall) index(ref record.ObjectRef, rank int, m *memos) {
	if _, known := x.byName[ref.SHA256]; known {
		return
	}
	o := &memoObject{ref: ref, rank: rank, place: memoPlace{m.run, m.number}}
	x.byName[ref.SHA256] = struct{}{}
	x.byPlace[o.place] = o
	x.objects = append(x.objects, o)
	for i := range m.rows {
		at := m.at(i)
		row := m.row(i)
		if at.offset > 0 || !row.last {
			x.long[at.key] = append(x.long[at.key], longRow{o, i, at.stream, at.offset, row.size(), row.last})
		} else if at.key[0]&hookMask == 0 && (x.hooks[at.key] == nil || x.hooks[at.key].rank > rank) {
			x.hooks[at.key] = o
		}
	}
	x.keep(o, m)
}

// keep takes an object into memory, and lets go of others to make room.
func (x *recall) keep(o *memoObject, m *memos) {
	o.memos = m
	x.recent = slices.Insert(x.recent, 0, o)
	x.loaded += m.bytes()
	for x.loaded > x.budget && len(x.recent) > 1 {
		last := x.recent[len(x.recent)-1]
		x.recent = x.recent[:len(x.recent)-1]
		x.loaded -= last.memos.bytes()
		last.memos = nil
	}
}

// load brings an object in. It returns false when that cannot be read any more.
func (x *recall) load(ctx context.Context, o *memoObject) (bool, error) {
	if o.memos != nil {
		return true, nil
	}
	m, err := x.r.readMemos(ctx, x.layout, o.ref)
	if isNotExist(err) || errors.Is(err, ErrDamaged) {
		x.r.log.Warn("memos cannot be read any more; their streams are read again", "object", o.ref.SHA256, "error", err)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read memos: %w", err)
	}
	x.keep(o, m)
	return true, nil
}

// find returns what is remembered under a key: with this fingerprint, or with
// any if it is nil, the newest one then. Nil when there is nothing.
func (x *recall) find(ctx context.Context, ordinal int, name string, fingerprint []byte) (*Remembered, error) {
	key := x.r.memoKey(ordinal, name)
	x.mu.Lock()
	defer x.mu.Unlock()
	m, err := x.open(ctx, ordinal)
	if err != nil {
		return nil, err
	}
	long, err := x.findLong(ctx, key, fingerprint)
	if err != nil || long != nil && fingerprint != nil {
		return long, err
	}
	short, err := x.findShort(ctx, m, &key, fingerprint)
	if err != nil || long == nil || short != nil && short.rows[0].object.rank < long.rows[0].object.rank {
		return short, err
	}
	return long, nil
}

// findLong looks among streams of several rows.
func (x *recall) findLong(ctx context.Context, key memoKey, fingerprint []byte) (*Remembered, error) {
	rows := x.long[key]
	slices.SortFunc(rows, compareLong)
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].object.place.run == rows[0].object.place.run && rows[n].stream == rows[0].stream {
			n++
		}
		if size, whole := wholeStream(rows[:n]); whole {
			if readable, err := x.load(ctx, rows[0].object); err != nil {
				return nil, err
			} else if readable {
				first := rows[0].object.memos.row(rows[0].row)
				if fingerprint == nil || bytes.Equal(fingerprint, first.fingerprint) {
					return newRemembered(x, slices.Clone(rows[:n]), size, &first), nil
				}
			}
		}
		rows = rows[n:]
	}
	return nil, nil
}

// compareLong puts the rows of a stream together, in order, and newer streams
// before older ones.
func compareLong(a, b longRow) int {
	return cmp.Or(
		cmp.Compare(a.object.rank, b.object.rank), bytes.Compare(a.object.place.run[:], b.object.place.run[:]),
		cmp.Compare(b.stream, a.stream), cmp.Compare(a.offset, b.offset),
	)
}

// wholeStream says whether rows follow one another from beginning to end: the
// attempt may have been killed in the middle, or an object been lost.
func wholeStream(rows []longRow) (size int64, whole bool) {
	for i := range rows {
		if rows[i].offset != size {
			return 0, false
		}
		size += rows[i].size
	}
	return size, rows[len(rows)-1].last
}

// findShort looks among streams of one row: in the loaded objects, then in
// those where the key may be.
func (x *recall) findShort(ctx context.Context, m *memberRecall, key *memoKey, fingerprint []byte) (*Remembered, error) {
	var best *Remembered
	at := -1
	for i, o := range x.recent {
		e := x.findIn(o, key, fingerprint)
		if e == nil || best != nil && best.rows[0].object.rank <= o.rank {
			continue
		}
		best, at = e, i
		if fingerprint != nil {
			break
		}
	}
	if best != nil {
		o := x.recent[at]
		copy(x.recent[1:at+1], x.recent[:at])
		x.recent[0] = o
		m.last = o.place
		return best, nil
	}
	next := memoPlace{m.last.run, m.last.number + 1}
	for _, o := range []*memoObject{x.byPlace[m.last], x.byPlace[next], x.hooks[*key]} {
		if o == nil || o.memos != nil {
			continue
		}
		if readable, err := x.load(ctx, o); err != nil {
			return nil, err
		} else if !readable {
			continue
		}
		if e := x.findIn(o, key, fingerprint); e != nil {
			m.last = o.place
			return e, nil
		}
	}
	return nil, nil
}

// findIn looks into a loaded object.
func (x *recall) findIn(o *memoObject, key *memoKey, fingerprint []byte) *Remembered {
	for i := o.memos.find(key); i < len(o.memos.rows); i++ {
		at := o.memos.at(i)
		if at.key != *key {
			return nil
		}
		if at.offset > 0 {
			continue
		}
		row := o.memos.row(i)
		if row.last && (fingerprint == nil || bytes.Equal(fingerprint, row.fingerprint)) {
			size := row.size()
			return newRemembered(x, []longRow{{o, i, at.stream, 0, size, true}}, size, &row)
		}
	}
	return nil
}
