package job_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/storagetest"
)

// This file kills commands: at each of its calls of the store, of databases and of Kubernetes in turn, before the call and
// after it, when only the reply is lost. What kinds of commands there are is in killings.

var errKilled = errors.New("the pod was killed")

// process is a pod of a Job. From the call on at which it is killed none has an effect, or is answered.
type process struct {
	ctx    context.Context //nolint:containedctx // it ends with the process
	cancel context.CancelFunc
	at     int // the number of the call at which it is killed, from 0; -1 is never
	after  bool

	mu    sync.Mutex
	calls int
	kinds map[string]int
	dead  bool
	site  string
}

func newProcess(t *testing.T, at int, after bool) *process {
	t.Helper()
	p := &process{at: at, after: after, kinds: map[string]int{}}
	p.ctx, p.cancel = context.WithCancel(t.Context())
	t.Cleanup(p.cancel)
	return p
}

// The fates of a call.
const (
	passes = iota
	kills
	isDead
)

// next counts a call.
func (p *process) next(kind, what string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		p.cancel()
		return isDead
	}
	p.calls++
	p.kinds[kind]++
	if p.calls-1 != p.at {
		return passes
	}
	p.dead, p.site = true, fmt.Sprintf("call %d, %s %s, after=%t", p.at, kind, what, p.after)
	return kills
}

func (p *process) killed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// call makes a call of a database or of Kubernetes.
func (p *process) call(kind, what string, do func() error) error {
	switch p.next(kind, what) {
	case isDead:
		return errKilled
	case kills:
		if p.after {
			_ = do() // nobody hears of it
		}
		p.cancel()
		return errKilled
	}
	return do()
}

// through is a store as the process reaches it.
func (p *process) through(s storage.Store) storage.Store {
	f := storagetest.NewFaulty(s)
	f.Choose(func(on storagetest.Operation, key string) storagetest.Fault {
		switch p.next("store", string(on)+" "+key) {
		case isDead:
			return storagetest.Fault{Err: errKilled}
		case kills:
			return storagetest.Fault{Err: errKilled, After: p.after}
		}
		return storagetest.Fault{}
	})
	return f
}

// killing is what one kind of command works on, and how that is judged.
type killing interface {
	// pod runs the command as the next pod of its Job, all of whose calls are the process's.
	pod(p *process) error
	// killed holds what a killed pod has left to the truth: nothing is called good that is not, nothing good is lost.
	killed(what string)
	// ended is told that a pod has ended well: then nothing is missing, and nothing stays behind.
	ended(what string)
}

// killings are the commands that are killed. One more is one more line.
var killings = map[string]func(*testing.T) killing{
	"backup run":                  newKilledBackup,
	"backup prune":                newKilledPrune,
	"backup copy":                 newKilledCopy,
	"restore drill":               newKilledDrill(nil),
	"restore drill, the next Job": newKilledDrill(func(k *killedDrill) { k.nextJob = true }),
	"restore drill, a bad backup": newKilledDrill(func(k *killedDrill) { k.wanting = true }),
	"restore run, a lost ordinal": killedRestore(recovery, 2),
	"restore run, a new ordinal":  killedRestore(scaleUp, 2),
	"restore run, the whole set":  killedRestore(wholeSet, 0),
}

// TestKilledAtEveryCall takes, unless KEEPSET_SOAK is set, a sample of the calls, by a seed that KEEPSET_SEED gives back.
func TestKilledAtEveryCall(t *testing.T) {
	seed := uint64(time.Now().UnixNano()) % 1_000_000
	if given := os.Getenv("KEEPSET_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err, "KEEPSET_SEED")
	}
	all, killed := 0, 0
	for i, name := range slices.Sorted(maps.Keys(killings)) {
		t.Run(name, func(t *testing.T) {
			whole := alive(t, killings[name])
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			sites := rng.Perm(whole.calls)
			if !soaking() {
				sites = sites[:min(len(sites), 8)]
			}
			for _, at := range sites {
				afters := []bool{false, true}
				if !soaking() {
					afters = afters[rng.IntN(2):][:1]
				}
				for _, after := range afters {
					synctest.Test(t, func(t *testing.T) {
						if killOnce(t, killings[name](t), at, after) {
							killed++
						}
					})
				}
			}
			all += whole.calls
			t.Logf("measured: %d call sites: %s", whole.calls, whole.counts())
		})
	}
	t.Logf("measured: KEEPSET_SEED=%d: %d call sites, before and after each; killed %d times", seed, all, killed)
	require.Positive(t, killed)
}

// alive is a process that is not killed, and shows what there is to kill.
func alive(t *testing.T, begin func(*testing.T) killing) *process {
	t.Helper()
	var p *process
	synctest.Test(t, func(t *testing.T) {
		k := begin(t)
		p = newProcess(t, -1, false)
		require.NoError(t, k.pod(p))
		k.ended("not killed")
	})
	require.Greater(t, p.calls, 20, "the test has lost its grip on the command")
	return p
}

func (p *process) counts() string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(p.kinds)) {
		parts = append(parts, fmt.Sprintf("%d of the %s", p.kinds[kind], kind))
	}
	return strings.Join(parts, ", ")
}

// killOnce kills a pod at one call and has the next one end what it has begun. False when the pod made fewer calls.
func killOnce(t *testing.T, k killing, at int, after bool) bool {
	t.Helper()
	first := newProcess(t, at, after)
	err := k.pod(first)
	if !first.killed() {
		require.NoError(t, err)
		k.ended("not killed")
		return false
	}
	if err == nil { // it had done everything: then that is true
		k.ended(first.site)
		return true
	}
	k.killed(first.site)
	require.NoError(t, k.pod(newProcess(t, -1, false)), first.site)
	k.ended(first.site)
	return true
}
