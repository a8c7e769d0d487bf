package repository

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

func sampleTable() []byte {
	return appendTable([]byte("frames"), [nonceSize]byte{1}, []frameEntry{
		{Stored: 4, Decoded: 9, Chunks: []tableEntry{{ID: hash{1}, Length: 4}, {ID: hash{2}, Length: 5}}},
		{Stored: 2, Decoded: 1, Chunks: []tableEntry{{ID: hash{3}, Length: 1}}},
	})
}

func FuzzPackTable(f *testing.F) {
	f.Add(sampleTable())
	f.Add(appendTable(nil, [nonceSize]byte{}, nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		frames, err := parseTable(data)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			return
		}
		// What was accepted is what the encoder would have written.
		chunks := 0
		for i := range frames {
			chunks += len(frames[i].Chunks)
		}
		size := tableSize(len(frames), chunks)
		var nonce [nonceSize]byte
		table := data[len(data)-size:]
		copy(nonce[:], table[16:])
		require.True(t, bytes.Equal(table, appendTable(nil, nonce, frames)))
	})
}

func sampleEntries() []partEntry {
	return []partEntry{
		{id: hash{9}, at: location{at: 0, stored: 10, skip: 0, length: 20}, name: hash{7}, size: 1000},
		{id: hash{1}, at: location{at: 10, stored: 30, skip: 5, length: 40}, name: hash{8}, size: 2000},
	}
}

func FuzzPart(f *testing.F) {
	f.Add(encodePart([nonceSize]byte{1}, sampleEntries()))
	f.Add(encodePart([nonceSize]byte{}, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePart(data)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			return
		}
		for i := range p.len() {
			id := p.id(i)
			row, found := p.find(&id)
			require.True(t, found)
			require.Equal(t, i, row)
			require.Less(t, int(p.location(i).pack), len(p.names))
		}
	})
}

func FuzzAgeFile(f *testing.F) {
	m := encryptedMode(f)
	var c codec
	sealed, _, err := c.seal([]byte("plain text"), m.writer.Index[0].Recipient())
	require.NoError(f, err)
	f.Add(sealed)
	f.Add(sealed[:200])
	identities := open(f, initStore(f, m), m.writer, Options{}).secrets.index
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := c.open(data, nil); err != nil {
			require.ErrorIs(t, err, ErrDamaged)
		}
		a, err := openAge(data, int64(len(data)), identities)
		if err != nil {
			return
		}
		at, length, begins := a.span(0, a.size())
		if _, err := a.open(bytes.Clone(data[at:at+length]), begins); err != nil {
			require.ErrorIs(t, err, ErrDamaged)
		}
	})
}

func FuzzKeys(f *testing.F) {
	l := layout{testSet}
	f.Add(l.commit("20261120T131730Z-1a2b3c4d", 3, "attempt-1"))
	f.Add(l.checkpoint("20261120T131730Z-1a2b3c4d", 3, "attempt-1", 7))
	f.Add(l.pack(hash{1}))
	f.Add(keyConfig(3))
	f.Add(keyKeyFile(12, "0123456789abcdef"))
	f.Add(l.pin("20261120T131730Z-1a2b3c4d"))
	f.Add(l.report("20261120T131730Z-1a2b3c4d", "attempt-1"))
	f.Add(l.proof("20261120T131730Z-1a2b3c4d", "attempt-1"))
	f.Add(l.accept("20261120T131730Z-1a2b3c4d", "attempt-1"))
	f.Add(l.originAt(12))
	f.Fuzz(func(t *testing.T, key string) {
		if id, ordinal, attempt, ok := l.parseCommitKey(key); ok {
			require.Equal(t, key, l.commit(id, ordinal, attempt))
		}
		if id, rest, ok := l.parseBackupKey(key); ok {
			if ordinal, attempt, seq, ok := parseCheckpoint(rest); ok {
				require.Equal(t, key, l.checkpoint(id, ordinal, attempt, seq))
			}
			if parseAccept(rest) {
				require.Equal(t, key, l.accept(id, record.AttemptID(strings.TrimPrefix(rest, acceptPrefix))))
			}
		}
		if h, ok := parseHashKey(key, l.packs()); ok {
			require.Equal(t, key, l.pack(h))
		}
		if id, ok := l.parsePinKey(key); ok {
			require.Equal(t, key, l.pin(id))
		}
		if id, ok := l.parseReportKey(key); ok {
			require.True(t, strings.HasPrefix(key, l.reports()+string(id)+"."))
		}
		if id, ok := l.parseProofKey(key); ok {
			require.True(t, strings.HasPrefix(key, l.proofs()+string(id)+"."))
		}
		if n, ok := l.parseOriginKey(key); ok {
			require.Equal(t, key, l.originAt(n))
		}
		if epoch, recipient, ok := parseKeyFileKey(key); ok {
			require.Equal(t, key, keyKeyFile(epoch, recipient))
		}
		if n, ok := parseConfigKey(key); ok {
			require.Equal(t, key, keyConfig(n))
		}
		if set, rest, ok := parseSetKey(key); ok {
			require.Equal(t, key, layout{set}.root()+rest)
		}
	})
}

