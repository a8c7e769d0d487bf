package repository

import (
	"context"
	"fmt"
	"slices"
	"sort"
)

// fill brings the extent's bytes.
func (f *fetcher) fill(ctx context.Context, e *extent) {
	e.data, e.buf, e.err = f.read(ctx, e)
	if e.err != nil {
		f.mu.Lock()
		if i := slices.Index(f.extents, e); i >= 0 {
			f.remove(i)
		}
		f.mu.Unlock()
	}
	close(e.ready)
}

func (f *fetcher) read(ctx context.Context, e *extent) (data, buf []byte, err error) {
	size, err := f.sizeOf(e.pack)
	if err != nil {
		return nil, nil, err
	}
	if len(f.r.secrets.data) == 0 {
		buf = f.buffer(e.to - e.from)
		return buf, buf, f.get(ctx, e.pack, e.from, buf, size)
	}
	a, err := f.age(ctx, e.pack, size)
	if err != nil {
		return nil, nil, err
	}
	if e.to > a.size() {
		return nil, nil, fmt.Errorf("%w: pack has %d bytes of content, %d are needed", ErrDamaged, a.size(), e.to)
	}
	at, length, begins := a.span(e.from, e.to)
	buf = f.buffer(length)
	if err := f.get(ctx, e.pack, at, buf, size); err != nil {
		return nil, nil, err
	}
	plain, err := a.open(buf, begins)
	if err != nil {
		return nil, nil, err
	}
	if int64(len(plain)) < e.to-begins {
		return nil, nil, fmt.Errorf("%w: %d bytes where %d were expected", ErrDamaged, len(plain), e.to-begins)
	}
	return plain[e.from-begins : e.to-begins], buf, nil
}

// get fills buf from a pack.
func (f *fetcher) get(ctx context.Context, pack hash, at int64, buf []byte, size int64) error {
	if end := at + int64(len(buf)); end > size {
		return fmt.Errorf("%w: bytes %d to %d of a pack of %d bytes", ErrDamaged, at, end, size)
	}
	body, err := f.r.store.Get(ctx, f.layout.pack(pack), at, int64(len(buf)))
	if err != nil {
		return err
	}
	return readFull(body, buf)
}

// age opens the header of an encrypted pack.
func (f *fetcher) age(ctx context.Context, pack hash, size int64) (*ageFile, error) {
	f.mu.Lock()
	a := f.ages[pack]
	f.mu.Unlock()
	if a != nil {
		return a, nil
	}
	head := make([]byte, min(ageHeadRoom, size))
	if err := f.get(ctx, pack, 0, head, size); err != nil {
		return nil, err
	}
	a, err := openAge(head, size, f.r.secrets.data)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ages) >= maxAges {
		clear(f.ages)
	}
	f.ages[pack] = a
	return a, nil
}

func (f *fetcher) sizeOf(pack hash) (int64, error) {
	i, found := sort.Find(len(f.packs), func(i int) int { return slices.Compare(pack[:], f.packs[i].SHA256[:]) })
	if !found {
		return 0, fmt.Errorf("%w: the refs do not list it", ErrDamaged)
	}
	return f.packs[i].Size, nil
}
