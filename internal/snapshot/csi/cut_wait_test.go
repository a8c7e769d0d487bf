package csi

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/snapshottest"
)

func TestCutErrorThatPasses(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter(func(o *Options) { o.Grace = time.Minute })
	volumes := f.locate(t, s, "data-mysql-0")
	disk := volumes[0].Handle
	seen := 0
	f.set(func() {
		delete(f.disks, disk)
		f.before = func(request string) error {
			if request == "get volumesnapshots" {
				seen++
			}
			if seen == 10 {
				f.disks[disk] = "back"
			}
			return nil
		}
	})
	_, err := s.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	require.Greater(t, seen, 10)
}

func TestCutErrorThatStays(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	volumes := f.locate(t, s, "data-mysql-0")
	f.set(func() { delete(f.disks, volumes[0].Handle) })
	begin := f.clock.Now()
	_, err := s.Cut(t.Context(), cutName, volumes)
	require.ErrorIs(t, err, snapshot.ErrFailed)
	require.ErrorContains(t, err, "there is no such disk")
	require.InDelta(t, 10, f.clock.Now().Sub(begin).Seconds(), 1, "after ten seconds, well within the thirty that a database is held")
	_, err = s.Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.NoError(t, err)
	require.Empty(t, f.volumeSnapshots(t), "what came to nothing is deleted")
}

// One of two claims cannot be cut, and the other's snapshot would outlive its
// VolumeSnapshot.
func TestFailedCutUnderRetain(t *testing.T) {
	for name, allowed := range map[string]bool{"allowed": true, "not allowed": false} {
		t.Run(name, func(t *testing.T) {
			f := retaining(t)
			s := f.snapshotter()
			volumes := f.locate(t, s, "data-mysql-0", "log-mysql-0")
			f.set(func() { delete(f.disks, volumes[1].Handle) })
			if !allowed {
				f.allow(snapshottest.Granted(t, "keepset-backup", "csi-snapshots"))
			}
			_, err := s.Cut(t.Context(), cutName, volumes)
			require.ErrorIs(t, err, snapshot.ErrFailed)
			if !allowed {
				require.ErrorContains(t, err, "and what was cut stays behind")
				require.ErrorIs(t, err, snapshot.ErrDenied)
				require.Len(t, f.volumeSnapshots(t), 2, "found by List")
				return
			}
			for range 5 { // each request lets the controllers look once
				_, err = s.Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
				require.NoError(t, err)
			}
			f.requireNoSnapshots(t)
		})
	}
}

func TestCutThatNobodyTakesUp(t *testing.T) {
	for name, test := range map[string]struct {
		silent string
		says   string
	}{
		"no snapshot-controller": {"all", "the snapshot-controller has not taken it up"},
		"no csi-snapshotter":     {"sidecar", "is the csi-snapshotter beside it running?"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCluster(t)
			s := f.snapshotter()
			volumes := f.locate(t, s, "data-mysql-0")
			f.set(func() { f.still, f.mute = test.silent == "all", test.silent == "sidecar" })
			begin := f.clock.Now()
			_, err := s.Cut(t.Context(), cutName, volumes)
			require.ErrorIs(t, err, snapshot.ErrUnreachable)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, "data-mysql-0")
			require.InDelta(t, 120, f.clock.Now().Sub(begin).Seconds(), 1)
		})
	}
}

func TestCutEndsWithTheHold(t *testing.T) {
	for name, at := range map[string]string{"while it waits": "get volumesnapshots", "while it writes its last word": "patch volumesnapshots"} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCluster(t)
			s := f.snapshotter()
			volumes := f.locate(t, s, "data-mysql-0")
			ctx, lost := context.WithCancel(t.Context())
			defer lost()
			gets := 0
			f.set(func() {
				f.before = func(request string) error {
					if request == "get volumesnapshots" {
						gets++
					}
					if request == at && gets > 1 {
						lost()
					}
					return nil
				}
			})
			_, err := s.Cut(ctx, cutName, volumes)
			require.ErrorIs(t, err, context.Canceled)
			f.set(func() { f.before = nil })
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				for r, err := range s.List(t.Context(), testOwner) {
					assert.NoError(c, err)
					assert.Empty(c, r.Name)
				}
			}, 5*time.Second, time.Millisecond, "what was cut is deleted")
		})
	}
}

