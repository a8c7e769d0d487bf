package mysql

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/test/servers"
)

// memSink keeps streams in memory.
type memSink struct {
	mu      sync.Mutex
	streams map[string]*memStream
	// onWrite is called before every write, when set.
	onWrite func(name string, p []byte) error
}

type memStream struct {
	sink   *memSink
	name   string
	secret bool
	bytes.Buffer
	closed  bool
	aborted error
}

func newMemSink() *memSink { return &memSink{streams: map[string]*memStream{}} }

func (s *memSink) Create(_ context.Context, name string, opts dbdump.StreamOptions) (dbdump.Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[name] != nil {
		return nil, fmt.Errorf("stream %s exists", name)
	}
	st := &memStream{sink: s, name: name, secret: opts.Secret}
	s.streams[name] = st
	return st, nil
}

func (m *memStream) Write(p []byte) (int, error) {
	if m.sink.onWrite != nil {
		if err := m.sink.onWrite(m.name, p); err != nil {
			return 0, err
		}
	}
	return m.Buffer.Write(p)
}

func (m *memStream) Close() error    { m.closed = true; return nil }
func (m *memStream) Abort(err error) { m.aborted = err }

// text of a stream, which must have been closed.
func (s *memSink) text(t testing.TB, name string) string {
	t.Helper()
	st := s.streams[name]
	require.NotNil(t, st, "no stream %s among %v", name, slices.Sorted(maps.Keys(s.streams)))
	require.True(t, st.closed, "stream %s was not closed", name)
	return st.String()
}

// rows of a table, in the order of its streams, split into fields.
func (s *memSink) rows(t testing.TB, o record.Object) [][]string {
	t.Helper()
	var rows [][]string
	for _, name := range o.Data {
		text := s.text(t, name)
		require.True(t, strings.HasSuffix(text, "\n"), "stream %s ends within a row", name)
		for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
			fields := strings.Split(line, "\t")
			require.Len(t, fields, len(o.Columns), "stream %s, row %q", name, line)
			rows = append(rows, fields)
		}
	}
	return rows
}

// object finds one object of a report.
func object(t testing.TB, r record.Report, kind, schema, name string) record.Object {
	t.Helper()
	for _, o := range r.Objects {
		if o.Kind == kind && o.Schema == schema && o.Name == name {
			return o
		}
	}
	require.Failf(t, "object is missing", "%s %s.%s", kind, schema, name)
	return record.Object{}
}

// options for a test server, logging to the test.
func options(t testing.TB, s *servers.MySQL) Options {
	t.Helper()
	return Options{
		Address: s.Addr, User: s.User, Password: s.Password, LockWait: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// dumpWith dumps and fails the test on an error.
func dumpWith(t testing.TB, o Options) (*memSink, record.Report) {
	t.Helper()
	sink := newMemSink()
	report, err := tryDump(t, o, sink)
	require.NoError(t, err)
	for name, st := range sink.streams {
		require.True(t, st.closed, "stream %s was left open", name)
	}
	return sink, report
}

func tryDump(t testing.TB, o Options, sink dbdump.Sink) (record.Report, error) {
	t.Helper()
	engine, err := New(o)
	require.NoError(t, err)
	defer engine.Close() //nolint:errcheck // a pool without idle connections
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return engine.Dump(ctx, sink)
}

func TestADumpHoldsEveryObjectInTheOrderOfCreation(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app CHARACTER SET utf8mb4",
			"CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(20), g VARCHAR(40) AS (CONCAT(v, '!')) STORED)",
			"INSERT INTO app.t (id, v) VALUES (1, 'one'), (2, NULL), (3, 'tab\tand\nnewline\\\\')",
			"CREATE TABLE app.`empty/ünd` (id INT)",
			"CREATE VIEW app.a_top AS SELECT id FROM app.t",
			"CREATE VIEW app.b AS SELECT id FROM app.t WHERE id > 1 WITH CHECK OPTION",
			"CREATE OR REPLACE VIEW app.a_top AS SELECT id FROM app.b WHERE id > 2 WITH CASCADED CHECK OPTION",
			"CREATE FUNCTION app.f(x INT) RETURNS INT DETERMINISTIC RETURN x + 1",
			"CREATE PROCEDURE app.p() BEGIN SELECT 1; SELECT '$$'; END",
			"CREATE TRIGGER app.second BEFORE INSERT ON app.t FOR EACH ROW SET NEW.v = 'x'",
			"CREATE TRIGGER app.first BEFORE INSERT ON app.t FOR EACH ROW PRECEDES second SET NEW.v = 'y'",
			"CREATE EVENT app.e ON SCHEDULE EVERY 1 DAY DISABLE COMMENT 'c' DO SELECT 1",
			"CREATE USER 'reader'@'%' IDENTIFIED BY 'secret'", "GRANT SELECT ON app.* TO 'reader'@'%'")
		sink, report := dumpWith(t, options(t, s))

		var kinds []string
		for _, o := range report.Objects {
			if len(kinds) == 0 || kinds[len(kinds)-1] != o.Kind {
				kinds = append(kinds, o.Kind)
			}
		}
		require.Equal(t, []string{KindUser, KindSchema, KindTable, KindRoutine, KindView, KindTrigger, KindEvent}, kinds)
		require.EqualValues(t, 3, report.Rows)
		require.Positive(t, report.Bytes)
		require.WithinDuration(t, time.Now(), report.CapturedAt, time.Minute)

		table := object(t, report, KindTable, "app", "t")
		require.EqualValues(t, 3, table.Rows)
		require.Equal(t, []record.Column{{Name: "id", Type: table.Columns[0].Type}, {Name: "v", Type: "varchar(20)"}}, table.Columns, "generated columns have no data")
		require.Equal(t, [][]string{{"1", "one"}, {"2", `\N`}, {"3", `tab\tand\nnewline\\`}}, sink.rows(t, table))
		empty := object(t, report, KindTable, "app", "empty/ünd")
		require.Empty(t, empty.Data)
		require.Equal(t, "schemas/app/tables/empty%2F%C3%BCnd.sql", empty.DDL)
		require.Contains(t, sink.text(t, empty.DDL), "CREATE TABLE `empty/ünd`")

		var views, triggers []string
		for _, o := range report.Objects {
			switch o.Kind {
			case KindView:
				views = append(views, o.Name)
			case KindTrigger:
				triggers = append(triggers, o.Name+" "+o.Attributes[AttrOrder])
			}
		}
		require.Equal(t, []string{"b", "a_top"}, views, "a view comes after the view that it reads")
		require.Equal(t, []string{"first 1", "second 2"}, triggers)
		require.Equal(t, "app.b", object(t, report, KindView, "app", "a_top").Attributes[AttrDepends])
		require.Equal(t, "DISABLED", object(t, report, KindEvent, "app", "e").Attributes[AttrStatus])

		require.True(t, sink.streams[usersStream].secret)
		users := sink.text(t, usersStream)
		require.Contains(t, users, "CREATE USER `reader`@`%`")
		require.Contains(t, users, "GRANT SELECT ON `app`.* TO `reader`@`%`")
		procedure := sink.text(t, object(t, report, KindRoutine, "app", "p").DDL)
		require.Contains(t, procedure, "DELIMITER #1#\n", "the delimiter does not occur in the body")
	})
}
