package ebs_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
)

// victimKey is the access key of the process that things happen to.
const victimKey = "AKIAVICTIM"

// fate is what happens at one call of AWS's.
type fate struct {
	name string
	// rule is for that call; dead says that nothing of the process arrives afterwards.
	rule ebstest.Rule
	dead bool
}

var fates = []fate{
	{name: "killed before the call", rule: ebstest.Rule{Fail: &ebstest.Error{Code: "InternalError"}}, dead: true},
	{name: "killed after the call", rule: ebstest.Rule{Drop: true}, dead: true},
	{name: "reply lost", rule: ebstest.Rule{Drop: true}},
	{name: "reply lost and not seen at once", rule: ebstest.Rule{Drop: true, Hide: 2}},
	{name: "internal error", rule: ebstest.Rule{Fail: &ebstest.Error{Code: "InternalError"}}},
	{name: "throttled", rule: ebstest.Rule{Fail: &ebstest.Error{Code: "RequestLimitExceeded"}, Times: 3}},
}

// unseen is added where a client token keeps another attempt, which does not see what was made, from making it again.
var unseen = fate{name: "killed after the call, which is not seen at once", rule: ebstest.Rule{Drop: true, Hide: 2}, dead: true}

// victim is a process that the fate befalls at its nth call. Its context ends when it dies.
func (w *world) victim(t *testing.T, f fate, nth int) (context.Context, *ebs.Snapshotter) {
	t.Helper()
	o := w.options()
	o.Credentials.AccessKeyID = victimKey
	ctx, die := context.WithCancel(t.Context())
	t.Cleanup(die)
	rule := f.rule
	rule.Scope, rule.Skip = ebstest.Scope{AccessKey: victimKey}, nth
	if f.dead {
		kill := func(ebstest.Call) {
			w.aws.Inject(ebstest.Rule{Scope: ebstest.Scope{AccessKey: victimKey}, Times: -1, Fail: &ebstest.Error{Code: "AuthFailure"}})
			die()
		}
		if rule.Drop {
			rule.After = kill
		} else {
			rule.Before = kill
		}
	}
	if nth >= 0 {
		w.aws.Inject(rule)
	}
	return ctx, w.open(t, o)
}

// sites are the calls that a process makes, by action.
func sites(t *testing.T, w *world) []string {
	t.Helper()
	actions := []string{}
	for _, c := range w.aws.Calls(ebstest.Scope{AccessKey: victimKey}) {
		actions = append(actions, c.Action)
	}
	require.NotEmpty(t, actions)
	return actions
}

// everywhere runs test for each fate at each call site that trial, which goes well, has:
// in `make soak`; else for one fate at each, another one every time.
func everywhere(t *testing.T, trial func(t *testing.T) *world, test func(t *testing.T, f fate, nth int), more ...fate) {
	t.Helper()
	calls, fates := sites(t, trial(t)), slices.Concat(fates, more)
	t.Logf("%d call sites, %d fates: %s", len(calls), len(fates), strings.Join(calls, " "))
	first := rand.IntN(len(fates))
	for nth, action := range calls {
		for i, f := range fates {
			if os.Getenv("KEEPSET_SOAK") == "" && i != (first+nth)%len(fates) {
				continue
			}
			t.Run(fmt.Sprintf("%d %s %s", nth, action, f.name), func(t *testing.T) {
				t.Parallel()
				test(t, f, nth)
			})
		}
	}
}

// TestCutKilled: after whatever happens to the first attempt, a second one has one cut, of
// one moment, and nothing else is there.
func TestCutKilled(t *testing.T) {
	for name, claims := range map[string][]string{
		"in one call":         {"data-mysql-0", "log-mysql-0"},
		"one after the other": {"data-mysql-0", "log-mysql-1"},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T) *world {
				w := newWorld(t)
				volumes := w.located(t, claims...)
				_, s := w.victim(t, fate{}, -1)
				_, err := s.Cut(t.Context(), cutName, volumes)
				require.NoError(t, err)
				return w
			}, func(t *testing.T, f fate, nth int) { testCutKilled(t, f, nth, claims) })
		})
	}
}

func testCutKilled(t *testing.T, f fate, nth int, claims []string) {
	w := newWorld(t)
	volumes := w.located(t, claims...)
	ctx, s := w.victim(t, f, nth)
	_, err := s.Cut(ctx, cutName, volumes)
	if f.dead {
		require.Error(t, err)
	} else {
		require.NoError(t, err)
	}
	for _, c := range claims {
		w.write(t, namespace, c, "later")
	}
	refs, err := w.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	require.Len(t, refs, len(claims))
	require.Len(t, w.aws.Snapshots(), len(claims), "nothing else is left")
	contents, attempts := map[string]bool{}, map[string]bool{}
	for i, r := range refs {
		require.Equal(t, claims[i], r.Claim)
		require.NoError(t, w.snap.WaitReady(t.Context(), r))
		for _, found := range w.aws.Snapshots() {
			if found.ID == r.ID {
				contents[strings.ReplaceAll(readText(t, found.Path), claims[i], "at first")] = true
				attempts[found.Tags["keepset/attempt"]] = true
				require.Equal(t, claims[i], found.Tags["keepset/claim"])
				require.Equal(t, "shop", found.Tags["team"], "the volume's own tag")
			}
		}
	}
	require.Len(t, contents, 1, "of one moment: %v", contents)
	require.Len(t, attempts, 1)
}