func TestCutSeesThroughAFalseStatus(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	refs, err := s.Cut(t.Context(), cutName, f.locate(t, s, "data-mysql-0"))
	require.NoError(t, err)
	f.set(func() { f.still = true })
	theirs := f.contents(t)[0].DeepCopy()
	theirs.Name, theirs.Spec.VolumeSnapshotRef.Name = "theirs", "theirs"
	require.NoError(t, f.snaps.Tracker().Add(theirs))
	vs := f.snapshotObject(t, refs[0])
	vs.Status.BoundVolumeSnapshotContentName = new("theirs")
	require.NoError(t, f.snaps.Tracker().Update(snapshotsResource, vs, vs.Namespace))
	err = s.WaitReady(t.Context(), refs[0])
	require.ErrorIs(t, err, snapshot.ErrFailed)
	require.ErrorContains(t, err, "belongs to shop/theirs")
}

func TestWaitReadyOfAnother(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	refs, err := s.Cut(t.Context(), cutName, f.locate(t, s, "data-mysql-0"))
	require.NoError(t, err)
	r := refs[0]
	r.ID = "cut-0"
	require.ErrorIs(t, s.WaitReady(t.Context(), r), snapshot.ErrNotFound, "of another handle")
	require.NoError(t, s.WaitReady(t.Context(), refs[0]))
	f.blind()
	require.NoError(t, s.WaitReady(t.Context(), refs[0]), "its time is that of the cut")
	r = refs[0]
	r.CutAt = r.CutAt.Add(-time.Hour)
	require.ErrorIs(t, s.WaitReady(t.Context(), r), snapshot.ErrNotFound, "of another time")
}

func TestWaitReadyThroughAnOutage(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	f.set(func() { f.failCuts = "later" })
	refs, err := s.Cut(t.Context(), cutName, f.locate(t, s, "data-mysql-0"))
	require.NoError(t, err)
	gets := 0
	f.set(func() {
		f.failCuts = ""
		f.before = func(request string) error {
			if request != "get volumesnapshots" {
				return nil
			}
			if gets++; gets > 1 && gets < 10 {
				return errNoAnswer
			}
			return nil
		}
	})
	require.NoError(t, s.WaitReady(t.Context(), refs[0]))
	begin := f.clock.Now()
	f.set(func() { f.before = func(string) error { return errNoAnswer } })
	err = s.awaitContent(t.Context(), f.contents(t)[0])
	require.ErrorIs(t, err, snapshot.ErrUnreachable)
	require.InDelta(t, 120, f.clock.Now().Sub(begin).Seconds(), 10, "not for ever")
}

// Of two cuts of one name the second waits, and then finds what the first made.
func TestCutsOfOneNameFollowEachOther(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	volumes := f.locate(t, s, "data-mysql-0")
	release, err := s.cutting.lock(t.Context(), cutName)
	require.NoError(t, err)
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer stop()
	_, err = s.Cut(ctx, cutName, volumes)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, f.volumeSnapshots(t))
	_, err = s.Cut(t.Context(), "another", volumes)
	require.NoError(t, err)
	release()
	_, err = s.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
}

func TestLocksFollowTheirContext(t *testing.T) {
	var l locks
	release, err := l.lock(t.Context(), "a")
	require.NoError(t, err)
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer stop()
	_, err = l.lock(ctx, "a")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	other, err := l.lock(t.Context(), "b")
	require.NoError(t, err)
	other()
	release()
	release, err = l.lock(t.Context(), "a")
	require.NoError(t, err)
	release()
	require.Empty(t, l.held)
}
