package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"keepset/internal/dbdump"
)

// sessionSettings are what every session sets first, so that the defaults of
// the server, the database and the role do not colour what it says, nor their
// time limits end a long read. Those that a server does not know are left out
// by setting them through pg_settings.
const sessionSettings = "SELECT pg_catalog.set_config(w.name, w.value, false) FROM (VALUES " +
	"('search_path', ''), ('datestyle', 'ISO'), ('intervalstyle', 'postgres'), ('timezone', 'UTC'), ('extra_float_digits', '3'), " +
	"('bytea_output', 'hex'), ('xmloption', 'content'), ('quote_all_identifiers', 'off'), ('standard_conforming_strings', 'on'), " +
	"('row_security', 'off'), ('default_transaction_read_only', 'off'), ('synchronize_seqscans', 'off'), ('max_parallel_workers_per_gather', '0'), " +
	"('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'), " +
	"('lock_timeout', '0')) AS w (name, value) JOIN pg_catalog.pg_settings AS s ON lower(s.name) = w.name"

// session is one connection that is nobody else's.
type session struct {
	conn     *pgconn.PgConn
	database string
}

// admin connects to a database that every server has.
func (e *Engine) admin(ctx context.Context) (*session, error) {
	s, err := e.connect(ctx, "postgres")
	if sqlState(err) == stateNoDatabase {
		return e.connect(ctx, "template1")
	}
	return s, err
}

// connect opens a session in a database and prepares it.
func (e *Engine) connect(ctx context.Context, database string) (*session, error) {
	config, err := e.opts.driverConfig(database)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, e.opts.ConnectTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(bounded, config)
	if err != nil {
		if bounded.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w within %s: %w", errNoAnswer, e.opts.ConnectTimeout, err)
		}
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return nil, e.opts.connectError(database, err)
	}
	s := &session{conn: conn, database: database}
	if err := s.exec(ctx, sessionSettings); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare a session on %s: %w", e.opts.Address, err), s.Close())
	}
	return s, nil
}

// driverConfig turns the options into what the driver wants. The driver would
// read the environment (PGHOST, PGSERVICE, a password file): nothing of it is
// let through, since a server is what the flags say.
func (o Options) driverConfig(database string) (*pgconn.Config, error) {
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("server address %q: %w", o.Address, err)
	}
	c, err := pgconn.ParseConfig("host=localhost port=1 user=x password=x dbname=x sslmode=disable servicefile=/dev/null passfile=/dev/null target_session_attrs=any")
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to %s (is a PG variable set in the environment?): %w", o.Address, err)
	}
	c.Host, c.Port, c.User, c.Password, c.Database = host, uint16(number), o.User, o.Password, database
	c.RuntimeParams = map[string]string{"application_name": "keepset", "client_encoding": "UTF8"}
	c.ConnectTimeout = o.ConnectTimeout
	c.Fallbacks = nil
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}
	c.DialFunc = d.DialContext
	if c.TLSConfig, err = o.TLS.config(o.Address); err != nil {
		return nil, err
	}
	if c.TLSConfig == nil {
		// Encrypt when the server can, without a claim about who it is: what libpq does by default.
		c.TLSConfig, err = TLS{Required: true, SkipVerify: true}.config(o.Address)
		c.Fallbacks = []*pgconn.FallbackConfig{{Host: host, Port: c.Port}}
	}
	return c, err
}

// Close ends the session. After a failure the statement that is under way is
// cancelled in the server, which does not notice a closed socket while it works.
func (s *session) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.conn.Close(ctx)
	select {
	case <-s.conn.CleanupDone():
	case <-ctx.Done():
	}
	return err
}

// abandon is Close where an error says more already.
func (s *session) abandon() { _ = s.Close() }

const closeTimeout = 5 * time.Second

// exec runs statements; the error names the first of them, cut short.
func (s *session) exec(ctx context.Context, query string) error {
	_, err := s.conn.Exec(ctx, query).ReadAll()
	return s.queryError(ctx, query, err)
}

// each calls fn for every row of a small result.
func (s *session) each(ctx context.Context, query string, fn func(r row) error) error {
	results := s.conn.Exec(ctx, query)
	var failed error
	for results.NextResult() {
		reader := results.ResultReader()
		for reader.NextRow() {
			if failed == nil {
				failed = fn(row(reader.Values()))
			}
		}
	}
	if err := results.Close(); err != nil {
		return s.queryError(ctx, query, err)
	}
	return failed
}

