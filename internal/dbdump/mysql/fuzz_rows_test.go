package mysql

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
)

// unescaped is what LOAD DATA makes of an escaped field.
func unescaped(t *testing.T, field []byte) []byte {
	t.Helper()
	letters := map[byte]byte{'0': 0, 'b': '\b', 't': '\t', 'n': '\n', 'r': '\r', 'Z': 0x1a, '\\': '\\'}
	out := []byte{}
	for i := 0; i < len(field); i++ {
		c := field[i]
		require.NotContains(t, "\x00\b\t\n\r\x1a", string(c), "a byte that ends a field or a row stands bare")
		if c == '\\' {
			i++
			var known bool
			c, known = letters[field[i]]
			require.True(t, known)
		}
		out = append(out, c)
	}
	return out
}

// Whatever the bytes, a field written to a .tsv stream comes back as it was.
func FuzzEscaped(f *testing.F) {
	for _, s := range []string{"", "\\N", "it's", "a\tb\nc\\", "\x00\b\r\x1a\xff", "0123456\\9", strings.Repeat("x", 20) + "\t"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		field := appendEscaped(nil, value)
		require.NotEqual(t, `\N`, string(field), "a value is no NULL")
		require.True(t, bytes.Equal(value, unescaped(t, field)))
	})
}

// A number of the server is written so that it reads back to the same bits.
func FuzzDouble(f *testing.F) {
	for _, v := range []float64{0, math.Copysign(0, -1), 1e308, 5e-324, math.MaxFloat32, 16777217, 0.1} {
		f.Add(math.Float64bits(v), math.Float32bits(float32(v)))
	}
	f.Fuzz(func(t *testing.T, wide uint64, narrow uint32) {
		for text, encoding := range map[string]fieldEncoding{
			string(appendDouble(nil, math.Float64frombits(wide))):           fieldDouble,
			string(appendFloat(nil, float64(math.Float32frombits(narrow)))): fieldFloat,
		} {
			if strings.ContainsAny(text, "NI") { // NaN, Inf: no server has them
				continue
			}
			again, err := appendField(nil, []byte(text), encoding)
			require.NoError(t, err)
			require.Equal(t, text, string(again))
		}
	})
}

// literals reads a parenthesised list of literals as the server would; ok is
// false when the text is anything else.
func literals(text string) (values []string, ok bool) {
	tokens, err := tokenize(text, quoting{})
	if err != nil || len(tokens) < 2 || !tokens[0].is(text, "(") || !tokens[len(tokens)-1].is(text, ")") || tokens[len(tokens)-1].end != len(text) {
		return nil, false
	}
	tokens = tokens[1 : len(tokens)-1]
	for i := 0; i < len(tokens); i++ {
		if len(values) > 0 {
			if !tokens[i].is(text, ",") || i+1 == len(tokens) {
				return nil, false
			}
			i++
		}
		word := text[tokens[i].start:tokens[i].end]
		switch {
		case word == "NULL":
		case word == "x" || word == "_binary" || word == "_utf8mb4":
			i++
			if i == len(tokens) || tokens[i].kind != tokenString || tokens[i].start != tokens[i-1].end {
				return nil, false
			}
			word += text[tokens[i].start:tokens[i].end]
		case tokens[i].kind == tokenString:
		default:
			return nil, false
		}
		values = append(values, word)
	}
	return values, true
}

// The rows of a .tsv stream become values of an INSERT and nothing else,
// whoever wrote the stream: no row breaks out of its literals.
func FuzzRowToInsert(f *testing.F) {
	for _, line := range []string{"a\tFF\t{\"a\": 1}\t1.5", "\\N\t\\N\t\\N\t\\N", "it's\t00\t'\t-0", "a\\\t\t\t", "\\'\t\t\t", "x\t')--\t\t", "a\\\\\t\t\\\\\t1e9"} {
		f.Add([]byte(line))
	}
	encodings := []string{EncodingRaw, EncodingHex, EncodingJSON, EncodingDouble}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 { // it would be two
			return
		}
		row, err := appendRow(nil, line, encodings)
		if err != nil {
			require.ErrorIs(t, err, dbdump.ErrMismatch)
			return
		}
		values, ok := literals(string(row))
		require.True(t, ok, "%q became %q", line, row)
		require.Len(t, values, len(encodings))
	})
}

