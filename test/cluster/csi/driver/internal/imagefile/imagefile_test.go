package imagefile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keepset/test/cluster/csi/driver/internal/volume"
)

// clock is a time that a test sets.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newStore(t *testing.T) (*Store, *clock) {
	t.Helper()
	c := &clock{now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)}
	s, err := New(t.TempDir(), "zone-a", c.Now)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func TestVolumeIsMadeOnce(t *testing.T) {
	s, _ := newStore(t)
	first, err := s.CreateVolume(t.Context(), volume.Spec{Name: "pvc-1", Size: 3 * volume.GiB, Zones: []string{"zone-b", "zone-a"}})
	if err != nil {
		t.Fatal(err)
	}
	if first.Zone != "zone-b" || first.Size != 3*volume.GiB {
		t.Errorf("got %+v", first)
	}
	write(t, s.image("volumes", first.ID), "data")
	again, err := s.CreateVolume(t.Context(), volume.Spec{Name: "pvc-1", Size: 2 * volume.GiB})
	if err != nil || again != first {
		t.Errorf("the second time: %+v (%v), want %+v", again, err, first)
	}
	if got := read(t, s.image("volumes", first.ID), 4); got != "data" {
		t.Errorf("its content is now %q", got)
	}
	if _, err := s.CreateVolume(t.Context(), volume.Spec{Name: "pvc-1", Size: 4 * volume.GiB}); !errors.Is(err, volume.ErrExists) {
		t.Errorf("a larger one of that name: %v", err)
	}
	for range 2 {
		if err := s.DeleteVolume(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.Volumes(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("left: %v (%v)", all, err)
	}
}

// An image without a record is what a crash has left, of a volume that was made
// from something else, perhaps.
func TestHalfMadeVolumeIsMadeAgain(t *testing.T) {
	s, _ := newStore(t)
	v := mustCreate(t, s, volume.Spec{Name: "v"})
	write(t, s.image("volumes", v.ID), "from the snapshot")
	snap, err := s.CreateSnapshot(t.Context(), volume.SnapshotSpec{Name: "s", Volume: v.ID})
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.image("volumes", idOf("vol", "restored")), "of a crash")
	restored := mustCreate(t, s, volume.Spec{Name: "restored", Size: volume.GiB, Snapshot: snap.ID})
	if got := read(t, s.image("volumes", restored.ID), 17); got != "from the snapshot" {
		t.Errorf("it holds %q", got)
	}
	if info, err := os.Stat(s.image("volumes", restored.ID)); err != nil || info.Size() != volume.GiB {
		t.Errorf("its image is %v (%v)", info, err)
	}
}

func TestSnapshotKeepsWhatWas(t *testing.T) {
	s, now := newStore(t)
	v := mustCreate(t, s, volume.Spec{Name: "v", Size: volume.GiB})
	write(t, s.image("volumes", v.ID), "before")
	spec := volume.SnapshotSpec{Name: "s", Volume: v.ID, Parameters: map[string]string{ReadyAfter: "3s", "csi.storage.k8s.io/volumesnapshot/name": "x"}}
	made, err := s.CreateSnapshot(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if made.Ready || !made.Created.Equal(now.now) || made.Size != volume.GiB {
		t.Errorf("got %+v", made)
	}
	write(t, s.image("volumes", v.ID), "after!")
	now.now = now.now.Add(3 * time.Second)
	again, err := s.CreateSnapshot(t.Context(), spec)
	if err != nil || !again.Ready || !again.Created.Equal(made.Created) {
		t.Errorf("later: %+v (%v)", again, err)
	}
	if err := s.DeleteVolume(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	restored := mustCreate(t, s, volume.Spec{Name: "r", Snapshot: made.ID})
	if got := read(t, s.image("volumes", restored.ID), 6); got != "before" || restored.Size != volume.GiB {
		t.Errorf("restored %+v with %q", restored, got)
	}
}

func TestRefusals(t *testing.T) {
	s, _ := newStore(t)
	v := mustCreate(t, s, volume.Spec{Name: "v", Size: 2 * volume.GiB})
	snap, err := s.CreateSnapshot(t.Context(), volume.SnapshotSpec{Name: "s", Volume: v.ID})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spec volume.Spec
		want error
	}{
		"smaller than the snapshot": {volume.Spec{Name: "a", Size: volume.GiB, Snapshot: snap.ID}, volume.ErrSize},
		"above the limit":           {volume.Spec{Name: "b", Size: volume.GiB, Limit: volume.GiB / 2}, volume.ErrSize},
		"no such snapshot":          {volume.Spec{Name: "c", Snapshot: "snap-00"}, volume.ErrNotFound},
		"a path for a snapshot":     {volume.Spec{Name: "d", Snapshot: "../volumes/" + v.ID}, volume.ErrNotFound},
		"unknown parameter":         {volume.Spec{Name: "e", Parameters: map[string]string{"type": "gp2"}}, volume.ErrInvalid},
	} {
		if _, err := s.CreateVolume(t.Context(), c.spec); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for name, c := range map[string]struct {
		spec volume.SnapshotSpec
		want string
	}{
		"broken":            {volume.SnapshotSpec{Name: "f", Volume: v.ID, Parameters: map[string]string{Fail: "on fire"}}, "on fire"},
		"no such volume":    {volume.SnapshotSpec{Name: "g", Volume: "vol-00"}, "volumes/vol-00: not found"},
		"other volume":      {volume.SnapshotSpec{Name: "s", Volume: "vol-00"}, "snapshot s of volume " + v.ID + ": exists with another content"},
		"unknown parameter": {volume.SnapshotSpec{Name: "h", Volume: v.ID, Parameters: map[string]string{"x": "y"}}, `parameter "x" of the VolumeSnapshotClass: parameter is not valid: there is none`},
	} {
		if _, err := s.CreateSnapshot(t.Context(), c.spec); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if all, err := s.Snapshots(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("snapshots: %v (%v)", all, err)
	}
}

func mustCreate(t *testing.T, s *Store, spec volume.Spec) volume.Volume {
	t.Helper()
	v, err := s.CreateVolume(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func write(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Clean(file), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string, length int) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got := make([]byte, length)
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	return string(got)
}
