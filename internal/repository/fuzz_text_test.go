package repository

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

// A part that was read is what would be written again of its rows: there is
// one way to write it, and no pack has a size that no pack can have.
func FuzzPartIsCanonical(f *testing.F) {
	f.Add(encodePart([nonceSize]byte{1}, sampleEntries()))
	f.Add(encodePart([nonceSize]byte{}, nil))
	negative := encodePart([nonceSize]byte{2}, sampleEntries()[:1])
	negative[partHead+32+7] = 0x80
	f.Add(negative)
	twice := sampleEntries()
	twice = append(twice, partEntry{id: hash{10}, at: twice[0].at, name: hash{6}, size: 7})
	same := encodePart([nonceSize]byte{3}, twice)
	copy(same[partHead:], same[partHead+partPack:partHead+partPack+32])
	f.Add(same)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePart(data)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			return
		}
		var nonce [nonceSize]byte
		copy(nonce[:], data[len(partMagic):])
		used := make([]bool, len(p.names))
		entries := make([]partEntry, p.len())
		for i := range entries {
			at := p.location(i)
			used[at.pack] = true
			entries[i] = partEntry{id: p.id(i), at: at, name: p.names[at.pack], size: p.sizes[at.pack]}
			require.Positive(t, p.sizes[at.pack])
		}
		for _, u := range used {
			if !u { // an older program may have left a pack without rows
				return
			}
		}
		require.True(t, bytes.Equal(data, encodePart(nonce, entries)))
	})
}

// What was sealed opens to the same bytes, with the key and only whole; and
// no object makes a reader take more memory than a record may.
func FuzzCodec(f *testing.F) {
	identity, err := age.GenerateX25519Identity()
	require.NoError(f, err)
	f.Add([]byte("plain text"), uint16(3))
	f.Add([]byte{}, uint16(0))
	f.Add(bytes.Repeat([]byte{0}, 1<<16), uint16(99))
	var c codec
	f.Fuzz(func(t *testing.T, plain []byte, at uint16) {
		sealed, name, err := c.seal(plain, identity.Recipient())
		require.NoError(t, err)
		require.False(t, name.IsZero())
		again, err := c.open(sealed, []age.Identity{identity})
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain, again))
		cut := int(at) % len(sealed)
		_, err = c.open(sealed[:cut], []age.Identity{identity})
		require.ErrorIs(t, err, ErrDamaged)
		sealed[cut] ^= 1 // anywhere
		_, err = c.open(sealed, []age.Identity{identity})
		require.ErrorIs(t, err, ErrDamaged)
		if opened, err := c.open(plain, nil); err != nil {
			require.ErrorIs(t, err, ErrDamaged)
		} else {
			require.LessOrEqual(t, len(opened), maxRecord)
		}
	})
}

// A frame that says it is huge, or is, is damage and not an allocation.
func TestCodecRefusesBombs(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	bomb := encoder.EncodeAll(make([]byte, maxRecord+1), nil)
	require.NoError(t, encoder.Close())
	require.Less(t, len(bomb), maxRecord/1000)
	var c codec
	_, err = c.open(bomb, nil)
	require.ErrorIs(t, err, ErrDamaged)
}

// Any range of an age file that is opened chunk by chunk is what the age
// package reads there.
func FuzzAgeRange(f *testing.F) {
	identity, err := age.GenerateX25519Identity()
	require.NoError(f, err)
	f.Add(uint32(10), uint32(3), uint32(4), uint32(12))
	f.Add(uint32(2*ageChunk), uint32(ageChunk-1), uint32(2), uint32(ageChunk))
	f.Add(uint32(ageChunk+1), uint32(0), uint32(ageChunk+1), uint32(1<<17))
	f.Fuzz(func(t *testing.T, size, from, length, flip uint32) {
		size = size%(3*ageChunk) + 1
		plain := make([]byte, size)
		for i := range plain {
			plain[i] = byte(i * 31 >> 3)
		}
		var sealed bytes.Buffer
		w, err := age.Encrypt(&sealed, identity.Recipient())
		require.NoError(t, err)
		_, err = w.Write(plain)
		require.NoError(t, errors.Join(err, w.Close()))
		a, err := openAge(sealed.Bytes()[:min(sealed.Len(), ageHeadRoom)], int64(sealed.Len()), []age.Identity{identity})
		require.NoError(t, err)
		require.Equal(t, int64(size), a.size())
		from %= size
		to := min(size, from+length%size+1)
		at, stored, begins := a.span(int64(from), int64(to))
		data := bytes.Clone(sealed.Bytes()[at : at+stored])
		broken := bytes.Clone(data)
		opened, err := a.open(data, begins)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain[from:to], opened[int64(from)-begins:int64(to)-begins]))
		broken[int(flip)%len(broken)] ^= 1
		_, err = a.open(broken, begins)
		require.ErrorIs(t, err, ErrDamaged)
	})
}

