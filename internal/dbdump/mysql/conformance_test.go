package mysql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/test/servers"
)

// testServer is a server under test in the conformance suite.
type testServer struct {
	*servers.MySQL
	options Options
}

func (s testServer) Engine(t *testing.T) dbdump.Engine {
	t.Helper()
	return newEngine(t, s.options)
}

// newEngine makes an engine that is closed when the test ends.
func newEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	e, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// Fill makes a few tables, one of them larger than the rest, and some code.
func (s testServer) Fill(t *testing.T) {
	t.Helper()
	s.Exec(t,
		"CREATE DATABASE suite CHARACTER SET utf8mb4",
		"CREATE TABLE suite.large (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200), n INT, KEY (n))",
		"INSERT INTO suite.large (v, n) VALUES ('a', 1), ('b\\t', 2), (NULL, 3), ('', NULL)",
	)
	for range 14 {
		s.Exec(t, "USE suite", "INSERT INTO suite.large (v, n) SELECT CONCAT(SHA2(id, 256), '\\n', id), id FROM suite.large")
	}
	s.Exec(t,
		"CREATE TABLE suite.small (a INT, b BLOB, g POINT)",
		"INSERT INTO suite.small VALUES (1, 0x0001, ST_GeomFromText('POINT(1 2)')), (1, NULL, NULL)",
		"CREATE TABLE suite.child (id INT PRIMARY KEY, l INT, FOREIGN KEY (l) REFERENCES suite.large (id))",
		"INSERT INTO suite.child VALUES (1, 1), (2, NULL)",
		"CREATE TABLE suite.no_rows (id INT PRIMARY KEY)",
		"CREATE VIEW suite.v AS SELECT id FROM suite.large",
		"CREATE PROCEDURE suite.p() SELECT 1",
		"CREATE TRIGGER suite.tr BEFORE INSERT ON suite.small FOR EACH ROW SET NEW.a = 2",
		"CREATE EVENT suite.e ON SCHEDULE AT '2035-01-01 00:00:00' DO SELECT 1",
	)
}

func (s testServer) Content(t *testing.T) string {
	t.Helper()
	content := describe(t, s.MySQL)
	var b strings.Builder
	for _, name := range sortedKeys(content) {
		fmt.Fprintf(&b, "%s\n%s\n", name, content[name])
	}
	return b.String()
}

// Reset drops every database that is not the server's own.
func (s testServer) Reset(t *testing.T) {
	t.Helper()
	d := &describer{t: t, db: s.DB(t)}
	for _, name := range d.lines("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME" + notSystem) {
		d.exec("DROP DATABASE " + quoteIdentifier(name))
	}
}

func (s testServer) Kill() { _ = s.KillServer() }

func TestConformance(t *testing.T) {
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			dbdumptest.Run(t, dbdumptest.Harness{
				Start: func(t *testing.T) dbdumptest.Server {
					s := f.start(t)
					return testServer{MySQL: s, options: options(t, s)}
				},
				Unreachable: func(t *testing.T) dbdump.Engine {
					return newEngine(t, Options{Address: "127.0.0.1:1", User: "x", ConnectTimeout: time.Second})
				},
				Refused: func(t *testing.T, s dbdumptest.Server) dbdump.Engine {
					server, ok := s.(testServer)
					require.True(t, ok)
					o := server.options
					o.Password = "wrong"
					return newEngine(t, o)
				},
				Leaks: []goleak.Option{goleak.IgnoreAnyFunction("keepset/test/servers.startProcess.func1")},
			})
		})
	}
}
