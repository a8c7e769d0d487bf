package repository

import "sync"

// buffers keeps byte slices for reuse, in a few sizes, so that the writing of
// terabytes leaves nothing to the garbage collector.
type buffers struct {
	mu   sync.Mutex
	free [len(bufferSizes)][][]byte
}

// The largest has room for the largest chunk when it does not compress.
var bufferSizes = [...]int{64 << 10, 512 << 10, 1<<20 + 4<<10, 2<<20 + 8<<10, chunkMax + 16<<10}

// get returns an empty slice with room for n bytes.
func (b *buffers) get(n int) []byte {
	for class, size := range bufferSizes {
		if n > size {
			continue
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if last := len(b.free[class]) - 1; last >= 0 {
			buf := b.free[class][last]
			b.free[class] = b.free[class][:last]
			return buf
		}
		return make([]byte, 0, size)
	}
	return make([]byte, 0, n)
}

// put takes a slice back. Nobody may use it afterwards.
func (b *buffers) put(buf []byte) {
	for class, size := range bufferSizes {
		if cap(buf) == size {
			b.mu.Lock()
			b.free[class] = append(b.free[class], buf[:0])
			b.mu.Unlock()
			return
		}
	}
}

// appendTo appends p to buf, moving to a larger slice when there is no room.
func (b *buffers) appendTo(buf, p []byte) []byte {
	need := len(buf) + len(p)
	if need <= cap(buf) {
		return append(buf, p...)
	}
	larger := append(b.get(max(need, 2*cap(buf))), buf...)
	b.put(buf)
	return append(larger, p...)
}