// A key that was written down is read as the same key, and an error never
// repeats it.
func FuzzWriterKeys(f *testing.F) {
	f.Add(make([]byte, 32), "")
	f.Add([]byte("0123456789abcdef0123456789abcdef"), " keepset-writer:AAAA ")
	f.Add([]byte("x"), "keepset-writer-secret-key:"+strings.Repeat("A", 43)+"=")
	f.Fuzz(func(t *testing.T, seed []byte, text string) {
		if len(seed) == ed25519.SeedSize {
			key := ed25519.NewKeyFromSeed(seed)
			secret, err := parseWriterSecret(formatWriterSecret(key) + "\n")
			require.NoError(t, err)
			require.True(t, key.Equal(secret))
			public, err := parseWriterPublic(formatWriterPublic(writerPublic(key)))
			require.NoError(t, err)
			require.True(t, writerPublic(key).Equal(public))
			_, err = parseWriterPublic(formatWriterSecret(key))
			require.Error(t, err, "a secret key where a public one belongs")
			require.NotContains(t, err.Error(), formatWriterSecret(key)[len(writerSecretPrefix):])
			prover, err := parseProverSecret(formatProverSecret(key))
			require.NoError(t, err)
			require.True(t, key.Equal(prover))
			public, err = parseProverPublic(formatProverPublic(writerPublic(key)))
			require.NoError(t, err)
			require.True(t, writerPublic(key).Equal(public))
			_, err = parseProverSecret(formatWriterSecret(key))
			require.Error(t, err, "a writer signs no proofs")
		}
		if key, err := parseWriterSecret(text); err == nil {
			again, err := parseWriterSecret(formatWriterSecret(key))
			require.NoError(t, err)
			require.True(t, key.Equal(again))
		}
		if key, err := parseWriterPublic(text); err == nil {
			require.Len(t, key, ed25519.PublicKeySize)
		}
	})
}

// Keys that cannot be read are an error that names the variable and does not
// show what is in it.
func FuzzKeyErrors(f *testing.F) {
	set, err := Keygen(nil)
	require.NoError(f, err)
	for _, v := range append(set.Writer, set.Restore...) {
		f.Add(v.Name, v.Value)
		f.Add(v.Name, v.Value[:len(v.Value)-1])
		f.Add(v.Name, strings.ToLower(v.Value)+" x")
	}
	f.Add(NameKeyFiles, "a/b AAAA\n")
	f.Add(NameKeyFiles, "0123456789abcdef AAAA\n0123456789abcdef BBBB")
	f.Add(NameKeyFiles, "0123456789abcdef AAAA\n2.0123456789abcdef BBBB")
	f.Add(NameTrustedWriters, set.Restore[0].Value+"@2026-11-20T13:17:30Z "+set.Restore[0].Value)
	f.Add(NameTrustedWriters, set.Restore[0].Value+"@yesterday")
	files := regexp.MustCompile(`^([0-9]+\.)?[0-9a-f]{16}$`)
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.HasSuffix(name, "_FILE") {
			return
		}
		keys, err := LoadKeys(func(n string) string {
			if n == name {
				return value
			}
			return ""
		})
		if err != nil {
			require.ErrorContains(t, err, name)
			// How a key begins is said, and is no secret.
			if len(value) > 20 && !strings.Contains(writerSecretPrefix+" "+proverSecretPrefix, value) {
				require.NotContains(t, err.Error(), value)
			}
			require.Empty(t, keys)
			return
		}
		for file := range keys.KeyFiles {
			require.Regexp(t, files, file, "it becomes part of a key in the store")
			epoch, recipient, later := strings.Cut(file, ".")
			if !later {
				epoch, recipient = "1", file
			}
			n, err := strconv.Atoi(epoch)
			require.NoError(t, err)
			require.Equal(t, file, keyFileName(n, recipient), "one name for each key file")
		}
		for id, until := range keys.Until {
			require.False(t, until.IsZero())
			require.True(t, slices.ContainsFunc(keys.Trusted, func(k ed25519.PublicKey) bool { return record.KeyID(k) == id }))
		}
		if name == NameKeyFiles {
			require.Len(t, keys.KeyFiles, len(strings.FieldsFunc(value, func(r rune) bool { return r == '\n' })))
		}
	})
}

