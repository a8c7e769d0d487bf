package mysql

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
)

// escapes holds, for every byte that LOAD DATA would misread in a field, the
// letter that follows the backslash; 0 for bytes that stand for themselves.
// (MySQL reference manual, LOAD DATA, "Field and Line Handling".)
var escapes = [256]byte{0: '0', '\b': 'b', '\t': 't', '\n': 'n', '\r': 'r', 0x1a: 'Z', '\\': '\\'}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// appendEscaped appends a field's bytes, escaped. It looks at eight bytes at a
// time and copies clean runs whole: nearly all data is clean.
func appendEscaped(dst, src []byte) []byte {
	start, i := 0, 0
	for i+8 <= len(src) {
		x := binary.LittleEndian.Uint64(src[i:])
		// Bytes below 0x20, and backslashes. Both formulas may also mark a
		// byte above a marked one, which the table below sorts out.
		control := (x - lowBits*0x20) & ^x & highBits
		y := x ^ lowBits*'\\'
		marked := control | (y-lowBits)&^y&highBits
		if marked == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(marked) / 8
		if e := escapes[src[i]]; e != 0 {
			dst = append(append(dst, src[start:i]...), '\\', e)
			start = i + 1
		}
		i++
	}
	for ; i < len(src); i++ {
		if e := escapes[src[i]]; e != 0 {
			dst = append(append(dst, src[start:i]...), '\\', e)
			start = i + 1
		}
	}
	return append(dst, src[start:]...)
}

const hexDigits = "0123456789ABCDEF"

// appendHex appends the bytes as upper-case hexadecimal digits.
func appendHex(dst, src []byte) []byte {
	for _, c := range src {
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

// appendDouble appends the shortest decimal that reads back to the same bits.
func appendDouble(dst []byte, v float64) []byte { return strconv.AppendFloat(dst, v, 'g', -1, 64) }

// appendFloat does so for a FLOAT that arrives widened to a double. The server
// reads decimals as doubles and then narrows them: where rounding twice would
// end elsewhere, or the decimal is a little beyond the largest FLOAT, the digits of the double are written instead.
func appendFloat(dst []byte, v float64) []byte {
	n := len(dst)
	dst = strconv.AppendFloat(dst, v, 'g', -1, 32)
	if back, err := strconv.ParseFloat(string(dst[n:]), 64); err == nil && float64(float32(back)) == v && math.Abs(back) <= math.MaxFloat32 {
		return dst
	}
	return appendDouble(dst[:n], v)
}
