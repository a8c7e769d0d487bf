package repository

import (
	"bytes"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestChecksumsWithoutBytes: put together they are what hash/crc32 says of the bytes.
func TestChecksumsWithoutBytes(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	rapid.Check(t, func(rt *rapid.T) {
		a, b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "a"), rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "b")
		n := rapid.SampledFrom([]int{0, 1, 2, 3, 255, 4096, 65537, 512 << 10}).Draw(rt, "zeros")
		crc := crc32.Checksum(a, table)
		require.Equal(rt, crc32.Update(crc, table, b), joinCRC(crc, crc32.Checksum(b, table), int64(len(b))))
		require.Equal(rt, crc32.Update(crc, table, make([]byte, n)), zerosCRC(crc, int64(n)))
	})
	whole := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	var crc uint32
	for at := 0; at < len(whole); at += 512 << 10 {
		part := whole[at:min(at+512<<10, len(whole))]
		crc = joinCRC(crc, crc32.Checksum(part, table), int64(len(part)))
	}
	require.Equal(t, crc32.Checksum(whole, table), crc)
	require.Equal(t, zerosCRC(zerosCRC(7, 1<<40), 1<<41), zerosCRC(7, 3<<40))
}

func BenchmarkJoinCRC(b *testing.B) {
	crc := uint32(0xdeadbeef)
	for b.Loop() {
		crc = joinCRC(crc, 7, 512<<10)
	}
}
