package ebs

import (
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"maps"
	"slices"
	"sync"
)

// windowSize is how many checksums are kept to be put in order. Writers are a bounded number
// of blocks apart, far fewer than this.
const windowSize = 8192

// written remembers the checksums of the blocks that were written to a
// snapshot, of which AWS wants one over all in ascending order of the index. Only
// the youngest are kept; a block that comes when its turn is over leaves the
// sum unknown, and each block's own checksum has to do.
type written struct {
	complete bool

	mu     sync.Mutex
	window map[int64][sha256.Size]byte
	hash   hash.Hash
	last   int64 // index of the last one that went into the hash
	count  int64 // of blocks that did
	spoilt bool
}

func (w *written) add(index int64, sum [sha256.Size]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count > 0 && index <= w.last {
		w.spoilt = true
		return
	}
	w.window[index] = sum
	if len(w.window) >= 2*windowSize {
		w.drain(windowSize)
	}
}

// drain hashes the first n of the window.
func (w *written) drain(n int) {
	if w.hash == nil {
		w.hash = sha256.New()
	}
	for _, index := range slices.Sorted(maps.Keys(w.window))[:n] {
		sum := w.window[index]
		w.hash.Write(sum[:])
		w.last, w.count = index, w.count+1
		delete(w.window, index)
	}
}

// sum returns how many blocks were written and the checksum over all of them, empty when it
// is unknown. Asked again it gives the same.
func (w *written) sum() (int64, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drain(len(w.window))
	if w.spoilt {
		return 0, ""
	}
	return w.count, base64.StdEncoding.EncodeToString(w.hash.Sum(nil))
}
