package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

var errCrash = errors.New("the test has cut the store off")

// dying is a store that answers a number of calls and then no more, as it
// looks to a process that is about to be killed. With lostReply the last Put
// arrives and its reply does not.
type dying struct {
	storage.Store
	left      atomic.Int64
	lostReply bool
}

func (d *dying) call() error {
	if d.left.Add(-1) < 0 {
		return errCrash
	}
	return nil
}

func (d *dying) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	left := d.left.Add(-1)
	if left == -1 && d.lostReply {
		return errors.Join(d.Store.Put(ctx, key, body), errCrash)
	}
	if left < 0 {
		return errCrash
	}
	return d.Store.Put(ctx, key, body)
}

func (d *dying) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := d.call(); err != nil {
		return nil, err
	}
	return d.Store.Get(ctx, key, offset, length)
}

func (d *dying) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := d.call(); err != nil {
		return storage.Object{}, err
	}
	return d.Store.Stat(ctx, key)
}

func (d *dying) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	if err := d.call(); err != nil {
		return func(yield func(storage.Object, error) bool) { yield(storage.Object{}, err) }
	}
	return d.Store.List(ctx, prefix)
}

func (d *dying) Delete(ctx context.Context, key string) error {
	left := d.left.Add(-1)
	if left == -1 && d.lostReply {
		return errors.Join(d.Store.Delete(ctx, key), errCrash)
	}
	if left < 0 {
		return errCrash
	}
	return d.Store.Delete(ctx, key)
}

func crashContent(seed uint64) content {
	return content{
		"a": text(seed, 300<<10), "b": randomBytes(seed+1, 700<<10), "c": text(seed+2, 900), "d": {}, "secret": []byte("hunter2"),
	}
}

// TestCrashAtEveryCall stops the store at every call in turn. Whatever stands
// there then, no listing lies, and the next attempt ends complete and right.
func TestCrashAtEveryCall(t *testing.T) {
	for _, m := range modes(t) {
		for _, lostReply := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/lostReply=%t", m.name, lostReply), func(t *testing.T) {
				crashes := 0
				for calls := int64(0); ; calls += crashStep {
					died := crashOnce(t, m, calls, lostReply, writeContent)
					if !died {
						break
					}
					crashes++
				}
				require.Greater(t, crashes, 25/crashStep, "the test has lost its grip on the store")
			})
		}
	}
}

// writing writes a member whole.
type writing func(context.Context, *MemberWriter, content) (record.Commit, error)

func crashOnce(t *testing.T, m mode, calls int64, lostReply bool, write writing) (died bool) {
	store := initStore(t, m)
	old := crashContent(10)
	first := begin(t, store, m, testPlan(0, 0, 1), "attempt-1")
	for ordinal := range 2 {
		w, err := first.Member(t.Context(), ordinal)
		require.NoError(t, err)
		_, err = write(t.Context(), w, old)
		require.NoError(t, err)
	}
	require.NoError(t, first.Close())
	members := []content{crashContent(20), old}
	o := small()
	o.PackBytes = 64 << 10
	plan := testPlan(1, 0, 1)

	d := &dying{Store: store, lostReply: lostReply}
	d.left.Store(calls)
	err := attempt(t, d, m, o, plan, "attempt-1", members, write)
	died = d.left.Load() < 0
	require.Equal(t, died, err != nil, "after %d calls: %v", calls, err)
	requireNoLie(t, store, m, plan.ID, members)

	require.NoError(t, attempt(t, store, m, o, plan, "attempt-2", members, write), "after %d calls", calls)
	reader := open(t, store, m.restore, Options{})
	info, err := reader.Resolve(t.Context(), testSet, Selector{ID: plan.ID})
	require.NoError(t, err, "after %d calls", calls)
	require.Equal(t, StatusComplete, info.Status)
	for ordinal, want := range members {
		got, err := readMember(t.Context(), reader, plan.ID, ordinal)
		require.NoError(t, err, "after %d calls", calls)
		requireContent(t, want, got)
	}
	report, err := reader.Verify(t.Context(), VerifyOptions{Set: testSet, ReadData: 100})
	require.NoError(t, err)
	require.Empty(t, report.Damages)
	return died
}

// attempt runs one attempt from Open to Close.
func attempt(t *testing.T, store storage.Store, m mode, o Options, plan record.Plan, name record.AttemptID, members []content, write writing) error {
	t.Helper()
	r, err := Open(t.Context(), store, m.writer, o)
	if err != nil {
		return err
	}
	b, err := r.Begin(t.Context(), plan, name)
	if err != nil {
		return err
	}
	for ordinal, c := range members {
		_, done, err := b.Committed(t.Context(), ordinal)
		if err == nil && !done {
			var w *MemberWriter
			if w, err = b.Member(t.Context(), ordinal); err == nil {
				_, err = write(t.Context(), w, c)
			}
			if err == nil && ordinal == 0 {
				err = b.checkpoint(t.Context())
			}
		}
		if err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return b.Close()
}

// requireNoLie: what is listed as complete can be read.
func requireNoLie(t *testing.T, store storage.Store, m mode, id record.BackupID, members []content) {
	t.Helper()
	r := open(t, store, m.restore, Options{})
	infos, err := r.Backups(t.Context(), testSet)
	require.NoError(t, err)
	for _, info := range infos {
		if info.ID != id {
			require.Equal(t, StatusComplete, info.Status, "an earlier backup was harmed")
			continue
		}
		for ordinal, want := range members {
			if !info.Members[ordinal].Valid {
				require.NotEqual(t, StatusComplete, info.Status)
				continue
			}
			got, err := readMember(t.Context(), r, id, ordinal)
			require.NoError(t, err)
			requireContent(t, want, got)
		}
	}
}

// repeating stores, and answers as a store does whose first reply was lost
// and that was asked again.
type repeating struct{ storage.Store }

func (r repeating) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	return errors.Join(r.Store.Put(ctx, key, body), storage.ErrExists)
}

