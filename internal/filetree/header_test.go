package filetree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// drawName draws a path of any bytes.
func drawName(rt *rapid.T, label string) string {
	elements := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) string {
		b := rapid.SliceOfN(rapid.Byte(), 1, 120).Draw(rt, "bytes")
		for i := range b {
			if b[i] == 0 || b[i] == '/' {
				b[i] = '%'
			}
		}
		return string(b)
	}), 1, 4).Draw(rt, label)
	for i, e := range elements {
		if e == "." || e == ".." {
			elements[i] = "dot"
		}
	}
	return strings.Join(elements, "/")
}

func drawEntry(rt *rapid.T) *Entry {
	e := &Entry{
		Name: drawName(rt, "name"), Kind: Kind(rapid.SampledFrom([]byte("0123456")).Draw(rt, "kind")),
		Mode: rapid.Uint32Range(0, 0o7777).Draw(rt, "mode"), UID: rapid.Uint32().Draw(rt, "uid"), GID: rapid.Uint32().Draw(rt, "gid"),
		ModTime: Time{rapid.Int64Range(-1<<40, 1<<40).Draw(rt, "sec"), rapid.Int64Range(0, 999_999_999).Draw(rt, "nsec")},
	}
	for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`user\.[a-z=%]{1,9}`), 0, 3, rapid.ID).Draw(rt, "xattrs") {
		e.Xattrs = append(e.Xattrs, Xattr{name, string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "value"))})
	}
	slices.SortFunc(e.Xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	switch e.Kind {
	case File:
		e.Size = rapid.Int64Range(0, 3000).Draw(rt, "size")
		if rapid.Bool().Draw(rt, "sparse") {
			drawExtents(rt, e)
		}
	case Symlink, HardLink:
		e.Target = drawName(rt, "target")
	case Character, Block:
		e.Major, e.Minor = rapid.Uint32Range(0, 4095).Draw(rt, "major"), rapid.Uint32Range(0, 1<<20-1).Draw(rt, "minor")
	}
	return e
}

func drawExtents(rt *rapid.T, e *Entry) {
	e.Extents = []Extent{}
	at := int64(0)
	for at < e.Size && len(e.Extents) < 5 && rapid.Bool().Draw(rt, "more") {
		x := Extent{Offset: rapid.Int64Range(at, e.Size-1).Draw(rt, "offset")}
		x.Length = rapid.Int64Range(1, e.Size-x.Offset).Draw(rt, "length")
		e.Extents = append(e.Extents, x)
		at = x.Offset + x.Length
	}
}

// appendWhole appends an entry with data.
func appendWhole(t testing.TB, b []byte, e *Entry) []byte {
	b, err := appendHeader(b, e)
	require.NoError(t, err)
	data := bytes.Repeat([]byte{'d'}, int(e.stored()))
	return append(append(b, data...), zeroBlock[:padding(e.stored())]...)
}

// TestEntries: what an entry holds comes back, and Go's own reader of archives
// understands it in the same way.
func TestEntries(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		entries := rapid.SliceOfN(rapid.Custom(drawEntry), 0, 4).Draw(rt, "entries")
		var b []byte
		for _, e := range entries {
			b = appendWhole(t, b, e)
		}
		b = append(b, make([]byte, 2*blockSize)...)
		r, other := newReader(bytes.NewReader(b)), tar.NewReader(bytes.NewReader(b))
		for _, want := range entries {
			got, err := r.next()
			require.NoError(rt, err)
			require.Equal(rt, want, got)
			if rapid.Bool().Draw(rt, "read") {
				data, err := io.ReadAll(r)
				require.NoError(rt, err)
				require.Len(rt, data, int(want.stored()))
			}
			requireLikeTar(rt, want, other)
		}
		_, err := r.next()
		require.ErrorIs(rt, err, io.EOF)
		_, err = other.Next()
		require.ErrorIs(rt, err, io.EOF)
	})
}

func requireLikeTar(rt *rapid.T, want *Entry, other *tar.Reader) {
	h, err := other.Next()
	require.NoError(rt, err)
	require.Equal(rt, archived(want), h.Name)
	require.EqualValues(rt, want.Kind, h.Typeflag)
	require.EqualValues(rt, want.Mode, h.Mode)
	require.EqualValues(rt, want.UID, h.Uid)
	require.EqualValues(rt, want.GID, h.Gid)
	require.Equal(rt, want.ModTime, Time{h.ModTime.Unix(), int64(h.ModTime.Nanosecond())})
	require.Equal(rt, want.Size, h.Size)
	require.Equal(rt, want.Target, h.Linkname)
	for _, x := range want.Xattrs {
		require.Equal(rt, x.Value, h.PAXRecords[xattrRecord+xattrKeyword.Replace(x.Name)])
	}
	data, err := io.ReadAll(other)
	require.NoError(rt, err)
	require.EqualValues(rt, want.Size, len(data))
	for _, x := range want.Extents {
		require.Equal(rt, strings.Repeat("d", int(x.Length)), string(data[x.Offset:x.Offset+x.Length]))
	}
}

