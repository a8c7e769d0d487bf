package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"filippo.io/age"

	"keepset/internal/storage"
)

// packer puts frames into packs and uploads full ones. Its buffers are all
// there are: when every one is being uploaded, append waits, and that is
// what slows a dump down to the speed of the store.
type packer struct {
	ctx     context.Context //nolint:containedctx // the life of its uploads
	store   storage.Store
	prefix  string
	to      age.Recipient
	random  io.Reader
	packs   *packs
	target  int
	fail    func(error)
	buffers chan *packBuffer
	uploads *tracker

	mu   sync.Mutex
	open *openPack
}

// openPack is a pack being filled.
type openPack struct {
	number uint32
	buf    *packBuffer
	w      io.Writer
	close  func() error
	plain  int // bytes of frames so far
	chunks int
	table  []frameEntry
}

// packBuffer is a writer of bytes. It is not a bytes.Buffer, which age would
// ask to grow, and which then takes twice the room.
type packBuffer struct{ data []byte }

func (b *packBuffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p...)
	return len(p), nil
}

// packSlack is what a pack may exceed its target by: most last frames. A
// larger one begins the next pack.
const packSlack = 1 << 20

func newPacker(ctx context.Context, store storage.Store, prefix string, to age.Recipient, o Options, p *packs, fail func(error)) *packer {
	k := &packer{
		ctx:   ctx,
		store: store, prefix: prefix, to: to, random: o.Random, packs: p, target: o.PackBytes, fail: fail,
		buffers: make(chan *packBuffer, o.Uploads+1), uploads: newTracker(),
	}
	for range o.Uploads + 1 {
		k.buffers <- new(packBuffer)
	}
	return k
}

// append adds a compressed frame and tells its chunks where they lie.
func (k *packer) append(f *frame, stored []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open != nil && k.open.plain+len(stored) > k.target+packSlack {
		if err := k.seal(); err != nil {
			return err
		}
	}
	if k.open == nil {
		if err := k.begin(); err != nil {
			return err
		}
	}
	o := k.open
	if _, err := o.w.Write(stored); err != nil {
		return fmt.Errorf("fill pack: %w", err)
	}
	entry := frameEntry{Stored: uint32(len(stored)), Decoded: uint32(len(f.data)), Chunks: make([]tableEntry, len(f.chunks))}
	k.packs.mu.Lock()
	skip := uint32(0)
	for i, c := range f.chunks {
		c.where = location{pack: o.number, at: uint32(o.plain), stored: uint32(len(stored)), skip: skip, length: c.length}
		c.placed = true
		entry.Chunks[i] = tableEntry{ID: c.id, Length: c.length}
		skip += c.length
	}
	k.packs.mu.Unlock()
	o.table = append(o.table, entry)
	o.plain += len(stored)
	o.chunks += len(f.chunks)
	if o.plain >= k.target {
		return k.seal()
	}
	return nil
}

// packRoom is what a stored pack takes at most, if its frames are within
// target and slack: age adds 16 bytes to each 64 KiB, and the table follows.
func packRoom(target int) int {
	plain := target + packSlack + 256<<10
	return plain + plain/1024
}

// begin opens a pack in the next free buffer.
func (k *packer) begin() error {
	var buf *packBuffer
	select {
	case buf = <-k.buffers:
	case <-k.ctx.Done():
		return context.Cause(k.ctx)
	}
	if buf.data == nil {
		buf.data = make([]byte, 0, packRoom(k.target))
	}
	buf.data = buf.data[:0]
	o := &openPack{buf: buf, w: buf, close: func() error { return nil }}
	if k.to != nil {
		w, err := age.Encrypt(buf, k.to)
		if err != nil {
			return fmt.Errorf("encrypt pack: %w", err)
		}
		o.w, o.close = w, w.Close
	}
	o.number = k.packs.open()
	k.open = o
	return nil
}

// flush seals the open pack and waits for all uploads begun so far.
func (k *packer) flush(ctx context.Context) error {
	k.mu.Lock()
	var err error
	if k.open != nil {
		err = k.seal()
	}
	k.mu.Unlock()
	if err != nil {
		return err
	}
	return k.uploads.wait(ctx)
}

// seal ends the open pack and uploads it in the background.
func (k *packer) seal() error {
	o := k.open
	k.open = nil
	var nonce [nonceSize]byte
	if _, err := io.ReadFull(k.random, nonce[:]); err != nil {
		return fmt.Errorf("make nonce of pack: %w", err)
	}
	table := appendTable(make([]byte, 0, tableSize(len(o.table), o.chunks)), nonce, o.table)
	if _, err := o.w.Write(table); err != nil {
		return fmt.Errorf("fill pack: %w", err)
	}
	if err := o.close(); err != nil {
		return fmt.Errorf("encrypt pack: %w", err)
	}
	ticket := k.uploads.begin()
	go func() {
		defer k.uploads.end(ticket)
		if err := k.upload(o); err != nil {
			k.fail(err)
		}
		k.buffers <- o.buf
	}()
	return nil
}

func (k *packer) upload(o *openPack) error {
	data := o.buf.data
	name := hash(sha256.Sum256(data))
	err := k.store.Put(k.ctx, k.prefix+name.String(), bytes.NewReader(data))
	// A pack of this name can only be this pack, after a lost reply; the
	// listing before the commit compares its size.
	if err != nil && !errors.Is(err, storage.ErrExists) {
		return fmt.Errorf("upload pack %s: %w", name, err)
	}
	k.packs.stored(o.number, name, int64(len(data)))
	return nil
}

// close waits for uploads to end; their context has ended before.
func (k *packer) close() error { return k.uploads.wait(context.Background()) }
