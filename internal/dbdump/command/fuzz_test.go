package command

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzMark: however an output arrives, the mark is taken off and nothing else,
// and what is not exactly the mark is none.
func FuzzMark(f *testing.F) {
	f.Add([]byte("rows"), uint8(0), 3, []byte(""))
	f.Add([]byte(strings.Repeat("0", 200)), uint8(7), 1, []byte("x"))
	f.Add([]byte(""), uint8(255), 100, []byte("\n"))
	f.Fuzz(func(t *testing.T, output []byte, status uint8, piece int, behind []byte) {
		var got bytes.Buffer
		m := newMarked(&got)
		text := append(bytes.Clone(output), m.nonce...)
		text = append(text, '0'+status/100, '0'+status/10%10, '0'+status%10, fedWhole)
		text = append(text, behind...)
		for piece = max(1, piece%50); len(text) > 0; text = text[min(piece, len(text)):] {
			n, err := m.Write(text[:min(piece, len(text))])
			require.NoError(t, err)
			require.Equal(t, min(piece, len(text)), n)
		}
		err := m.verdict()
		switch {
		case len(behind) > 0:
			require.ErrorIs(t, err, errNoMark)
		case status > 0:
			require.ErrorContains(t, err, "ended with status")
		default:
			require.NoError(t, err)
		}
		if len(behind) == 0 {
			require.Equal(t, string(output), got.String())
		}
	})
}

// FuzzLine: a command is either refused or one that can be executed, and a
// line for the shell reaches it as it is.
func FuzzLine(f *testing.F) {
	for _, s := range []string{"", " ", "pg_dump shop | cat", `["a"]`, `["a","b c"]`, ` [ "a" ] `, `["a",1]`, `["a"`, `[]`, `[ -f x ] && cat x`, `[""]`, "a\x00b", `["a\u0000"]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		argv, err := ParseLine(s)
		if err != nil {
			return
		}
		require.NotEmpty(t, argv)
		require.NotEmpty(t, argv[0])
		for _, a := range argv {
			require.NotContains(t, a, "\x00")
		}
		if trimmed := strings.TrimSpace(s); !strings.HasPrefix(trimmed, "[") {
			require.Equal(t, []string{"sh", "-c", s}, argv)
		}
	})
}
