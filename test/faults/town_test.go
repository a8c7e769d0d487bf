package faults

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
	"keepset/internal/storage/storagetest"
)

var townSet = record.SetID{Namespace: "shop", Name: "db"}

// tables are what a database holds, by name.
type tables map[string][]byte

// place is a store: the disk, which is the truth, and the way to it.
type place struct {
	disk    *mem.Store
	way     storage.Store
	weather *weather
}

// clock is the stores', and moves when somebody waits.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now is the time.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Add lets time pass.
func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// town is a set of two databases, a repository, and a copy of it.
type town struct {
	t         *testing.T
	clock     *clock
	rng       *rand.Rand
	home, far *place
	keys      keyring
	databases []*dbdumptest.MemoryServer
	// skew is how far the clock of the pod that is at work is off.
	skew time.Duration
	made int
	mu   sync.Mutex
	// taken is everything that any attempt may have read for a member of a backup.
	taken map[record.BackupID]map[int][]tables
}

// keyring is who holds what; all empty in a repository that is not encrypted.
type keyring struct{ writer, restore repository.Keys }

// pruner holds no key but the public ones of the writers and of those who drill.
func (k keyring) pruner() repository.Keys {
	return repository.Keys{Trusted: k.restore.Trusted, Provers: k.restore.Provers}
}

func newKeyring(t *testing.T) keyring {
	t.Helper()
	set, err := repository.Keygen(nil)
	require.NoError(t, err)
	load := func(values []repository.Value) repository.Keys {
		keys, err := repository.LoadKeys(func(name string) string {
			for _, v := range values {
				if v.Name == name {
					return v.Value
				}
			}
			return ""
		})
		require.NoError(t, err)
		return keys
	}
	return keyring{load(set.Writer), load(set.Restore)}
}

func newTown(t *testing.T, seed uint64) *town {
	t.Helper()
	w := &town{t: t, clock: &clock{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}, rng: rand.New(rand.NewPCG(seed, 1)), taken: map[record.BackupID]map[int][]tables{}}
	if seed%2 == 1 {
		w.keys = newKeyring(t)
	}
	w.home, w.far = newPlace(w.clock, seed, 2), newPlace(w.clock, seed, 3)
	_, err := repository.Init(t.Context(), w.home.disk, repository.InitOptions{Keys: w.keys.writer, Tool: "test", Clock: w.clock.Now})
	require.NoError(t, err)
	for range 2 {
		server := dbdumptest.NewMemoryServer(w.podClock)
		server.Set("customers", w.lines(60)) // is never changed
		w.databases = append(w.databases, server)
	}
	w.trade()
	return w
}

func newPlace(c *clock, seed, of uint64) *place {
	p := &place{
		disk:    mem.New(mem.Options{Now: c.Now}),
		weather: &weather{rng: rand.New(rand.NewPCG(seed, of)), clock: c, front: calm, met: map[front]int{}},
	}
	faulty := storagetest.NewFaulty(p.disk)
	faulty.Clock(c.Now)
	faulty.Choose(p.weather.fault)
	p.way = storage.WithRetry(faulty, storage.Retry{Attempts: 4, MinDelay: time.Nanosecond, MaxDelay: time.Nanosecond})
	return p
}

// podClock is what the pods take for the time.
func (w *town) podClock() time.Time { return w.clock.Now().Add(w.skew) }

// lines are rows that nothing makes smaller.
func (w *town) lines(n int) []byte {
	var text []byte
	for range n {
		for range 40 {
			text = fmt.Appendf(text, "%016x", w.rng.Uint64())
		}
		text = append(text, '\n')
	}
	return text
}

// trade changes what the databases hold.
func (w *town) trade() {
	for _, server := range w.databases {
		server.Set("orders", w.lines(20+w.rng.IntN(30)))
		server.Set("till", w.lines(1))
	}
}

// open opens the repository of a store.
func (w *town) open(store storage.Store, keys repository.Keys) (*repository.Repository, error) {
	return repository.Open(w.t.Context(), store, keys, repository.Options{
		Clock: w.podClock, PackBytes: 48 << 10, Checkpoint: 5 * time.Millisecond, Workers: 2,
	})
}

// sure opens it without any weather, by the right clock.
func (w *town) sure(p *place) *repository.Repository {
	w.t.Helper()
	r, err := repository.Open(w.t.Context(), p.disk, w.keys.restore, repository.Options{Clock: w.clock.Now})
	require.NoError(w.t, err)
	return r
}

// newID is that of a Job, whose time the API server gives.
func (w *town) newID() record.BackupID {
	w.made++
	return record.NewBackupID(w.clock.Now(), fmt.Sprintf("%08d", w.made))
}

// note notes what the databases hold at an attempt at a backup.
func (w *town) note(id record.BackupID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken[id] == nil {
		w.taken[id] = map[int][]tables{}
	}
	for ordinal, server := range w.databases {
		w.taken[id][ordinal] = append(w.taken[id][ordinal], server.Tables())
	}
}

// backUp is an attempt at a backup. What it reads of the databases is noted.
func (w *town) backUp(ctx context.Context, id record.BackupID) (*job.BackupReport, error) {
	r, err := w.open(w.home.way, w.keys.writer)
	if err != nil {
		return nil, err
	}
	w.note(id)
	return (&job.Backup{
		Repository: r, Set: townSet, ID: id, Attempt: record.NewAttemptID(),
		Plan:     record.Plan{Method: record.MethodDump, Engine: "memory", Origin: "here"},
		Discover: job.Sources([]string{"db0:3306", "db1:3306"}),
		Open:     func(m job.Member) (dbdump.Engine, error) { return w.databases[m.Ordinal], nil },
		Rules:    job.SuspectRules{ShrinkPercent: 90}, Parallel: 2, Clock: w.podClock, Log: slog.New(slog.DiscardHandler),
	}).Run(ctx)
}

// load restores a member into an empty database.
func (w *town) load(ctx context.Context, r *repository.Repository, id record.BackupID, ordinal int) (tables, error) {
	target := dbdumptest.NewMemoryServer(w.podClock)
	l := &job.Load{
		Repository: r, Set: townSet, Ordinal: ordinal, Target: "new:3306", Choice: job.Choice{Selector: repository.Selector{ID: id}},
		Open: func() (dbdump.Engine, error) { return target, nil }, Clock: w.podClock, Log: slog.New(slog.DiscardHandler),
	}
	_, err := l.Run(ctx)
	return target.Tables(), err
}
