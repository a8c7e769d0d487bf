package record_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

// Nobody without the key makes a record that counts: what is accepted is a
// line that was signed, as the kind that it was signed as.
func FuzzSignature(f *testing.F) {
	signed := map[string]record.Kind{}
	for _, r := range samples() {
		data, err := record.Encode(r, key(1))
		require.NoError(f, err)
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		signed[string(line)] = r.RecordKind()
		f.Add(line, rest)
		f.Add(line, []byte("{\"signature\":{\"key\":\"\",\"ed25519\":\"\"}}\n"))
	}
	trusted := []ed25519.PublicKey{key(1).Public().(ed25519.PublicKey), nil} //nolint:errcheck,forcetypeassert // a key's public half
	f.Fuzz(func(t *testing.T, line, rest []byte) {
		data := append(append(bytes.Clone(line), '\n'), rest...)
		for _, r := range samples() {
			signer, err := record.Decode(data, fresh(r), trusted)
			if err != nil {
				require.Empty(t, signer)
				continue
			}
			first, _, _ := bytes.Cut(data, []byte("\n"))
			require.Equal(t, r.RecordKind(), signed[string(first)])
			require.Equal(t, record.KeyID(trusted[0]), signer)
		}
	})
}

// An ID says when it was made, to the second, and begins with the Job's UID
// where there is one.
func FuzzNewBackupID(f *testing.F) {
	f.Add(int64(1795180650), "1a2b3c4d-0000-4000-8000-000000000000", "attempt-1")
	f.Add(int64(0), "", "")
	f.Add(int64(253402300799), "ÄÖ1A", "a.b")
	f.Fuzz(func(t *testing.T, second int64, uid, attempt string) {
		at := time.Unix(second, 0).UTC()
		if at.Year() < 0 || at.Year() > 9999 {
			return
		}
		id := record.NewBackupID(at, uid)
		require.NoError(t, id.Validate())
		require.True(t, at.Equal(id.Time()), "%s of %s", id, at)
		again, err := record.ParseBackupID(string(id))
		require.NoError(t, err)
		require.Equal(t, id, again)
		if record.AttemptID(attempt).Validate() == nil {
			require.NotContains(t, attempt, ".")
			require.NotContains(t, attempt, "/")
		}
	})
}

// A hash has one text.
func FuzzHash(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"))
	f.Add([]byte("0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var h record.Hash
		if err := h.UnmarshalText(text); err != nil {
			require.ErrorIs(t, err, record.ErrInvalid)
			return
		}
		again, err := h.MarshalText()
		require.NoError(t, err)
		require.Equal(t, string(text), string(again))
	})
}

// What is read of labels is written the same way, selects itself, and stands in a plan.
func FuzzLabels(f *testing.F) {
	f.Add("release=2026.11")
	f.Add("example.com/team=")
	f.Add("=x")
	f.Add("a=b=c")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := record.ParseLabels([]string{text})
		selectors, selectErr := record.ParseLabelSelectors([]string{text})
		if err != nil {
			require.True(t, selectErr != nil || selectors[0].Any)
			return
		}
		require.NoError(t, selectErr)
		require.Equal(t, text, l.String())
		require.True(t, selectors[0].Selects(l))
		require.Equal(t, text, selectors[0].String())
		require.False(t, selectors[0].Selects(record.Labels{}))
	})
}
