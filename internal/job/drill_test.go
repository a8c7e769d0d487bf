package job_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage/mem"
	"keepset/test/servers"
)

// drillWorld is an encrypted repository, real servers that are backed up into it, and what a drill has.
type drillWorld struct {
	t       *testing.T
	store   *mem.Store
	writer  repository.Keys
	restore repository.Keys
	repo    *repository.Repository
	// sources are backed up, each through what spoils may do to its dump.
	sources []*servers.MySQL
	spoil   map[int]func(dbdump.Engine) dbdump.Engine
	target  *servers.MySQL
	// meddle happens to the restored server between load and comparison.
	meddle func()
}

func keysFrom(t *testing.T, values []repository.Value) repository.Keys {
	t.Helper()
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

func newDrillWorld(t *testing.T, sources ...*servers.MySQL) *drillWorld {
	t.Helper()
	set, err := repository.Keygen(nil)
	require.NoError(t, err)
	w := &drillWorld{
		t: t, store: mem.New(mem.Options{}), writer: keysFrom(t, set.Writer), restore: keysFrom(t, set.Restore),
		sources: sources, spoil: map[int]func(dbdump.Engine) dbdump.Engine{}, target: servers.MariaDB(t),
	}
	_, err = repository.Init(t.Context(), w.store, repository.InitOptions{Keys: w.writer})
	require.NoError(t, err)
	w.repo = w.open(w.restore)
	return w
}

func (w *drillWorld) open(keys repository.Keys) *repository.Repository {
	w.t.Helper()
	r, err := repository.Open(w.t.Context(), w.store, keys, repository.Options{})
	require.NoError(w.t, err)
	return r
}

// shop fills a source with what a shop has.
func shop(t *testing.T) *servers.MySQL {
	s := servers.MariaDB(t)
	s.Exec(t,
		"CREATE DATABASE shop",
		"CREATE TABLE shop.orders (id INT PRIMARY KEY, what VARCHAR(40), paid DECIMAL(8,2)) ENGINE=InnoDB",
		"INSERT INTO shop.orders SELECT seq, CONCAT('thing ', seq), seq * 1.25 FROM shop.seq_1_to_500",
		"CREATE TABLE shop.people (name VARCHAR(40)) ENGINE=InnoDB",
		"INSERT INTO shop.people VALUES ('ada'), ('bob'), ('ada'), (NULL)",
		"CREATE VIEW shop.dear AS SELECT * FROM shop.orders WHERE paid > 100",
		"CREATE EVENT shop.tidy ON SCHEDULE EVERY 1 SECOND DO DELETE FROM shop.orders",
	)
	return s
}

func engineOf(t *testing.T, s *servers.MySQL, load mysql.LoadOptions) *mysql.Engine {
	t.Helper()
	e, err := mysql.New(mysql.Options{Address: s.Addr, User: s.User, Password: s.Password, Load: load})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) }) // those that a test wraps are closed by nobody else
	return e
}

// backup takes one, whatever its rules say of it.
func (w *drillWorld) backup() record.BackupID {
	w.t.Helper()
	var names []string
	for _, s := range w.sources {
		names = append(names, s.Addr)
	}
	b := &job.Backup{
		Repository: w.open(w.writer), Set: testSet, ID: record.NewBackupID(time.Now(), ""), Attempt: record.NewAttemptID(),
		Plan: record.Plan{Method: record.MethodDump, Engine: "mysql"}, Discover: job.Sources(names), Parallel: 1,
		Open: func(m job.Member) (dbdump.Engine, error) {
			var e dbdump.Engine = engineOf(w.t, w.sources[m.Ordinal], mysql.LoadOptions{})
			if spoil := w.spoil[m.Ordinal]; spoil != nil {
				e = spoil(e)
			}
			return e, nil
		},
		Rules: job.SuspectRules{AllowEmpty: true}, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
	}
	_, err := b.Run(w.t.Context())
	require.NoError(w.t, err)
	return b.ID
}

// meddled is a target with which something happens once it is loaded.
type meddled struct {
	*mysql.Engine
	then func()
}

func (m meddled) Load(ctx context.Context, s dbdump.Source) (record.Report, error) {
	r, err := m.Engine.Load(ctx, s)
	if m.then != nil {
		m.then()
	}
	return r, err
}