// TestProvisionKilled: after whatever happens to the first attempt, a second one has the claim
// bound to one volume, and nothing else is there.
func TestProvisionKilled(t *testing.T) {
	everywhere(t, provisionTrial, func(t *testing.T, f fate, nth int) {
		w := newWorld(t)
		ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
		before := w.inventory(t)
		ctx, s := w.victim(t, f, nth)
		err := prepareAndProvision(ctx, s, ref)
		require.Equal(t, f.dead, err != nil, "%v", err)
		require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
		w.requireProvisioned(t, before)
	}, unseen)
}

// TestOtherRunAfterKill: what the first run has left is either a claim that is in use, or gone
// with the other's.
func TestOtherRunAfterKill(t *testing.T) {
	everywhere(t, provisionTrial, func(t *testing.T, f fate, nth int) {
		w := newWorld(t)
		ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
		before := w.inventory(t)
		ctx, s := w.victim(t, f, nth)
		_ = prepareAndProvision(ctx, s, ref)
		_, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), "data-mysql-2", metav1.GetOptions{})
		claimed := !apierrors.IsNotFound(err)
		other := target("data-mysql-2")
		other.Run = "another"
		err = w.snap.Provision(t.Context(), ref, other)
		if claimed {
			require.ErrorIs(t, err, snapshot.ErrInUse)
			require.NoError(t, w.snap.Scrap(t.Context(), other), "what is bound is finished")
		} else {
			require.NoError(t, err)
		}
		w.requireProvisioned(t, before)
	})
}

// TestScrapAfterKill: nothing is left of a restore that was given up.
func TestScrapAfterKill(t *testing.T) {
	everywhere(t, provisionTrial, func(t *testing.T, f fate, nth int) {
		w := newWorld(t)
		ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
		before := w.inventory(t)
		ctx, s := w.victim(t, f, nth)
		_ = prepareAndProvision(ctx, s, ref)
		_, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), "data-mysql-2", metav1.GetOptions{})
		require.NoError(t, w.snap.Scrap(t.Context(), target("data-mysql-2")))
		if apierrors.IsNotFound(err) {
			require.ElementsMatch(t, before, w.inventory(t))
		} else {
			w.requireProvisioned(t, before)
		}
	})
}

func provisionTrial(t *testing.T) *world {
	w := newWorld(t)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	_, s := w.victim(t, fate{}, -1)
	require.NoError(t, prepareAndProvision(t.Context(), s, ref))
	return w
}

func prepareAndProvision(ctx context.Context, s *ebs.Snapshotter, ref snapshot.Ref) error {
	if err := s.Prepare(ctx, ref, target("data-mysql-2")); err != nil {
		return err
	}
	return s.Provision(ctx, ref, target("data-mysql-2"))
}

// requireProvisioned: there is one volume, one PersistentVolume and the claim more than before,
// all of them as they will stay.
func (w *world) requireProvisioned(t *testing.T, before []string) {
	t.Helper()
	more := slices.DeleteFunc(w.inventory(t), func(s string) bool { return slices.Contains(before, s) })
	id := w.handle(t, namespace, "data-mysql-2")
	require.ElementsMatch(t, []string{"volume " + id, "persistentvolume keepset-" + id, "claim shop/data-mysql-2"}, more)
	require.Equal(t, "data-mysql-0", w.read(t, namespace, "data-mysql-2"))
	pv := w.pv(t, namespace, "data-mysql-2")
	require.Equal(t, corev1.PersistentVolumeReclaimDelete, pv.Spec.PersistentVolumeReclaimPolicy)
	require.NotContains(t, pv.Annotations, "keepset/unbound")
	v, err := w.aws.Volume(id)
	require.NoError(t, err)
	require.NotContains(t, v.Tags, "keepset/unbound")
}

// TestCopyKilled: one copy, whatever happens.
func TestCopyKilled(t *testing.T) {
	everywhere(t, func(t *testing.T) *world {
		w := newWorld(t)
		ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
		_, s := w.victim(t, fate{}, -1)
		_, err := s.Copy(t.Context(), ref, owner, otherRegion)
		require.NoError(t, err)
		return w
	}, func(t *testing.T, f fate, nth int) {
		w := newWorld(t)
		ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
		ctx, s := w.victim(t, f, nth)
		if _, err := s.Copy(ctx, ref, owner, otherRegion); !f.dead {
			require.NoError(t, err)
		}
		copied, err := w.snap.Copy(t.Context(), ref, owner, otherRegion)
		require.NoError(t, err)
		require.Len(t, copied.Copies, 1)
		require.Len(t, w.aws.Snapshots(), 2)
	})
}

// TestBlocksKilled: a snapshot that is written from blocks is continued, never begun twice.
func TestBlocksKilled(t *testing.T) {
	everywhere(t, func(t *testing.T) *world {
		w := newWorld(t)
		_, s := w.victim(t, fate{}, -1)
		require.NoError(t, writeBlocks(t.Context(), s))
		return w
	}, func(t *testing.T, f fate, nth int) {
		w := newWorld(t)
		ctx, s := w.victim(t, f, nth)
		if err := writeBlocks(ctx, s); !f.dead {
			require.NoError(t, err)
		}
		require.NoError(t, writeBlocks(t.Context(), w.snap))
		require.Len(t, w.aws.Snapshots(), 1)
		require.Equal(t, "completed", w.aws.Snapshots()[0].State)
	}, unseen)
}

func writeBlocks(ctx context.Context, s *ebs.Snapshotter) error {
	r, err := s.StartSnapshot(ctx, "from-repository", snapshot.Volume{Owner: owner, Namespace: namespace, Claim: "data-mysql-0", Zone: zoneA, Size: gib})
	if err != nil {
		return err
	}
	errs := []error{s.WriteBlock(ctx, r, 3, make([]byte, snapshot.BlockSize)), s.WriteBlock(ctx, r, 0, make([]byte, snapshot.BlockSize))}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return s.CompleteSnapshot(ctx, r, 2)
}
