package repository

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
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

// TestSelectByTime: a backup is from when it was captured, which may be long
// after its run began. Here each run takes 50 minutes for its second member.
func TestSelectByTime(t *testing.T) {
	c := newClock()
	m := plainMode()
	store := initAt(t, m, c)
	for range 3 { // runs of 12:00, 13:00 and 14:00
		o := small()
		o.Clock = c.Now
		begun := c.now
		b, err := open(t, store, m.writer, o).Begin(t.Context(), planAt(begun, "", 0, 1), "a")
		require.NoError(t, err)
		for ordinal, took := range []time.Duration{time.Minute, 50 * time.Minute} {
			c.now = begun.Add(took)
			w, err := b.Member(t.Context(), ordinal)
			require.NoError(t, err)
			report := testReport()
			report.CapturedAt = c.now
			_, err = w.Commit(t.Context(), report, CommitStatus{})
			require.NoError(t, err)
		}
		require.NoError(t, b.Close())
		c.now = begun.Add(time.Hour)
	}
	r := open(t, store, m.restore, Options{})
	for text, hour := range map[string]int{
		"latest": 14, "2026-11-20": 14, "2026-11-20 12:50": 12, "2026-11-20T15:50:00+01:00": 14,
		"2026-11-20T13:30:00Z": 12, "2026-11-20T13:49:59Z": 12, "2026-11-20T13:50:00Z": 13, "2026-11-20 14:02": 13,
	} {
		s, err := ParseSelector(text)
		require.NoError(t, err)
		info, err := r.Resolve(t.Context(), testSet, s)
		require.NoError(t, err, text)
		require.Equal(t, hour, info.ID.Time().Hour(), text)
		require.Equal(t, 50, info.CapturedAt().Minute())
	}
	s, err := ParseSelector("2026-11-20T12:30:00Z")
	require.NoError(t, err)
	_, err = r.Resolve(t.Context(), testSet, s)
	require.ErrorIs(t, err, ErrNoEligible)
	require.ErrorContains(t, err, "was captured 2026-11-20T12:50:00Z, after 2026-11-20T12:30:00Z")
	_, err = r.Backup(t.Context(), testSet, "20260101T000000Z-00000000")
	require.ErrorIs(t, err, ErrNoBackup)
	_, err = ParseSelector("yesterday")
	require.Error(t, err)
	sets, err := r.Sets(t.Context())
	require.NoError(t, err)
	require.Len(t, sets, 1)
}

// TestCapturedAtOfAnIncompleteBackup: by the members that it has.
func TestCapturedAtOfAnIncompleteBackup(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	commit := func(minute int) record.Commit {
		return record.Commit{CapturedAt: at.Add(time.Duration(minute) * time.Minute)}
	}
	info := BackupInfo{ID: record.NewBackupID(at, ""), Members: map[int]MemberInfo{0: {Commit: commit(5)}}}
	require.Equal(t, at, info.CapturedAt(), "what does not count says nothing")
	info.Members[1] = MemberInfo{Commit: commit(3), Valid: true}
	require.Equal(t, at.Add(3*time.Minute), info.CapturedAt())
}

// TestSelectWhatFits: by time and as the latest, the caller may pass over
// backups that are good and not what it needs.
func TestSelectWhatFits(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	var ids []record.BackupID
	for n := range 2 {
		b := begin(t, store, m, testPlan(n, 0), "a")
		writeMember(t, b, 0, content{"a": []byte("a")})
		require.NoError(t, b.Close())
		ids = append(ids, b.Plan().ID)
	}
	r := open(t, store, m.restore, Options{})
	unfit := func(bad ...record.BackupID) func(BackupInfo) string {
		return func(info BackupInfo) string {
			if slices.Contains(bad, info.ID) {
				return "holds too little"
			}
			return ""
		}
	}
	info, err := r.Resolve(t.Context(), testSet, Selector{Unfit: unfit(ids[1])})
	require.NoError(t, err)
	require.Equal(t, ids[0], info.ID)
	_, err = r.Resolve(t.Context(), testSet, Selector{Unfit: unfit(ids...)})
	require.ErrorIs(t, err, ErrNoEligible)
	require.ErrorContains(t, err, string(ids[1])+" holds too little")
	_, err = r.Resolve(t.Context(), testSet, Selector{ID: ids[1], Unfit: unfit(ids...)})
	require.NoError(t, err, "an ID is asked for by name")
}
