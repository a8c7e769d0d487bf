package repository

import (
	"math/bits"
	"sync"
)

// CRC-32C of bytes that are not at hand: of a stream that is put together
// from chunks whose checksums are known, and of zeros that nobody writes. A
// checksum is a polynomial over GF(2) modulo castagnoliPoly, the highest power
// in the lowest bit; appending n bytes multiplies it by x^(8n).

// castagnoliPoly is the polynomial without its highest power, reversed, as in
// hash/crc32.
const castagnoliPoly = 0x82f63b78

// joinCRC returns the CRC-32C of a and b together, of their checksums and the
// length of b in bytes.
func joinCRC(a, b uint32, length int64) uint32 { return timesPower(a, length) ^ b }

// zerosCRC returns the checksum after n more zero bytes.
func zerosCRC(crc uint32, n int64) uint32 { return ^timesPower(^crc, n) }

// crcPowers are x^8 and its squares: one for each binary digit of a length.
var crcPowers = sync.OnceValue(func() *[63]uint32 {
	var powers [63]uint32
	powers[0] = 1 << (31 - 8)
	for i := 1; i < len(powers); i++ {
		powers[i] = timesModulo(powers[i-1], powers[i-1])
	}
	return &powers
})

// timesPower multiplies by x^(8n).
func timesPower(a uint32, n int64) uint32 {
	powers := crcPowers()
	for rest := uint64(n); rest > 0; rest &= rest - 1 {
		a = timesModulo(a, powers[bits.TrailingZeros64(rest)])
	}
	return a
}

// timesModulo multiplies two polynomials.
func timesModulo(a, b uint32) uint32 {
	var product uint32
	for a != 0 {
		// b times the lowest power that a has left.
		skip := bits.LeadingZeros32(a)
		for range skip {
			b = timesX(b)
		}
		product ^= b
		a <<= skip + 1
		b = timesX(b)
	}
	return product
}

func timesX(b uint32) uint32 { return b>>1 ^ castagnoliPoly&-(b&1) }
