package repository

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
)

// dayAfter is when what was begun now cannot be running any more.
func dayAfter() time.Time { return time.Now().Add(25 * time.Hour) }

// TestVerifyDuringABackup: refs without a commit are nothing while the run may
// be about to commit, and a note once it cannot be any more or has failed.
func TestVerifyDuringABackup(t *testing.T) {
	for _, failed := range []bool{false, true} {
		c := newClock()
		store := initAt(t, plainMode(), c)
		o := small()
		o.Clock = c.Now
		r := open(t, store, Keys{}, o)
		b, err := r.Begin(t.Context(), planAt(c.now, "11111111", 0, 1), "a")
		require.NoError(t, err)
		writeMember(t, b, 0, content{"a": []byte("a")})
		writeMember(t, b, 1, content{"a": []byte("b")})
		key := layout{testSet}.commit(b.Plan().ID, 1, "a")
		require.NoError(t, store.Delete(t.Context(), key))
		report := verifyAll(t, r, VerifyOptions{})
		require.Empty(t, report.Damages)
		require.NotContains(t, strings.Join(report.Problems, " "), key)
		if failed {
			require.NoError(t, b.Report(t.Context(), "failed"))
		} else {
			c.advance(25 * time.Hour)
		}
		require.NoError(t, b.Close())
		report = verifyAll(t, r, VerifyOptions{})
		require.Empty(t, report.Damages)
		require.Contains(t, strings.Join(report.Problems, " "), key+" was deleted")
		require.Equal(t, map[Status]int{StatusIncomplete: 1}, report.Statuses)
	}
}

// TestVerifyDuringTheFirstBackup: that nothing can be restored yet is a note
// while the first backup may be running, and damage once it cannot be any more,
// however many others are tried after it.
func TestVerifyDuringTheFirstBackup(t *testing.T) {
	c := newClock()
	store := initAt(t, plainMode(), c)
	o := small()
	o.Clock = c.Now
	r := open(t, store, Keys{}, o)
	for _, uid := range []string{"11111111", "22222222"} {
		b, err := r.Begin(t.Context(), planAt(c.now, uid, 0), "a")
		require.NoError(t, err)
		require.NoError(t, b.Close())
		if uid == "11111111" {
			report := verifyAll(t, r, VerifyOptions{})
			require.Empty(t, report.Damages)
			require.Contains(t, strings.Join(report.Problems, " "), string(b.Plan().ID)+" of shop/mysql: nothing of the set can be restored yet")
			c.advance(25 * time.Hour)
		}
		require.Equal(t, []string{layout{testSet}.commits()}, damagedKeys(verifyAll(t, r, VerifyOptions{})))
	}
}

// racing is a store in which something happens right after a listing.
type racing struct {
	storage.Store
	after map[string]func() // by the prefix listed; once each
}

func (s *racing) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		for object, err := range s.Store.List(ctx, prefix) {
			if !yield(object, err) {
				return
			}
		}
		if then := s.after[prefix]; then != nil {
			delete(s.after, prefix)
			then()
		}
	}
}

// TestVerifyWhileABackupBegins, and ends, right after a listing.
func TestVerifyWhileABackupBegins(t *testing.T) {
	l := layout{testSet}
	for _, c := range []struct{ before, prefix, says string }{
		{"no set", prefixSets, "the first backup of shop/mysql has begun while this looked"},
		{"no backup", l.commits(), "nothing of the set can be restored yet"},
		{"no backup", l.backups(), "the first backup of shop/mysql has begun while this looked"},
		{"one backup", prefixSets, ""},
		{"one backup", l.commits(), "has no commit"},
		{"one backup", l.backups(), ""},
	} {
		store := &racing{Store: initStore(t, plainMode())}
		r := open(t, store, Keys{}, small())
		switch c.before {
		case "no backup":
			require.NoError(t, r.claimOrigin(t.Context(), l, "test"))
		case "one backup":
			writeBackup(t, r, content{"a": []byte("a")})
		}
		store.after = map[string]func(){c.prefix: func() {
			b := begin(t, store, plainMode(), testPlan(1, 0), "attempt-1")
			writeMember(t, b, 0, content{"a": []byte("b")})
			require.NoError(t, b.Report(t.Context(), "done"))
			require.NoError(t, b.Close())
		}}
		report := verifyAll(t, r, VerifyOptions{})
		require.Empty(t, store.after, "%s", c)
		require.Empty(t, report.Damages, "%s", c)
		require.Contains(t, strings.Join(report.Problems, " "), c.says, "%s", c)
	}
}

// TestVerifyOfAReplacedPlan: of two pods that each wrote a plan, one's commit
// is for nothing, which harms nobody once the member has another.
func TestVerifyOfAReplacedPlan(t *testing.T) {
	for _, m := range modes(t) {
		store := initStore(t, m)
		plan := testPlan(0, 0)
		one := begin(t, store, m, plan, "attempt-1")
		writeMember(t, one, 0, content{"a": []byte("a")})
		require.NoError(t, one.Close())
		key := layout{testSet}.plan(plan.ID)
		require.NoError(t, store.Delete(t.Context(), key))
		plan.Tool = "another"
		two := begin(t, store, m, plan, "attempt-2")
		r := open(t, store, Keys{Trusted: m.restore.Trusted}, Options{})
		useless := layout{testSet}.commit(plan.ID, 0, "attempt-1")
		require.Equal(t, []string{useless}, damagedKeys(verifyAll(t, r, VerifyOptions{})))
		writeMember(t, two, 0, content{"a": []byte("a")})
		require.NoError(t, two.Close())
		report := verifyAll(t, r, VerifyOptions{})
		require.Empty(t, report.Damages)
		require.Equal(t, map[Status]int{StatusComplete: 1}, report.Statuses)
		require.Contains(t, strings.Join(report.Problems, " "), "attempt-1: ")
		require.Contains(t, strings.Join(report.Problems, " "), "made for another plan")
	}
}

// TestVerifyOfKilledRuns: a member that no run has finished is a note, as long
// as something of the set can be restored.
func TestVerifyOfKilledRuns(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	o := small()
	o.Clock = dayAfter
	r := open(t, store, m.writer, o)
	b := begin(t, store, m, testPlan(0, 0, 1), "attempt-1")
	require.NoError(t, b.Close())
	report := verifyAll(t, r, VerifyOptions{})
	require.Equal(t, []string{layout{testSet}.commits()}, damagedKeys(report))
	require.Len(t, report.Damages[0].Harmed, 2)

	b = begin(t, store, m, testPlan(1, 0, 1), "attempt-1")
	writeMember(t, b, 0, content{"a": []byte("a")})
	require.NoError(t, b.Close())
	report = verifyAll(t, r, VerifyOptions{})
	require.Empty(t, report.Damages)
	require.Equal(t, map[Status]int{StatusIncomplete: 2}, report.Statuses)
	require.Len(t, report.Problems, 3)
}