// Whoever signed it, and whatever it says of itself: a record of a retired writer
// that is too late is never taken.
func FuzzDecodeSigned(f *testing.F) {
	_, old, err := ed25519.GenerateKey(nil)
	require.NoError(f, err)
	public, now, err := ed25519.GenerateKey(nil)
	require.NoError(f, err)
	until := newClock().now
	r := &Repository{keys: Keys{Trusted: []ed25519.PublicKey{writerPublic(old), public}}}
	r.config.Retired = []record.RetiredWriter{{Key: record.KeyID(writerPublic(old)), Until: until}}
	pin := record.Pin{Header: record.NewHeader(record.KindPin), Set: testSet, Backup: "20261120T131730Z-1a2b3c4d", CreatedAt: until}
	for _, key := range []ed25519.PrivateKey{old, now, nil} {
		data, err := record.Encode(&pin, key)
		require.NoError(f, err)
		f.Add(data, int64(-1))
		f.Add(data, int64(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, after int64) {
		var got record.Pin
		stored := until.Add(time.Duration(after))
		signer, signed := record.Decode(data, &record.Pin{}, r.trusted())
		err := r.decodeSigned(data, &got, stored)
		switch {
		case signed != nil:
			require.Error(t, err)
		case signer == record.KeyID(public):
			require.NoError(t, err)
		case after > 0:
			require.ErrorIs(t, err, errRetired)
		default:
			require.NoError(t, err)
		}
	})
}

// What a key file locks is taken only if it is the keys of its epoch, whatever a
// recipient, who can make key files as well, has put there.
func FuzzKeyFile(f *testing.F) {
	secrets, err := newSecrets()
	require.NoError(f, err)
	epoch := record.Epoch{Number: 2, Data: Fingerprint(secrets.data.Recipient().String()), Index: Fingerprint(secrets.index.Recipient().String())}
	file := record.KeyFile{Header: record.NewHeader(record.KindKey), Epoch: 2, Data: secrets.data.String(), Index: secrets.index.String()}
	good, err := record.Encode(&file, nil)
	require.NoError(f, err)
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("AGE-SECRET-KEY-1"), []byte("AGE-SECRET-KEY-2"), 1))
	file.Data, file.Index = file.Index, file.Data
	swapped, err := record.Encode(&file, nil)
	require.NoError(f, err)
	f.Add(swapped)
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := decodeKeyFile(text, epoch)
		if err != nil {
			require.True(t, unreadable(err), err)
			return
		}
		require.Equal(t, secrets.data.String(), got.data.String())
		require.Equal(t, secrets.index.String(), got.index.String())
	})
}

// A backup that is asked for by time is never just the latest one, and by date
// it is one of that day or before.
func FuzzSelectorTime(f *testing.F) {
	for _, s := range []string{"latest", "2026-11-20", "2026-11-20 13:17", "2026-11-20T13:17:30+02:00", "0001-01-01T00:00:00Z", "0001-01-01T00:00", "20261120T131730Z-1a2b3c4d", " latest", "24:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		switch {
		case err != nil:
			require.ErrorContains(t, err, "ID like")
		case s.ID != "":
			require.Equal(t, text, string(s.ID))
		case s.At.IsZero():
			require.Contains(t, []string{"", "latest"}, text)
		default:
			again, err := ParseSelector(s.At.Format(time.RFC3339Nano))
			require.NoError(t, err)
			require.True(t, s.At.Equal(again.At))
		}
	})
}
