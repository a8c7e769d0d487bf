package repository

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newMember(t *testing.T) (*Backup, *MemberWriter) {
	t.Helper()
	m := plainMode()
	b := begin(t, initStore(t, m), m, testPlan(0, 0, 1), "attempt-1")
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	return b, w
}

func TestNoCommitWithOpenStreams(t *testing.T) {
	_, w := newMember(t)
	s, err := w.Create(t.Context(), "a", StreamOptions{})
	require.NoError(t, err)
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.ErrorIs(t, err, errOpenStreams)
	require.Error(t, writeAll(s, []byte("too late")))
}

// TestNoCommitAfterAbort: an aborted stream takes its member with it, and the
// reason is told.
func TestNoCommitAfterAbort(t *testing.T) {
	b, w := newMember(t)
	reason := errors.New("the server went away")
	s, err := w.Create(t.Context(), "a", StreamOptions{})
	require.NoError(t, err)
	other, err := w.Create(t.Context(), "b", StreamOptions{})
	require.NoError(t, err)
	s.Abort(reason)
	s.Abort(errors.New("once is enough"))
	require.ErrorIs(t, writeAll(other, randomBytes(1, 5<<20)), reason, "other streams need not go on")
	_, err = w.Create(t.Context(), "c", StreamOptions{})
	require.ErrorIs(t, err, reason)
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.ErrorIs(t, err, reason)
	// The next member is not harmed.
	writeMember(t, b, 1, crashContent(1))
}

func TestCancelledContextEndsAStream(t *testing.T) {
	_, w := newMember(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := w.Create(ctx, "a", StreamOptions{})
	require.NoError(t, err)
	_, err = s.Write([]byte("a"))
	require.NoError(t, err)
	cancel()
	_, err = s.Write([]byte("b"))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Close(), context.Canceled, "what was lost stays lost")
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestNamesOfStreams(t *testing.T) {
	_, w := newMember(t)
	_, err := w.Create(t.Context(), "a", StreamOptions{})
	require.NoError(t, err)
	for _, name := range []string{"a", "", "\xff"} {
		_, err := w.Create(t.Context(), name, StreamOptions{})
		require.Error(t, err, "%q", name)
	}
	_, err = w.Create(t.Context(), "b", StreamOptions{Fixed: chunkMax + 1})
	require.Error(t, err)
}

func TestSuspectMember(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	b := begin(t, store, m, testPlan(0, 0), "attempt-1")
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{Suspect: true, Reasons: []string{"no rows at all"}})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	r := open(t, store, m.restore, Options{})
	_, err = r.Resolve(t.Context(), testSet, Selector{})
	require.ErrorIs(t, err, ErrNoEligible)
	require.ErrorContains(t, err, "no rows at all")
	_, err = r.Resolve(t.Context(), testSet, Selector{ID: b.Plan().ID})
	require.ErrorIs(t, err, ErrNoEligible)
	info, err := r.Resolve(t.Context(), testSet, Selector{ID: b.Plan().ID, Allow: true})
	require.NoError(t, err)
	require.Equal(t, StatusSuspect, info.Status)
}

// TestPlanOverwrittenByAnotherPod: a commit for a plan that is not the stored
// one does not count, so it must not be reported as one that does. The retry
// takes over the plan that won.
func TestPlanOverwrittenByAnotherPod(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	first, second := testPlan(0, 0, 1), testPlan(0, 0, 1)
	second.ID, second.CreatedAt = first.ID, first.CreatedAt.Add(time.Second)
	a := begin(t, store, m, first, "pod-a")
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	// A store without conditional writes lets the second pod overwrite.
	require.NoError(t, store.Delete(t.Context(), layout{testSet}.plan(first.ID)))
	b := begin(t, store, m, second, "pod-b")
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	writeMember(t, b, 1, content{"a": []byte("b")})

	w, err := a.Member(t.Context(), 0)
	require.NoError(t, err)
	_, err = writeContent(t.Context(), w, content{"a": []byte("a")})
	require.ErrorIs(t, err, errPlanReplaced)

	retry := begin(t, store, m, first, "pod-a-again")
	t.Cleanup(func() { require.NoError(t, retry.Close()) })
	require.Equal(t, second.CreatedAt, retry.Plan().CreatedAt)
	writeMember(t, retry, 0, content{"a": []byte("a")})
	info, err := open(t, store, m.restore, Options{}).Backup(t.Context(), testSet, first.ID)
	require.NoError(t, err)
	require.Equal(t, StatusComplete, info.Status)
}

func TestSelectByTime(t *testing.T) {
	c := newClock()
	m := plainMode()
	store := initAt(t, m, c)
	for range 3 {
		o := small()
		o.Clock = c.Now
		b, err := open(t, store, m.writer, o).Begin(t.Context(), planAt(c.now, "", 0), "a")
		require.NoError(t, err)
		writeMember(t, b, 0, content{"a": []byte("a")})
		require.NoError(t, b.Close())
		c.advance(60 * 60 * 1e9)
	}
	r := open(t, store, m.restore, Options{})
	for text, hour := range map[string]int{
		"latest": 14, "2026-11-20T13:30:00Z": 13, "2026-11-20": 14, "2026-11-20 12:00": 12, "2026-11-20T15:30:00+01:00": 14,
	} {
		s, err := ParseSelector(text)
		require.NoError(t, err)
		info, err := r.Resolve(t.Context(), testSet, s)
		require.NoError(t, err)
		require.Equal(t, hour, info.ID.Time().Hour(), text)
	}
	s, err := ParseSelector("2026-11-20T11:59:59Z")
	require.NoError(t, err)
	_, err = r.Resolve(t.Context(), testSet, s)
	require.ErrorIs(t, err, ErrNoEligible)
	_, err = r.Backup(t.Context(), testSet, "20260101T000000Z-00000000")
	require.ErrorIs(t, err, ErrNoBackup)
	_, err = ParseSelector("yesterday")
	require.Error(t, err)
	sets, err := r.Sets(t.Context())
	require.NoError(t, err)
	require.Len(t, sets, 1)
}
