package pains

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/retention"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

// days is a repository in memory and a set of databases, with a clock that the test moves.
type days struct {
	t          *testing.T
	mu         sync.Mutex
	clock      time.Time
	store      *mem.Store
	repository *repository.Repository
	databases  []*database
	taken      int
}

var daysSet = record.SetID{Namespace: "shop", Name: "db"}

func newDays(t *testing.T, databases ...*database) *days {
	t.Helper()
	d := &days{t: t, clock: time.Now().UTC(), databases: databases}
	d.store = mem.New(mem.Options{Now: d.now})
	_, err := repository.Init(t.Context(), d.store, repository.InitOptions{Clock: d.now})
	require.NoError(t, err)
	d.repository = d.open(d.store)
	for _, s := range databases {
		s.now = d.now
	}
	return d
}

// open opens the repository through a store. Packs are small, as the data are, and checkpoints frequent.
func (d *days) open(store storage.Store) *repository.Repository {
	d.t.Helper()
	r, err := repository.Open(d.t.Context(), store, repository.Keys{}, repository.Options{
		Clock: d.now, PackBytes: 64 << 10, Checkpoint: 5 * time.Millisecond, Workers: 2,
	})
	require.NoError(d.t, err)
	return r
}

func (d *days) now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clock
}

func (d *days) pass(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock = d.clock.Add(t)
}

const day = 24 * time.Hour

// job is `backup run` of the databases.
func (d *days) job() *job.Backup {
	addresses := make([]string, len(d.databases))
	for i := range addresses {
		addresses[i] = fmt.Sprintf("db%d:3306", i)
	}
	d.taken++
	return &job.Backup{
		Repository: d.repository, Set: daysSet, ID: record.NewBackupID(d.now(), fmt.Sprintf("%08d", d.taken)), Attempt: record.NewAttemptID(),
		Plan:     record.Plan{Method: record.MethodDump, Engine: "memory", Origin: "here"},
		Discover: job.Sources(addresses),
		Open:     func(m job.Member) (dbdump.Engine, error) { return d.databases[m.Ordinal], nil },
		Rules:    job.SuspectRules{ShrinkPercent: 50}, Parallel: 1, Clock: d.now, Log: slog.New(slog.DiscardHandler),
	}
}

// backUp takes a backup, and a second passes.
func (d *days) backUp() (record.BackupID, error) {
	d.t.Helper()
	b := d.job()
	_, err := b.Run(d.t.Context())
	d.pass(time.Second)
	return b.ID, err
}

// prune is `backup prune --keep-last 1`.
func (d *days) prune() (*job.PruneReport, error) {
	d.t.Helper()
	return (&job.Prune{Repository: d.repository, Set: daysSet, Policy: retention.Policy{Last: 1, MinAge: 3 * day, Zone: time.UTC}, Force: true}).Run(d.t.Context())
}

// load is `restore load` of the first member of a backup, the latest without an ID, into an empty database.
func (d *days) load(id record.BackupID) (*database, error) {
	d.t.Helper()
	target := newDatabase(0)
	l := &job.Load{
		Repository: d.repository, Set: daysSet, Target: "new:3306", Choice: job.Choice{Selector: repository.Selector{ID: id}},
		Open: func() (dbdump.Engine, error) { return target, nil }, Clock: d.now, Log: slog.New(slog.DiscardHandler),
	}
	_, err := l.Run(d.t.Context())
	return target, err
}

// backups lists them, the newest first.
func (d *days) backups() []record.BackupID {
	d.t.Helper()
	infos, err := d.repository.Backups(d.t.Context(), daysSet)
	require.NoError(d.t, err)
	var ids []record.BackupID
	for _, info := range infos {
		ids = append(ids, info.ID)
	}
	return ids
}

// bytes is what the store holds.
func (d *days) bytes() int64 {
	d.t.Helper()
	var n int64
	for o, err := range d.store.List(d.t.Context(), "") {
		require.NoError(d.t, err)
		n += o.Size
	}
	return n
}

