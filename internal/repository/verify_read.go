package repository

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"
)

// verifyReads is how many objects are read at the same time.
const verifyReads = 4

// read compares the bytes of a share of the needed objects with their names.
func (v *verifier) read(ctx context.Context, i *inventory) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(verifyReads)
	for at := range i.names {
		if !i.needed.has(at) || !v.chosen() {
			continue
		}
		group.Go(func() error { return v.readOne(ctx, i.prefix+i.names[at].String(), i.names[at]) })
	}
	return group.Wait()
}

// chosen says yes with the probability that was asked for.
func (v *verifier) chosen() bool {
	if v.o.ReadData >= 100 {
		return true
	}
	var b [8]byte
	if _, err := io.ReadFull(v.r.options.Random, b[:]); err != nil {
		return true
	}
	return float64(binary.LittleEndian.Uint64(b[:])>>11)/(1<<53)*100 < v.o.ReadData
}

func (v *verifier) readOne(ctx context.Context, key string, name hash) error {
	body, err := v.r.store.Get(ctx, key, 0, -1)
	if isNotExist(err) {
		v.damage(key, "missing")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, body)
	if closeErr := body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	v.mu.Lock()
	v.report.ObjectsRead++
	v.report.BytesRead += n
	v.mu.Unlock()
	if got := hash(sum.Sum(nil)); got != name {
		what := "its bytes have changed: their SHA-256 is " + got.String()
		if strings.HasPrefix(key, v.layout.packs()) {
			// A writer cannot read packs, so it goes on using this one.
			what += "; move the object away and run a backup, which stores its chunks again"
		}
		v.damage(key, what)
	}
	return nil
}