func FuzzLoadKeys(f *testing.F) {
	set, err := Keygen(nil)
	require.NoError(f, err)
	for _, v := range append(set.Writer, set.Restore...) {
		f.Add(v.Name, v.Value)
	}
	f.Fuzz(func(_ *testing.T, name, value string) {
		if len(name) > 5 && name[len(name)-5:] == "_FILE" {
			return
		}
		_, _ = LoadKeys(func(n string) string {
			if n == name {
				return value
			}
			return ""
		})
	})
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"latest", "20261120T131730Z-1a2b3c4d", "2026-11-20T13:17:30Z", "2026-11-20", "yesterday"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err == nil && s.ID != "" {
			require.NoError(t, s.ID.Validate())
		}
	})
}

func sampleMemos() []encodedMemo {
	var rows []encodedMemo
	for _, m := range []memo{
		{memoAt: memoAt{memoKey{9}, 3, 0}, fingerprint: []byte("snap-1"), segments: []memoSegment{{hole: 1 << 40}, {id: hash{1}, length: 512 << 10, crc: 5}}},
		{memoAt: memoAt{memoKey{9}, 3, 1<<40 + 512<<10}, last: true, fingerprint: []byte("snap-1")},
		{memoAt: memoAt{memoKey{7}, 2, 0}, last: true, segments: []memoSegment{{id: hash{2}, length: 3, crc: 6}}},
		{memoAt: memoAt{memoKey{7}, 1, 0}, last: true, fingerprint: []byte{0}},
	} {
		rows = append(rows, encodedMemo{m.memoAt, appendMemo(nil, &m)})
	}
	return rows
}

// What is read of memos is what would be written again of its rows, each row
// is found under its key, and its segments add up.
func FuzzMemos(f *testing.F) {
	f.Add(encodeMemos([nonceSize]byte{1}, 7, sampleMemos()))
	f.Add(encodeMemos([nonceSize]byte{}, 0, nil))
	endless := memo{memoAt: memoAt{key: memoKey{1}}, last: true, segments: []memoSegment{{hole: 1<<63 - 1}, {hole: 1}}}
	f.Add(encodeMemos([nonceSize]byte{}, 0, []encodedMemo{{endless.memoAt, appendMemo(nil, &endless)}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMemos(data)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			return
		}
		rows := make([]encodedMemo, len(m.rows))
		for i := range rows {
			row := m.row(i)
			require.GreaterOrEqual(t, row.offset+row.size(), row.offset)
			require.LessOrEqual(t, m.find(&row.key), i)
			require.Equal(t, row.key, m.at(m.find(&row.key)).key)
			rows[i] = encodedMemo{row.memoAt, appendMemo(nil, &row)}
		}
		require.True(t, bytes.Equal(data, encodeMemos(m.run, m.number, rows)))
	})
}