// FuzzArchive: whatever bytes come, the reader ends, hands out no more data than
// there is and no name that leads elsewhere; and what it has read it writes and
// reads again.
func FuzzArchive(f *testing.F) {
	for _, e := range []*Entry{
		{Name: ".", Kind: Directory},
		{Name: "a\n\xff", Kind: File, Size: 700, ModTime: Time{-1, 5}, UID: 1 << 30},
		{Name: "s", Kind: File, Size: 9000, Extents: []Extent{{100, 5}, {600, 100}}, Xattrs: []Xattr{{"user.x=", "\x00"}}},
		{Name: "l", Kind: Symlink, Target: strings.Repeat("../", 50)},
		{Name: "h", Kind: HardLink, Target: "a"},
		{Name: "d", Kind: Block, Major: 4095, Minor: 1 << 19},
	} {
		f.Add(appendWhole(f, nil, e))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newReader(bytes.NewReader(data))
		var total int64
		for {
			e, err := r.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				require.ErrorIs(t, err, ErrArchive)
				return
			}
			require.NoError(t, e.validate())
			n, err := io.Copy(io.Discard, r)
			total += n
			require.LessOrEqual(t, total, int64(len(data)))
			if err != nil {
				return
			}
			require.Equal(t, e.stored(), n)
			again, err := newReader(bytes.NewReader(appendWhole(t, nil, e))).next()
			require.NoError(t, err)
			require.Equal(t, e, again)
		}
	})
}

// FuzzRecords: records are read as they are written, or refused.
func FuzzRecords(f *testing.F) {
	f.Add("30 mtime=1234567890.123456789\n")
	f.Add("12 path=\xff\xfe\n" + "22 SCHILY.xattr.a%3D=\x00\n")
	f.Add("7 uid=9\n7 gid=0\n")
	f.Fuzz(func(t *testing.T, data string) {
		found, err := parseRecords(data)
		if err != nil {
			require.ErrorIs(t, err, ErrArchive)
			return
		}
		e := &Entry{Name: "name", Kind: File}
		if _, err := found.apply(e, 0); err != nil {
			require.ErrorIs(t, err, ErrArchive)
		}
	})
}

// FuzzNumbers: numbers and times have one spelling each.
func FuzzNumbers(f *testing.F) {
	for _, s := range []string{"0", "-0.5", "1234567890.123456789", "-1", "00", "1.50", "9223372036854775807", "-.1", "1e5", "+1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if when, err := parseTime(s); err == nil {
			require.Equal(t, s, formatTime(when))
		}
		if n, err := parseDecimal(s); err == nil {
			require.GreaterOrEqual(t, n, int64(0))
		}
		if n, err := parseOctal([]byte(s)); err == nil {
			require.GreaterOrEqual(t, n, int64(0))
		}
		_, _ = parseID(s)
	})
}

// TestTimes: of every file system.
func TestTimes(t *testing.T) {
	for text, when := range map[string]Time{
		"0": {0, 0}, "-0.5": {-1, 500_000_000}, "-1": {-1, 0}, "-0.999999999": {-1, 1}, "1.000000001": {1, 1},
		"4611686018427387903": {1<<62 - 1, 0}, "-4611686018427387903.25": {-1 << 62, 750_000_000},
	} {
		require.Equal(t, text, formatTime(when))
		got, err := parseTime(text)
		if when.valid() {
			require.NoError(t, err)
			require.Equal(t, when, got)
		} else {
			require.Error(t, err)
		}
	}
}

// FuzzACL: any attribute of that name has a text, or none.
func FuzzACL(f *testing.F) {
	f.Add(acl(7, 1000, 5))
	f.Fuzz(func(t *testing.T, value []byte) {
		text, ok := aclText(string(value))
		require.Equal(t, ok, text != "")
	})
}

func TestACLText(t *testing.T) {
	text, ok := aclText(string(acl(7, 1000, 5)))
	require.True(t, ok)
	require.Equal(t, "user::rwx\nuser:1000:r-x\ngroup::r--\nmask::r-x\nother::---\n", text)
}