// database is a server in memory. One table of it never changes, the other one is written anew by change.
type database struct {
	tables map[string][]byte // rows are lines
	now    func() time.Time
	// upstream makes it a follower.
	upstream *record.UpstreamCoordinates
	// during is called in the middle of a dump.
	during func()
	// deaf: a load brings nothing, and does not say so.
	deaf  bool
	ended func()
}

// newDatabase has so many rows in each of its two tables.
func newDatabase(rows int) *database {
	s := &database{tables: map[string][]byte{}}
	if rows > 0 {
		s.tables["customers"] = lines(1, rows)
		s.change(2, rows)
	}
	return s
}

func (s *database) change(seed uint64, rows int) { s.tables["orders"] = lines(seed, rows) }

// lines are rows of a thousand random bytes, which nothing makes smaller.
func lines(seed uint64, n int) []byte {
	text := make([]byte, n*1001)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(text) // it never fails
	for i, c := range text {
		switch {
		case i%1001 == 1000:
			text[i] = '\n'
		case c == '\n':
			text[i] = ' '
		}
	}
	return text
}

// rows counts those of all tables.
func (s *database) rows() int {
	n := 0
	for _, table := range s.tables {
		n += bytes.Count(table, []byte("\n"))
	}
	return n
}

// Dump implements [dbdump.Engine].
func (s *database) Dump(ctx context.Context, w dbdump.Sink) (record.Report, error) {
	r := record.Report{Engine: "memory", Layout: "memory/1", CapturedAt: s.now()}
	r.Coordinates.Upstream = s.upstream
	for _, name := range []string{"customers", "orders"} {
		stream, err := w.Create(ctx, name, dbdump.StreamOptions{})
		if err != nil {
			return r, err
		}
		if _, err := stream.Write(s.tables[name]); err != nil {
			stream.Abort(err)
			return r, err
		}
		if err := stream.Close(); err != nil {
			return r, err
		}
		rows := int64(bytes.Count(s.tables[name], []byte("\n")))
		r.Rows, r.Bytes = r.Rows+rows, r.Bytes+int64(len(s.tables[name]))
		r.Objects = append(r.Objects, record.Object{Kind: "table", Name: name, Data: []string{name}, Rows: rows})
		if s.during != nil {
			s.during()
		}
	}
	return r, nil
}

// Load implements [dbdump.Engine].
func (s *database) Load(ctx context.Context, src dbdump.Source) (record.Report, error) {
	r := src.Report()
	r.Rows = 0
	if s.deaf {
		return r, nil
	}
	for _, o := range r.Objects {
		body, err := src.Open(ctx, o.Data[0])
		if err != nil {
			return r, err
		}
		defer body.Close() //nolint:errcheck // read to its end
		if s.tables[o.Name], err = io.ReadAll(body); err != nil {
			return r, err
		}
	}
	r.Rows = int64(s.rows())
	return r, nil
}

// Check implements [dbdump.Follower], as the methods below do.
func (s *database) Check(context.Context, record.Coordinates, dbdump.Upstream) error { return nil }

// Admits any follower.
func (s *database) Admits(context.Context, dbdump.Upstream) error { return nil }

// Follow has caught up at once.
func (s *database) Follow(context.Context, record.Coordinates, dbdump.Upstream) error { return nil }

// Shutdown ends the database, and with it its pod.
func (s *database) Shutdown(context.Context) error {
	s.ended()
	return nil
}

// databases are those that a restore meets: there is only the one in the seed pod.
type databases struct{ c *cluster }

// Target implements [job.Servers].
func (d databases) Target(string, bool) (dbdump.Engine, error) { return d.c.seed, nil }

// Ready implements [job.Servers].
func (databases) Ready(context.Context, string) error { return nil }

// Upstream implements [job.Servers].
func (databases) Upstream(address string) (dbdump.Upstream, error) {
	host, _, _ := strings.Cut(address, ":")
	return dbdump.Upstream{Host: host, Port: 3306}, nil
}
