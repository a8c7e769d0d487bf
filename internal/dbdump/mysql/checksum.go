package mysql

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// checksum of a table's rows: the sum of the XXH64 of each row as it stands in its
// stream, modulo 2^64. A sum, because two servers with the same rows cut them into
// other pieces, and without a usable key read them in another order. It is there to
// find what went wrong by accident; against whoever wants to deceive there are the
// signatures and the hashes of the chunks.
type checksum uint64

// add takes one row, its end included.
func (c *checksum) add(row []byte) { *c += checksum(xxhash.Sum64(row)) }

// String is how record.Object.Checksum has it.
func (c checksum) String() string { return fmt.Sprintf("rows-xxh64:%016x", uint64(c)) }