func (w *drillWorld) drill() *job.Drill {
	return &job.Drill{
		Repository: w.repo, Set: testSet, Ordinal: job.PrimaryOrdinal, Place: job.GivenServer{Address: w.target.Addr},
		Open: func(string) (dbdump.Engine, error) {
			return meddled{engineOf(w.t, w.target, mysql.LoadOptions{SkipBinlog: true, Isolated: true, Accounts: mysql.AccountsReplace, SilentEvents: true}), w.meddle}, nil
		},
		Ready: func(ctx context.Context, _ string) error {
			e := engineOf(w.t, w.target, mysql.LoadOptions{})
			return errors.Join(e.Ping(ctx), e.Close())
		},
		Clock: time.Now, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	}
}

// state of one check.
func state(r *job.DrillReport, check string) string {
	for _, c := range r.Checks {
		if c.Check == check {
			return c.State
		}
	}
	return "not made"
}

// proofs are what the repository knows of the backup's drills.
func (w *drillWorld) proofs(id record.BackupID) []repository.Drill {
	w.t.Helper()
	infos, err := w.repo.Backups(w.t.Context(), testSet)
	require.NoError(w.t, err)
	require.NoError(w.t, w.repo.ReadDrills(w.t.Context(), testSet, infos))
	for _, info := range infos {
		if info.ID == id {
			require.Empty(w.t, info.Problems)
			return info.Drills
		}
	}
	return nil
}

// caught: the drill of the world's only backup fails by this check and by none other, and the proof says so without
// saying more than that.
func (w *drillWorld) caught(d *job.Drill, id record.BackupID, check, why string) {
	w.t.Helper()
	report, err := d.Run(w.t.Context())
	require.ErrorIs(w.t, err, job.ErrDrill)
	require.ErrorContains(w.t, err, why)
	require.False(w.t, report.Passed)
	require.True(w.t, report.Proven)
	for _, c := range report.Checks {
		require.Equal(w.t, c.Check == check, c.State == record.ProofFailed, "%s: %s", c.Check, c.What)
	}
	proofs := w.proofs(id)
	require.Len(w.t, proofs, 1)
	require.False(w.t, proofs[0].Passed)
	for object, err := range w.store.List(w.t.Context(), "sets/") {
		require.NoError(w.t, err)
		if strings.Contains(object.Key, "/proofs/") {
			require.NotContains(w.t, w.stored(object.Key), "orders", "a proof is plain")
		}
	}
}

func (w *drillWorld) stored(key string) string {
	w.t.Helper()
	body, err := w.store.Get(w.t.Context(), key, 0, -1)
	require.NoError(w.t, err)
	defer body.Close() //nolint:errcheck // memory
	var b bytes.Buffer
	_, err = b.ReadFrom(body)
	require.NoError(w.t, err)
	return b.String()
}

// A backup that is good passes, its server keeps what was loaded, no event has run, and the proof counts.
func TestDrillPasses(t *testing.T) {
	t.Parallel()
	w := newDrillWorld(t, shop(t))
	w.target.Exec(t, "SET GLOBAL event_scheduler=ON")
	id := w.backup()
	d := w.drill()
	d.Queries = []string{"SELECT COUNT(*) = 500 FROM shop.orders", "SELECT name, 0 FROM shop.people WHERE name = 'ada'"}
	asked := ""
	d.Command = func(_ context.Context, address string) error { asked = address; return nil }
	report, err := d.Run(t.Context())
	require.NoError(t, err)
	require.True(t, report.Passed)
	require.Equal(t, w.target.Addr, asked)
	for _, check := range []string{job.DrillContent, job.DrillLoad, job.DrillObjects, job.DrillChecksums, job.DrillDefinitions, job.DrillQueries, job.DrillCommand} {
		require.Equal(t, record.ProofOK, state(report, check), check)
	}
	require.Equal(t, record.ProofSkipped, state(report, job.DrillCoordinates))
	require.EqualValues(t, 504, report.Rows)
	require.Positive(t, report.RestoreSeconds)
	require.GreaterOrEqual(t, report.Seconds, report.RestoreSeconds)
	require.Contains(t, report.Server, "mariadb 10.11")
	proofs := w.proofs(id)
	require.Len(t, proofs, 1)
	require.True(t, proofs[0].Passed)
	require.Equal(t, "500", w.target.Value(t, "SELECT COUNT(*) FROM shop.orders"))
}