// What the dump writes is what the INSERT says, field by field.
func FuzzRowRoundTrip(f *testing.F) {
	f.Add([]byte("it's \\ a\x00\t\n"), []byte{0, 255}, []byte(`{"k": "v\\n'"}`), 1.5)
	f.Add([]byte("\\N"), []byte{}, []byte("null"), math.Copysign(0, -1))
	f.Fuzz(func(t *testing.T, raw, bits, document []byte, double float64) {
		if math.IsNaN(double) || math.IsInf(double, 0) {
			return
		}
		number := appendDouble(nil, double)
		var line []byte
		for i, v := range [][]byte{raw, bits, document, number, nil} {
			if i > 0 {
				line = append(line, '\t')
			}
			var err error
			line, err = appendField(line, v, []fieldEncoding{fieldRaw, fieldHex, fieldRaw, fieldDouble, fieldRaw}[i])
			require.NoError(t, err)
		}
		row, err := appendRow(nil, line, []string{EncodingRaw, EncodingHex, EncodingJSON, EncodingDouble, EncodingRaw})
		require.NoError(t, err)
		values, ok := literals(string(row))
		require.True(t, ok, "%q", row)
		require.Len(t, values, 5)
		text := func(literal, introducer string) []byte {
			inside := strings.TrimSuffix(strings.TrimPrefix(literal, introducer+"'"), "'")
			return unescaped(t, []byte(strings.ReplaceAll(inside, "''", "'")))
		}
		require.True(t, bytes.Equal(raw, text(values[0], "_binary")))
		require.Equal(t, "x'"+strings.ToUpper(hex.EncodeToString(bits))+"'", values[1])
		require.True(t, bytes.Equal(document, text(values[2], "_utf8mb4")))
		require.Equal(t, "'"+string(number)+"'", values[3])
		require.Equal(t, "NULL", values[4])
	})
}

// Lines are the text between the ends of lines; one without an end is an error.
func FuzzReadLine(f *testing.F) {
	f.Add([]byte("a\tb\n\nc\n"))
	f.Add([]byte("cut off"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(iotest.HalfReader(bytes.NewReader(data)), 16)
		var got []byte
		for {
			line, err := readLine(r, nil)
			if err == nil {
				require.Equal(t, -1, bytes.IndexByte(line, '\n'))
				got = append(append(got, line...), '\n')
				continue
			}
			if errors.Is(err, io.EOF) {
				require.True(t, bytes.Equal(data, got))
			} else {
				require.ErrorIs(t, err, dbdump.ErrMismatch)
				require.False(t, bytes.HasSuffix(data, []byte{'\n'}))
			}
			return
		}
	})
}

// A statement that was put into a script is taken out of it again, whatever
// delimiter it made necessary.
func FuzzScript(f *testing.F) {
	f.Add("CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW BEGIN SET @a = ';$$'; END", "SELECT 1")
	f.Add("SELECT '#1#;'", "CREATE EVENT e DO SELECT 1; SELECT $")
	f.Add("INSERT INTO t VALUES ('it''s', 0x41, \"\\\"\")", "/*!50003 SELECT 1 */")
	f.Fuzz(func(t *testing.T, first, second string) {
		s := newScript()
		var want []string
		for _, statement := range []string{first, second} {
			statement = strings.TrimRight(statement, " \t\r\n\v\f")
			tokens, err := tokenize(statement, quoting{})
			// What the server writes begins with a word (or with /*!) and is whole.
			if err != nil || len(tokens) == 0 || tokens[0].start != 0 && !strings.HasPrefix(statement, "/*!") ||
				tokens[0].is(statement, "DELIMITER") || tokens[0].is(statement, "SET") || tokens[0].is(statement, ";") || strings.Contains(statement, "-") || strings.Contains(statement, "#") && !strings.Contains(statement, ";") {
				return
			}
			s.add(statement)
			want = append(want, statement)
		}
		text := s.b.String()
		got, err := splitScript(text)
		require.NoError(t, err, "%q", text)
		require.Equal(t, want, got[2:], "%q", text)
		if strings.Contains(text, "DELIMITER") {
			return // such a script is never read piecemeal
		}
		var each []string
		require.NoError(t, eachStatement(strings.NewReader(text), func(statement string, _ quoting) error {
			each = append(each, statement)
			return nil
		}))
		require.Equal(t, got, each)
	})
}

// Rows that a server sends are the rows that arrive; of an answer that was cut
// off nothing is taken for whole.
func FuzzWireRows(f *testing.F) {
	f.Add([]byte("a"), []byte{}, uint16(3), uint16(9))
	f.Add(bytes.Repeat([]byte{'x'}, 300), []byte{0xfe, 0, 0}, uint16(0), uint16(40))
	f.Fuzz(func(t *testing.T, a, b []byte, rows, cut uint16) {
		if len(a) > 1<<10 || len(b) > 1<<10 {
			return
		}
		column := []byte{3, 'd', 'e', 'f'}
		payloads := [][]byte{{3}, column, column, column}
		var want [][]string
		for range rows % 50 {
			payloads = append(payloads, append(append(lengthEncodedBytes(a), packetNull), lengthEncodedBytes(b)...))
			want = append(want, []string{string(a), "NULL", string(b)})
		}
		answer := packets(append(payloads, []byte{packetEnd, 0, 0, 2, 0, 0, 0})...)
		got, err := collect(answering(t, answer))
		require.NoError(t, err)
		require.Equal(t, want, got)
		_, err = collect(answering(t, answer[:int(cut)%len(answer)]))
		require.Error(t, err)
	})
}

// lengthEncodedBytes is a field as the server sends it.
func lengthEncodedBytes(v []byte) []byte {
	if len(v) < packetNull {
		return append([]byte{byte(len(v))}, v...)
	}
	return append(binary.LittleEndian.AppendUint16([]byte{0xfc}, uint16(len(v))), v...)
}
