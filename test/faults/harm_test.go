package faults

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage"
)

// harms are the ways in which an object goes bad. neighbour is another object of its kind.
var harms = map[string]func(object, neighbour []byte) []byte{
	"flipped": func(b, _ []byte) []byte {
		b = bytes.Clone(b)
		if len(b) > 0 {
			b[len(b)/2] ^= 0x10
		}
		return b
	},
	"truncated": func(b, _ []byte) []byte { return b[:len(b)/2] },
	"removed":   nil,
	"swapped":   func(_, neighbour []byte) []byte { return neighbour },
}

// TestHarm breaks objects of every kind in every way. Whatever is restored then is right; whatever is not is named by verify,
// down to the table; and all that verify does not name is restored.
func TestHarm(t *testing.T) {
	_, seed := rounds(t, 1, 1)
	for mode := range uint64(2) {
		w := newTown(t, seed/2*2+mode)
		for range 2 {
			_, err := w.backUp(t.Context(), w.newID())
			require.NoError(t, err)
			w.clock.Add(time.Hour)
			w.trade()
		}
		h := &harm{town: w, kinds: map[string][]storage.Object{}}
		for o, err := range w.home.disk.List(t.Context(), "") {
			require.NoError(t, err)
			h.kinds[kindOf(o.Key)] = append(h.kinds[kindOf(o.Key)], o)
		}
		name := []string{"plain", "encrypted"}[mode]
		t.Run(name, func(t *testing.T) {
			h.t = t
			for _, kind := range slices.Sorted(maps.Keys(h.kinds)) {
				for _, how := range slices.Sorted(maps.Keys(harms)) {
					h.kind(kind, how)
				}
			}
			t.Logf("measured: %d kinds of objects, %d times harmed: %d tables could not be restored, all named by verify; %d were, and are right",
				len(h.kinds), h.times, h.lost, h.restored)
			require.Positive(t, h.lost)
			require.Greater(t, h.restored, h.lost)
		})
	}
}

// kindOf is the folder of an object.
func kindOf(key string) string {
	parts := strings.Split(key, "/")
	if parts[0] != "sets" {
		return parts[0]
	}
	if parts[3] == "backups" {
		return "backups/" + map[bool]string{true: "plan", false: "checkpoint"}[parts[5] == "plan"]
	}
	return parts[3]
}

// harm is a town whose store is harmed.
type harm struct {
	*town
	kinds                 map[string][]storage.Object
	times, lost, restored int
}

// kind harms one object of a kind, or with KEEPSET_SOAK each.
func (h *harm) kind(kind, how string) {
	objects := h.kinds[kind]
	chosen := objects
	if os.Getenv("KEEPSET_SOAK") == "" {
		chosen = []storage.Object{objects[h.rng.IntN(len(objects))]}
	}
	for _, o := range chosen {
		at := slices.IndexFunc(objects, func(other storage.Object) bool { return other.Key == o.Key })
		neighbour := objects[(at+1)%len(objects)]
		if how == "swapped" && neighbour.Key == o.Key {
			continue
		}
		h.times++
		whole := h.read(o)
		var bad []byte
		if harms[how] != nil {
			bad = harms[how](whole, h.read(neighbour))
		}
		h.replace(o, bad, how == "removed")
		h.look(fmt.Sprintf("%s %s", o.Key, how), o.Key)
		h.replace(o, whole, false)
	}
}

func (h *harm) read(o storage.Object) []byte {
	body, err := h.home.disk.Get(h.t.Context(), o.Key, 0, -1)
	require.NoError(h.t, err)
	data, err := io.ReadAll(body)
	require.NoError(h.t, err)
	require.NoError(h.t, body.Close())
	return data
}

// replace leaves the object's time as it was.
func (h *harm) replace(o storage.Object, data []byte, remove bool) {
	require.NoError(h.t, h.home.disk.Delete(h.t.Context(), o.Key))
	if remove {
		return
	}
	now := h.clock.Now()
	h.clock.Add(o.LastModified.Sub(now))
	require.NoError(h.t, h.home.disk.Put(h.t.Context(), o.Key, bytes.NewReader(data)))
	h.clock.Add(now.Sub(o.LastModified))
}

// look restores what can be restored, and compares that with what verify says.
func (h *harm) look(what, key string) {
	r, err := repository.Open(h.t.Context(), h.home.disk, h.keys.restore, repository.Options{Clock: h.clock.Now})
	if err != nil && !strings.HasPrefix(key, "sets/") { // what belongs to all backups is said to everybody
		if strings.HasPrefix(key, "keys/") {
			require.ErrorContains(h.t, err, "keys/", what)
		}
		return
	}
	require.NoError(h.t, err, what)
	report, err := r.Verify(h.t.Context(), repository.VerifyOptions{Set: townSet, ReadData: 100})
	require.NoError(h.t, err, what)
	infos, err := r.Backups(h.t.Context(), townSet)
	require.NoError(h.t, err, what)
	for id, members := range h.taken {
		at := slices.IndexFunc(infos, func(info repository.BackupInfo) bool { return info.ID == id })
		for ordinal, states := range members {
			for table, want := range states[0] {
				if at >= 0 && infos[at].Members[ordinal].Valid && h.restores(r, infos[at], ordinal, table, want, what) {
					h.restored++
					continue
				}
				h.lost++
				require.True(h.t, names(report, id, ordinal, "data/"+table), "%s: table %s of ordinal %d of %s is lost, and verify does not say so: %+v", what, table, ordinal, id, report)
			}
		}
	}
}

// restores reads a table. What comes without an error has to be right, whatever else happens.
func (h *harm) restores(r *repository.Repository, info repository.BackupInfo, ordinal int, table string, want []byte, what string) bool {
	m, err := r.OpenMember(h.t.Context(), info, ordinal)
	if err != nil {
		return false
	}
	defer func() { require.NoError(h.t, m.Close()) }()
	body, err := m.Open(h.t.Context(), "data/"+table)
	if err != nil {
		return false
	}
	got, err := io.ReadAll(body)
	_ = body.Close() // it has said what it had to say
	require.True(h.t, bytes.HasPrefix(want, got), "%s: table %s of ordinal %d of %s delivered wrong bytes", what, table, ordinal, info.ID)
	if err == nil {
		require.Len(h.t, got, len(want), "%s: table %s of ordinal %d of %s ended early without an error", what, table, ordinal, info.ID)
	}
	return err == nil
}

// names says whether a verification tells that a table cannot be restored: by its own name, or with its whole member or
// backup.
func names(report repository.VerifyReport, id record.BackupID, ordinal int, stream string) bool {
	for _, d := range report.Damages {
		for _, harm := range d.Harmed {
			if harm.Backup == id && harm.Ordinal == ordinal && (len(harm.Streams) == 0 || slices.Contains(harm.Streams, stream)) {
				return true
			}
		}
		if strings.Contains(d.Key, string(id)) && strings.HasSuffix(d.Key, "/plan") {
			return true
		}
	}
	return slices.ContainsFunc(report.Problems, func(p string) bool { return strings.Contains(p, string(id)) })
}