// Proof 6 of the issue.
func TestDrillCatches(t *testing.T) {
	t.Parallel()
	t.Run("an empty dump", func(t *testing.T) {
		t.Parallel()
		w := newDrillWorld(t, servers.MariaDB(t))
		id := w.backup()
		w.caught(w.drill(), id, job.DrillContent, "holds nothing that could be restored")
	})
	t.Run("a dump whose rows are not there", func(t *testing.T) {
		t.Parallel()
		w := newDrillWorld(t, shop(t))
		w.spoil[0] = spoiled(func(name string, data []byte) []byte {
			if strings.HasSuffix(name, ".tsv") {
				return nil
			}
			return data
		})
		w.caught(w.drill(), w.backup(), job.DrillLoad, "loaded data differs from the backup")
	})
	t.Run("a table that the backup does not hold", func(t *testing.T) {
		t.Parallel()
		source := shop(t)
		w := newDrillWorld(t, source)
		source.Exec(t, "DROP TABLE shop.people")
		id := w.backup()
		d := w.drill()
		d.Queries = []string{"SELECT COUNT(*) FROM shop.orders", "SELECT COUNT(*) FROM shop.people"}
		w.caught(d, id, job.DrillQueries, "people")
	})
	t.Run("a table whose definition is empty", func(t *testing.T) {
		t.Parallel()
		w := newDrillWorld(t, shop(t))
		w.spoil[0] = spoiled(func(name string, data []byte) []byte {
			if name == "schemas/shop/tables/people.sql" {
				return nil
			}
			return data
		})
		w.caught(w.drill(), w.backup(), job.DrillLoad, "people")
	})
	t.Run("a table that gets lost in the restored server", func(t *testing.T) {
		t.Parallel()
		w := newDrillWorld(t, shop(t))
		w.meddle = func() { w.target.Exec(t, "DROP TABLE shop.people") }
		w.caught(w.drill(), w.backup(), job.DrillObjects, "table shop.people is missing")
	})
	t.Run("one changed value in the dump", func(t *testing.T) {
		t.Parallel()
		w := newDrillWorld(t, shop(t))
		w.spoil[0] = spoiled(func(_ string, data []byte) []byte {
			return bytes.Replace(data, []byte("\n77\tthing 77\t96.25\n"), []byte("\n77\tthing 77\t96.26\n"), 1)
		})
		w.caught(w.drill(), w.backup(), job.DrillChecksums, "table shop.orders holds other values")
	})
	t.Run("one changed value in the restored server", func(t *testing.T) {
		t.Parallel()
		w := newDrillWorld(t, shop(t))
		w.meddle = func() { w.target.Exec(t, "UPDATE shop.people SET name = 'Bob' WHERE name = 'bob'") }
		w.caught(w.drill(), w.backup(), job.DrillChecksums, "table shop.people holds other values")
	})
	t.Run("a changed definition", func(t *testing.T) {
		t.Parallel()
		w := newDrillWorld(t, shop(t))
		w.meddle = func() { w.target.Exec(t, "ALTER VIEW shop.dear AS SELECT * FROM shop.orders WHERE paid > 10") }
		w.caught(w.drill(), w.backup(), job.DrillDefinitions, "view shop.dear is defined differently")
	})
	t.Run("a byte that the store has lost", func(t *testing.T) {
		t.Parallel()
		w := newDrillWorld(t, shop(t))
		id := w.backup()
		for object, err := range w.store.List(t.Context(), "sets/") {
			require.NoError(t, err)
			if strings.Contains(object.Key, "/packs/") {
				data := []byte(w.stored(object.Key))
				data[len(data)/2] ^= 1
				require.NoError(t, w.store.Delete(t.Context(), object.Key))
				require.NoError(t, w.store.Put(t.Context(), object.Key, bytes.NewReader(data)))
			}
		}
		w.caught(w.drill(), id, job.DrillLoad, "damaged")
	})
	t.Run("a follower without coordinates", func(t *testing.T) {
		t.Parallel()
		source := shop(t)
		w := newDrillWorld(t, source, source)
		w.spoil[1] = func(e dbdump.Engine) dbdump.Engine {
			return retold{e, func(r *record.Report) {
				r.Coordinates.Upstream = &record.UpstreamCoordinates{Host: "db-0", Port: 3306, Running: true}
			}}
		}
		id := w.backup()
		w.caught(w.drill(), id, job.DrillCoordinates, "ordinal 1 follows another server, and its position there was not recorded")
	})
	t.Run("a primary without coordinates", func(t *testing.T) {
		t.Parallel()
		source := shop(t)
		w := newDrillWorld(t, source, source)
		w.spoil[0] = func(e dbdump.Engine) dbdump.Engine {
			return retold{e, func(r *record.Report) { r.Coordinates = record.Coordinates{} }}
		}
		w.spoil[1] = func(e dbdump.Engine) dbdump.Engine {
			return retold{e, func(r *record.Report) {
				r.Coordinates.Upstream = &record.UpstreamCoordinates{Host: "db-0", Port: 3306, GTID: "0-1-7", Running: true}
			}}
		}
		w.caught(w.drill(), w.backup(), job.DrillCoordinates, "ordinal 0 has followers (1)")
	})
	t.Run("a key that does not fit", func(t *testing.T) {
		t.Parallel()
		w := newDrillWorld(t, shop(t))
		w.backup()
		other, err := repository.Keygen(nil)
		require.NoError(t, err)
		wrong := w.restore
		wrong.Restore = keysFrom(t, other.Restore).Restore
		_, err = repository.Open(t.Context(), w.store, wrong, repository.Options{})
		require.ErrorIs(t, err, repository.ErrWrongKey)
		wrong.Restore = nil
		w.repo = w.open(wrong)
		_, err = w.drill().Run(t.Context())
		require.ErrorIs(t, err, repository.ErrNoIdentity)
	})
}