// value is the first column of the only row of a result; NULL is "".
func (s *session) value(ctx context.Context, query string) (string, error) {
	var value string
	rows := 0
	err := s.each(ctx, query, func(r row) error {
		rows++
		value = r.at(0)
		return nil
	})
	if err == nil && rows != 1 {
		err = fmt.Errorf("run %q: %d rows, want one", shortened(query), rows)
	}
	return value, err
}

// number is value for a query that gives a whole number.
func (s *session) number(ctx context.Context, query string) (int64, error) {
	text, err := s.value(ctx, query)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("run %q: %w", shortened(query), err)
	}
	return n, nil
}

// row is one row of a small result, valid during the callback.
type row [][]byte

func (r row) at(i int) string { return string(r[i]) }

func (r row) null(i int) bool { return r[i] == nil }

// int is a whole number, 0 for NULL.
func (r row) int(i int) (int64, error) {
	if r.null(i) {
		return 0, nil
	}
	return strconv.ParseInt(r.at(i), 10, 64)
}

// queryError names the statement and the database, and why the caller gave up if that is what happened.
func (s *session) queryError(ctx context.Context, query string, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	if sentinel := sentinelOf(err); sentinel != nil {
		return fmt.Errorf("database %s: run %q: %w: %w", s.database, shortened(query), sentinel, explained(err))
	}
	return fmt.Errorf("database %s: run %q: %w", s.database, shortened(query), explained(err))
}

// shortened is a statement in one line, without its tail.
func shortened(query string) string {
	const most = 160
	q := strings.Join(strings.Fields(strings.ToValidUTF8(query, "?")), " ")
	if len(q) > most {
		q = q[:most] + "..."
	}
	return q
}

// SQLSTATEs that decide something.
const (
	stateNoDatabase       = "3D000"
	stateNoPrivilege      = "42501"
	stateLockNotAvailable = "55P03"
	stateObjectInUse      = "55006"
	stateDeadlock         = "40P01"
	stateUndefinedTable   = "42P01"
	stateUndefinedSchema  = "3F000"
	stateSchemaExists     = "42P06"
	stateUndefinedObject  = "42704"
	stateUndefinedRoutine = "42883"
	stateWrongPassword    = "28P01"
	stateNotNow           = "57P03" // the server starts up, shuts down, or lets nobody in
)

// sqlState is the server's code for an error, "" for other errors.
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// sentinelOf is what callers decide on, nil for other errors.
func sentinelOf(err error) error {
	switch sqlState(err) {
	case stateNoPrivilege:
		return dbdump.ErrPrivilege
	case stateLockNotAvailable:
		return dbdump.ErrLockTimeout
	}
	return nil
}

// explained adds the server's detail and hint, which the driver's text leaves out.
func explained(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || e.Detail == "" && e.Hint == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(strings.Fields(e.Detail+" "+e.Hint), " "))
}

// errNoAnswer is connect's timeout.
var errNoAnswer = errors.New("no answer")

// connectError classes the failure of a connection: unreachable, not to be trusted, or refused.
func (o Options) connectError(database string, err error) error {
	doing := fmt.Sprintf("connect to %s as %s", o.Address, o.User)
	state := sqlState(err)
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	case strings.HasPrefix(state, "28"):
		return fmt.Errorf("%s: %w: %w", doing, dbdump.ErrAccess, err)
	case state == stateNoPrivilege:
		return fmt.Errorf("%s, database %s: %w: %w", doing, database, dbdump.ErrPrivilege, err)
	case state != "" && state != stateNotNow: // the server says no
		return fmt.Errorf("%s, database %s: %w", doing, database, err)
	}
	if cause := untrusted(err); cause != nil {
		return fmt.Errorf("%s: %w: %w; name the file of its authority in --source-tls-ca-file or --target-tls-ca-file", doing, dbdump.ErrUntrusted, cause)
	}
	hint := ""
	switch {
	case errors.Is(err, errNoAnswer):
		hint = "; check the address, and the network policies of both ends"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = "; either no server listens there, or a network policy refuses the connection"
	}
	return fmt.Errorf("%s: %w: %w%s", doing, dbdump.ErrUnreachable, err, hint)
}