// TestEveryReplyIsLost: "exists already" on our own bytes is success.
func TestEveryReplyIsLost(t *testing.T) {
	for _, m := range modes(t) {
		store := mem.New(mem.Options{})
		_, err := Init(t.Context(), repeating{store}, InitOptions{Keys: m.writer})
		require.NoError(t, err)
		want := crashContent(1)
		id := writeBackup(t, open(t, repeating{store}, m.writer, small()), want)
		got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), id, 0)
		require.NoError(t, err)
		requireContent(t, want, got)
	}
}

// TestResumeFromCheckpoint: what an attempt that died has uploaded is found again.
func TestResumeFromCheckpoint(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			plan, c := testPlan(0, 0), content{"big": randomBytes(1, 8<<20), "other": randomBytes(2, 1<<20)}
			first := begin(t, store, m, plan, "attempt-1")
			w, err := first.Member(t.Context(), 0)
			require.NoError(t, err)
			s, err := w.Create(t.Context(), "big", StreamOptions{})
			require.NoError(t, err)
			require.NoError(t, writeAll(s, c["big"]))
			require.NoError(t, first.pipeline.flush(t.Context()))
			require.NoError(t, first.checkpoint(t.Context()))
			require.NoError(t, first.Close())

			second := begin(t, store, m, plan, "attempt-2")
			commit := writeMember(t, second, 0, c)
			require.NoError(t, second.Close())
			require.Less(t, commit.Stored, int64(2<<20), "only the second stream is new")
			got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), plan.ID, 0)
			require.NoError(t, err)
			requireContent(t, c, got)
		})
	}
}

func begin(t testing.TB, store storage.Store, m mode, plan record.Plan, name record.AttemptID) *Backup {
	t.Helper()
	b, err := open(t, store, m.writer, small()).Begin(t.Context(), plan, name)
	require.NoError(t, err)
	return b
}

// TestSameContainerStartsAgain: a container that is restarted within its pod
// has the attempt ID of the one before.
func TestSameContainerStartsAgain(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	plan, c := testPlan(0, 0), content{"big": randomBytes(1, 4<<20)}
	for range 2 {
		b := begin(t, store, m, plan, "attempt-1")
		w, err := b.Member(t.Context(), 0)
		require.NoError(t, err)
		s, err := w.Create(t.Context(), "big", StreamOptions{})
		require.NoError(t, err)
		require.NoError(t, writeAll(s, append(c["big"], randomBytes(uint64(time.Now().UnixNano()), 1<<20)...)))
		require.NoError(t, b.pipeline.flush(t.Context()))
		require.NoError(t, b.checkpoint(t.Context()))
		require.NoError(t, b.Close())
	}
	b := begin(t, store, m, plan, "attempt-1")
	commit := writeMember(t, b, 0, c)
	require.NoError(t, b.Close())
	require.Less(t, commit.Stored, int64(3<<20), "most chunks are in both earlier tries")
}

// TestFanOut: separate pods of one backup take over each other's checkpoints.
func TestFanOut(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	plan, c := testPlan(0, 0, 1), content{"big": randomBytes(1, 8<<20)}
	one, two := begin(t, store, m, plan, "pod-1"), begin(t, store, m, plan, "pod-2")
	w2, err := two.Member(t.Context(), 1) // its index is read before there is anything
	require.NoError(t, err)
	w1, err := one.Member(t.Context(), 0)
	require.NoError(t, err)
	s, err := w1.Create(t.Context(), "big", StreamOptions{})
	require.NoError(t, err)
	require.NoError(t, writeAll(s, c["big"]))
	require.NoError(t, one.pipeline.flush(t.Context()))
	require.NoError(t, one.checkpoint(t.Context()))
	require.NoError(t, two.checkpoint(t.Context()))
	commit, err := writeContent(t.Context(), w2, c)
	require.NoError(t, err)
	require.Zero(t, commit.Stored, "pod 1 has stored all of it")
	_, err = w1.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, one.Close())
	require.NoError(t, two.Close())
	info, err := open(t, store, m.restore, Options{}).Resolve(t.Context(), testSet, Selector{})
	require.NoError(t, err)
	require.Equal(t, StatusComplete, info.Status)
	got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), plan.ID, 1)
	require.NoError(t, err)
	requireContent(t, c, got)
}
