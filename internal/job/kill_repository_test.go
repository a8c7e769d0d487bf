package job_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/retention"
	"keepset/internal/statefulset"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

// This file: what is killed of the commands that write to a repository.

var killedSet = record.SetID{Namespace: namespace, Name: "db"}

// yard is a repository in memory, the set db with two databases, and a cluster.
type yard struct {
	t         *testing.T
	clock     *clock
	store     *mem.Store
	keys      repository.Keys
	cluster   *cluster
	databases []*dbdumptest.MemoryServer
	// held is what the databases had at each backup, by ordinal.
	held map[record.BackupID][]map[string][]byte
	made int
}

func newYard(t *testing.T) *yard { return newLockedYard(t, repository.Keys{}) }

// newLockedYard is one whose pods all hold these keys.
func newLockedYard(t *testing.T, keys repository.Keys) *yard {
	t.Helper()
	y := &yard{t: t, clock: newClock(), keys: keys, cluster: newCluster(t, 2), held: map[record.BackupID][]map[string][]byte{}}
	y.store = mem.New(mem.Options{Now: y.clock.Now})
	_, err := repository.Init(t.Context(), y.store, repository.InitOptions{Keys: keys, Clock: y.clock.Now})
	require.NoError(t, err)
	for i := range 2 {
		server := dbdumptest.NewMemoryServer(y.clock.Now)
		server.Set("customers", bytes.Repeat([]byte("the same in all backups\n"), 50))
		if i > 0 {
			server.Upstream = &record.UpstreamCoordinates{Host: "db-0.db", Port: 3306, Running: true}
		}
		y.databases = append(y.databases, server)
	}
	y.trade()
	return y
}

// trade changes the databases.
func (y *yard) trade() {
	y.made++
	for i, server := range y.databases {
		server.Set("orders", bytes.Repeat(fmt.Appendf(nil, "order %d of %d\n", y.made, i), 40+y.made))
	}
}

// open opens the repository as a process does, or with nil as the test.
func (y *yard) open(s storage.Store, p *process) (*repository.Repository, error) {
	if p != nil {
		s = p.through(s)
	}
	return repository.Open(y.t.Context(), s, y.keys, repository.Options{Clock: y.clock.Now, PackBytes: 8 << 10, Workers: 1})
}

func (y *yard) sure(s storage.Store) *repository.Repository {
	y.t.Helper()
	r, err := y.open(s, nil)
	require.NoError(y.t, err)
	return r
}

func (y *yard) newID() record.BackupID {
	y.made++
	return record.NewBackupID(y.clock.Now(), fmt.Sprintf("%08d", y.made))
}

// backUp is a pod of `backup run`.
func (y *yard) backUp(id record.BackupID, p *process) error {
	r, err := y.open(y.store, p)
	if err != nil {
		return err
	}
	y.held[id] = nil
	for _, server := range y.databases {
		y.held[id] = append(y.held[id], server.Tables())
		server.Call = func(what string, do func() error) error { return p.call("database", what, do) }
	}
	y.cluster.pods(p)
	defer y.cluster.pods(nil)
	client := y.cluster.client()
	_, err = (&job.Backup{
		Repository: r, Set: killedSet, ID: id, Attempt: record.NewAttemptID(),
		Plan:     record.Plan{Method: record.MethodDump, Engine: "memory", Origin: "here"},
		Discover: job.FromCluster(client, "db", statefulset.DiscoverOptions{DefaultPort: 3306}),
		Open:     func(m job.Member) (dbdump.Engine, error) { return y.databases[m.Ordinal], nil },
		Guard:    &job.LeaseGuard{Client: client, Set: "db"},
		Rules:    job.SuspectRules{ShrinkPercent: 50}, Parallel: 1, Clock: y.clock.Now, Log: slog.New(slog.DiscardHandler),
	}).Run(p.ctx)
	return err
}

// take takes a whole backup, and a day passes.
func (y *yard) take() record.BackupID {
	y.t.Helper()
	id := y.newID()
	require.NoError(y.t, y.backUp(id, newProcess(y.t, -1, false)))
	y.clock.Add(24 * time.Hour)
	y.trade()
	return id
}

// prune is a pod of `backup prune --keep-last 1`.
func (y *yard) prune(p *process) (*job.PruneReport, error) {
	r, err := y.open(y.store, p)
	if err != nil {
		return nil, err
	}
	ctx := y.t.Context()
	if p != nil {
		ctx = p.ctx
	}
	policy := retention.Policy{Last: 1, MinAge: 26 * time.Hour, Zone: time.UTC}
	return (&job.Prune{Repository: r, Set: killedSet, Policy: policy, Force: true}).Run(ctx)
}

