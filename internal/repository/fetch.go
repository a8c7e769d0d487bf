package repository

import (
	"context"
	"math/bits"
	"slices"
	"sync"

	"keepset/internal/record"
)

// fetcher brings ranges of packs, decrypted, and keeps them within a budget
// for whoever asks next: the streams of a member lie side by side in the same
// packs. A range ("extent") is one request. It begins with a frame that is
// needed now and goes on over those that the same stream needs next, as long
// as at least an eighth of it is needed, and as long as all open streams can
// have two extents at a time within the budget.
type fetcher struct {
	r      *Repository
	layout layout
	packs  []record.ObjectRef // in order of their names
	budget int64              // three quarters of ReadBytes; the rest is for spare buffers

	mu      sync.Mutex
	streams int64
	extents []*extent // most recently used first
	used    int64
	spare   [][]byte // of extents that were let go
	ages    map[hash]*ageFile
}

// extent is a range of a pack's plaintext.
type extent struct {
	pack     hash
	from, to int64
	ready    chan struct{} // closed when data or err is there
	data     []byte
	buf      []byte // that data lies in
	err      error
	users    int
}

// frameAt is one frame that a stream needs.
type frameAt struct {
	pack       hash
	at, stored int64
}

func (f frameAt) end() int64 { return f.at + f.stored }

const (
	// density: one byte in so many of an extent is needed.
	density = 8
	// maxAges bounds how many packs' keys are remembered.
	maxAges = 4096
)

func newFetcher(r *Repository, l layout, packs []record.ObjectRef) *fetcher {
	return &fetcher{r: r, layout: l, packs: packs, budget: int64(r.options.ReadBytes) * 3 / 4, ages: make(map[hash]*ageFile)}
}

// join and leave tell how many streams are open.
func (f *fetcher) join(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams += n
}

// frame returns the stored bytes of the first frame, to be released after
// use. ahead are the frames that the stream needs next.
func (f *fetcher) frame(ctx context.Context, want frameAt, ahead []frameAt) (data []byte, release func(), err error) {
	for {
		f.mu.Lock()
		e, fresh := f.extentFor(want, ahead, true)
		e.users++
		f.mu.Unlock()
		release = func() { f.release(e) }
		if fresh {
			f.fill(ctx, e)
		}
		select {
		case <-e.ready:
		case <-ctx.Done():
			release()
			return nil, nil, context.Cause(ctx)
		}
		if e.err == nil {
			return e.data[want.at-e.from : want.end()-e.from], release, nil
		}
		err := e.err
		release()
		if fresh || ctx.Err() != nil {
			return nil, nil, err
		}
		// Another stream's request failed, perhaps since it was closed: ask ourselves.
	}
}

// prefetch begins to bring what will be needed, if there is room for it.
func (f *fetcher) prefetch(ctx context.Context, wg *sync.WaitGroup, want frameAt, ahead []frameAt) (done <-chan struct{}) {
	f.mu.Lock()
	e, fresh := f.extentFor(want, ahead, false)
	f.mu.Unlock()
	if e == nil {
		return nil
	}
	if fresh {
		wg.Go(func() { f.fill(ctx, e) })
	}
	return e.ready
}

// extentFor returns the extent that has the frame, or a fresh one that the
// caller must fill. Without must it returns nil when there is no room.
func (f *fetcher) extentFor(want frameAt, ahead []frameAt, must bool) (e *extent, fresh bool) {
	for i, e := range f.extents {
		if e.pack == want.pack && e.from <= want.at && want.end() <= e.to {
			copy(f.extents[1:i+1], f.extents[:i])
			f.extents[0] = e
			return e, false
		}
	}
	from, to := f.plan(want, ahead)
	if !f.makeRoom(to-from) && !must {
		return nil, false
	}
	e = &extent{pack: want.pack, from: from, to: to, ready: make(chan struct{})}
	f.extents = slices.Insert(f.extents, 0, e)
	f.used += to - from
	return e, true
}

// plan says how far an extent reaches.
func (f *fetcher) plan(want frameAt, ahead []frameAt) (from, to int64) {
	limit := f.budget / (2*max(f.streams, 1) + 1)
	from, to = want.at, want.end()
	needed, last := want.stored, want
	for _, next := range ahead {
		if next.pack != want.pack {
			break
		}
		if next == last {
			continue
		}
		wider, end := min(from, next.at), max(to, next.end())
		if needed += next.stored; end-wider > limit || needed*density < end-wider {
			break
		}
		from, to, last = wider, end, next
	}
	return from, to
}

// makeRoom lets go of the extents that were not used for longest. It says
// whether the budget is kept.
func (f *fetcher) makeRoom(size int64) bool {
	for i := len(f.extents) - 1; i >= 0 && f.used+size > f.budget; i-- {
		if e := f.extents[i]; e.users == 0 && isClosed(e.ready) {
			f.remove(i)
			f.recycle(e.buf)
		}
	}
	return f.used+size <= f.budget
}

// buffer returns n bytes, of an extent that was let go when one fits.
func (f *fetcher) buffer(n int64) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, b := range f.spare {
		if c := int64(cap(b)); c >= n && c <= 2*n+ageChunk {
			f.spare = slices.Delete(f.spare, i, i+1)
			return b[:n]
		}
	}
	step := max(ageChunk, int64(1)<<(bits.Len64(uint64(n))-3)) // few sizes, at most a quarter too large
	return make([]byte, n, (n+step-1)/step*step)
}

// recycle takes the buffer of an extent that was let go. The oldest spare
// ones go when there are too many.
func (f *fetcher) recycle(buf []byte) {
	f.spare = append(f.spare, buf)
	var total int64
	for i, b := range slices.Backward(f.spare) {
		if total += int64(cap(b)); total > f.budget/4 {
			f.spare = slices.Delete(f.spare, 0, i+1)
			return
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (f *fetcher) remove(i int) {
	f.used -= f.extents[i].to - f.extents[i].from
	f.extents = slices.Delete(f.extents, i, i+1)
}

func (f *fetcher) release(e *extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.users--
}

// forget drops an extent, so that its bytes are asked for again.
func (f *fetcher) forget(want frameAt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, e := range slices.Backward(f.extents) {
		if e.pack == want.pack && e.from <= want.at && want.end() <= e.to {
			f.remove(i)
		}
	}
	delete(f.ages, want.pack)
}