// spoiled is a dump whose streams somebody changes on their way.
func spoiled(change func(name string, data []byte) []byte) func(dbdump.Engine) dbdump.Engine {
	return func(e dbdump.Engine) dbdump.Engine { return spoiler{e, change} }
}

type spoiler struct {
	dbdump.Engine
	change func(string, []byte) []byte
}

func (s spoiler) Dump(ctx context.Context, w dbdump.Sink) (record.Report, error) {
	return s.Engine.Dump(ctx, spoilingSink{w, s.change})
}

type spoilingSink struct {
	dbdump.Sink
	change func(string, []byte) []byte
}

func (s spoilingSink) Create(ctx context.Context, name string, o dbdump.StreamOptions) (dbdump.Stream, error) {
	stream, err := s.Sink.Create(ctx, name, o)
	return spoilingStream{stream, name, s.change}, err
}

type spoilingStream struct {
	dbdump.Stream
	name   string
	change func(string, []byte) []byte
}

func (s spoilingStream) Write(p []byte) (int, error) {
	_, err := s.Stream.Write(s.change(s.name, bytes.Clone(p)))
	return len(p), err
}

// retold is an engine whose report somebody changes.
type retold struct {
	dbdump.Engine
	change func(*record.Report)
}

func (e retold) Dump(ctx context.Context, w dbdump.Sink) (record.Report, error) {
	r, err := e.Engine.Dump(ctx, w)
	e.change(&r)
	return r, err
}

// A server that holds something is refused, and nothing is said of the backup: no proof is left.
func TestDrillNeedsAnEmptyServer(t *testing.T) {
	t.Parallel()
	w := newDrillWorld(t, shop(t))
	id := w.backup()
	w.target.Exec(t, "CREATE DATABASE mine", "CREATE TABLE mine.t (i INT)", "INSERT INTO mine.t VALUES (1)")
	_, err := w.drill().Run(t.Context())
	require.ErrorIs(t, err, dbdump.ErrNotEmpty)
	require.NotErrorIs(t, err, job.ErrDrill)
	require.Empty(t, w.proofs(id))
	require.Equal(t, "1", w.target.Value(t, "SELECT COUNT(*) FROM mine.t"))
}

// Without the key that signs proofs nothing begins, unless no proof is wanted.
func TestDrillWithoutAKeyForProofs(t *testing.T) {
	t.Parallel()
	w := newDrillWorld(t, shop(t))
	id := w.backup()
	keys := w.restore
	keys.Prover, keys.Provers = nil, nil
	w.repo = w.open(keys)
	d := w.drill()
	_, err := d.Run(t.Context())
	require.ErrorIs(t, err, repository.ErrNoKey)
	require.ErrorContains(t, err, repository.NameProofKey)
	require.Equal(t, "0", w.target.Value(t, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'"))
	d.NoProof = true
	report, err := d.Run(t.Context())
	require.NoError(t, err)
	require.True(t, report.Passed)
	require.False(t, report.Proven)
	w.repo = w.open(w.restore)
	require.Empty(t, w.proofs(id))
}

// What no drill is made of is refused by its name.
func TestDrillRefusesOtherMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	b := w.backup()
	b.Plan.Method = record.MethodSnapshot
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	d := &job.Drill{Repository: w.repo, Set: testSet, Ordinal: job.PrimaryOrdinal, Clock: w.clock.Now, Log: slog.New(slog.DiscardHandler)}
	_, err = d.Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "method snapshot")
}