// requireTrue: all that a store calls complete are restored byte for byte, and they are at least these.
func (y *yard) requireTrue(s storage.Store, what string, least ...record.BackupID) {
	y.t.Helper()
	r := y.sure(s)
	infos, err := r.Backups(y.t.Context(), killedSet)
	require.NoError(y.t, err, what)
	complete := map[record.BackupID]bool{}
	for _, info := range infos {
		if info.Status != repository.StatusComplete {
			continue
		}
		complete[info.ID] = true
		if info.Condemned {
			continue // nobody restores it any more
		}
		for ordinal := range y.databases {
			target := dbdumptest.NewMemoryServer(y.clock.Now)
			_, err := (&job.Load{
				Repository: r, Set: killedSet, Ordinal: ordinal, Target: "new:3306", Choice: job.Choice{Selector: repository.Selector{ID: info.ID}},
				Open: func() (dbdump.Engine, error) { return target, nil }, Clock: y.clock.Now, Log: slog.New(slog.DiscardHandler),
			}).Run(y.t.Context())
			require.NoError(y.t, err, what)
			require.True(y.t, maps.EqualFunc(y.held[info.ID][ordinal], target.Tables(), bytes.Equal), "%s: ordinal %d of %s is not what was backed up", what, ordinal, info.ID)
		}
	}
	for _, id := range least {
		require.True(y.t, complete[id], "%s: %s is not complete", what, id)
	}
	report, err := r.Verify(y.t.Context(), repository.VerifyOptions{Set: killedSet, ReadData: 100})
	require.NoError(y.t, err, what)
	require.Empty(y.t, report.Damages, what)
}

// requireTidy: prunes leave nothing but what the newest backup needs.
func (y *yard) requireTidy(what string, left record.BackupID) {
	y.t.Helper()
	var report *job.PruneReport
	for range 3 {
		y.clock.Add(50 * time.Hour)
		var err error
		report, err = y.prune(nil)
		require.NoError(y.t, err, what)
	}
	content, root := repository.Amount{}, "sets/"+killedSet.String()+"/"
	for o, err := range y.store.List(y.t.Context(), root) {
		require.NoError(y.t, err, what)
		folder, name, _ := strings.Cut(strings.TrimPrefix(o.Key, root), "/")
		switch folder {
		case "packs", "parts", "maps", "refs":
			content.Objects++
			content.Bytes += o.Size
		case "origin":
		default:
			require.True(y.t, strings.HasPrefix(name, string(left)), "%s: %s is left", what, o.Key)
		}
	}
	require.Equal(y.t, report.Needed, content, "%s: something is left that nobody needs", what)
	y.requireTrue(y.store, what, left)
}

// killedBackup is a backup on the base of another one.
type killedBackup struct {
	*yard
	before, id record.BackupID
}

func newKilledBackup(t *testing.T) killing {
	k := &killedBackup{yard: newYard(t)}
	k.before = k.take()
	k.id = k.newID()
	return k
}

func (k *killedBackup) pod(p *process) error { return k.backUp(k.id, p) }
func (k *killedBackup) killed(what string)   { k.requireTrue(k.store, what, k.before) }

func (k *killedBackup) ended(what string) {
	k.requireTrue(k.store, what, k.before, k.id)
	k.requireTidy(what, k.id)
}

// killedPrune has something of everything to do: it condemns one backup, finishes another one that an earlier prune has
// condemned, and what that has marked is due.
type killedPrune struct {
	*yard
	stays record.BackupID
}

func newKilledPrune(t *testing.T) killing {
	k := &killedPrune{yard: newYard(t)}
	k.take()
	k.take()
	k.clock.Add(24 * time.Hour)
	_, err := k.prune(nil)
	require.NoError(t, err)
	k.take()
	k.stays = k.take()
	k.clock.Add(27 * time.Hour)
	return k
}

func (k *killedPrune) pod(p *process) error {
	_, err := k.prune(p)
	return err
}
func (k *killedPrune) killed(what string) { k.requireTrue(k.store, what, k.stays) }

func (k *killedPrune) ended(what string) {
	k.requireTrue(k.store, what, k.stays)
	k.requireTidy(what, k.stays)
}

// killedCopy is of two backups; the first one is in the copy already.
type killedCopy struct {
	*yard
	to            *mem.Store
	first, second record.BackupID
}

func newKilledCopy(t *testing.T) killing {
	k := &killedCopy{yard: newYard(t)}
	k.to = mem.New(mem.Options{Now: k.clock.Now})
	k.first = k.newID()
	require.NoError(t, k.backUp(k.first, newProcess(t, -1, false)))
	require.NoError(t, k.pod(newProcess(t, -1, false)))
	k.trade()
	k.clock.Add(time.Hour)
	k.second = k.newID()
	require.NoError(t, k.backUp(k.second, newProcess(t, -1, false)))
	return k
}

func (k *killedCopy) pod(p *process) error {
	r, err := k.open(k.store, p)
	if err != nil {
		return err
	}
	_, err = r.Copy(p.ctx, p.through(k.to), repository.CopyOptions{Set: killedSet})
	return err
}

func (k *killedCopy) killed(what string) {
	k.requireTrue(k.store, what, k.first, k.second)
	k.requireTrue(k.to, what, k.first)
}

// ended: a copy leaves nothing behind, as it writes no object that has not the same name in the original.
func (k *killedCopy) ended(what string) {
	k.requireTrue(k.to, what, k.first, k.second)
	for o, err := range k.to.List(k.t.Context(), "") {
		require.NoError(k.t, err)
		_, err := k.store.Stat(k.t.Context(), o.Key)
		require.NoError(k.t, err, "%s: %s is only in the copy", what, o.Key)
	}
}
