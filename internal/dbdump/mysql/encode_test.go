package mysql

import (
	"bytes"
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// unescape is LOAD DATA's reading of a field.
func unescape(t require.TestingT, field []byte) []byte {
	out := []byte{}
	for i := 0; i < len(field); i++ {
		c := field[i]
		require.NotContains(t, "\t\n", string(c), "separators inside a field")
		if c != '\\' {
			out = append(out, c)
			continue
		}
		i++
		require.Less(t, i, len(field), "dangling backslash")
		switch field[i] {
		case '0':
			out = append(out, 0)
		case 'b':
			out = append(out, '\b')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'Z':
			out = append(out, 0x1a)
		default:
			out = append(out, field[i])
		}
	}
	return out
}

func TestEscapedFieldsReadBackByteForByte(t *testing.T) {
	t.Parallel()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for shift := range 9 {
		src := append(bytes.Repeat([]byte{'x'}, shift), all...)
		require.Equal(t, src, unescape(t, appendEscaped(nil, src)))
	}
	rapid.Check(t, func(t *rapid.T) {
		src := rapid.SliceOf(rapid.OneOf(rapid.Byte(), rapid.SampledFrom([]byte("\x00\b\t\n\r\x1a\\\x1f \x80\xff\x5b\x5d")))).Draw(t, "field")
		prefix := []byte("before\t")
		out := appendEscaped(prefix, src)
		require.Equal(t, "before\t", string(out[:len(prefix)]))
		back := unescape(t, out[len(prefix):])
		require.True(t, bytes.Equal(src, back), "%x became %x", src, back)
	})
}

func TestANullIsNotAStringThatLooksLikeOne(t *testing.T) {
	t.Parallel()
	require.Equal(t, `\\N`, string(appendEscaped(nil, []byte(`\N`))))
}

func TestFloatsReadBackBitForBit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := math.Float32frombits(rapid.Uint32().Draw(t, "bits"))
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return
		}
		// The server: text to double, double to float.
		d, err := strconv.ParseFloat(string(appendFloat(nil, float64(v))), 64)
		require.NoError(t, err)
		require.Equal(t, math.Float32bits(v), math.Float32bits(float32(d)))
	})
	require.Equal(t, "-0", string(appendFloat(nil, math.Copysign(0, -1))))
	require.Equal(t, "-0", string(appendDouble(nil, math.Copysign(0, -1))))
	require.Equal(t, "0.1", string(appendFloat(nil, float64(float32(0.1)))))
}

func TestHexIsUpperCase(t *testing.T) {
	t.Parallel()
	require.Equal(t, "x00FF1A", string(appendHex([]byte("x"), []byte{0, 255, 0x1a})))
}

func BenchmarkEscape(b *testing.B) {
	for _, c := range []struct {
		name  string
		field []byte
	}{
		{"digits", bytes.Repeat([]byte("68487932199-96439406143-"), 5)},
		{"text with newlines", bytes.Repeat([]byte("the quick brown fox jumps\nover the lazy dog\n"), 100)},
		{"random", func() []byte {
			out := make([]byte, 4096)
			x := uint32(1)
			for i := range out {
				x = x*1664525 + 1013904223
				out[i] = byte(x >> 24)
			}
			return out
		}()},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.field)))
			var dst []byte
			for b.Loop() {
				dst = appendEscaped(dst[:0], c.field)
			}
		})
	}
}
