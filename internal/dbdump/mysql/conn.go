package mysql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"

	"keepset/internal/dbdump"
)

// maxPacket is what the client accepts and asks the server to send: the
// protocol's own limit, since rows may be that large.
const maxPacket = 1 << 30

// dialBuffer is how much is read from the socket at a time. The driver by
// itself asks for 4 KiB, which makes system calls the cost of a dump.
const dialBuffer = 128 << 10

// driverConfig turns the options into what the driver wants. Nothing in it
// reaches a command line or a log.
func (o Options) driverConfig() (*mysqldriver.Config, error) {
	c := mysqldriver.NewConfig()
	c.User, c.Passwd = o.User, o.Password
	c.Net, c.Addr = "tcp", o.Address
	if strings.HasPrefix(o.Address, "/") {
		c.Net = "unix"
	}
	c.MaxAllowedPacket = maxPacket
	c.Timeout = o.ConnectTimeout // what follows has its time from patientConn
	c.DialFunc = o.dialer()
	c.CheckConnLiveness = false
	c.Logger = driverLog{o.Logger}
	c.InterpolateParams = true
	c.ConnectionAttributes = "program_name:keepset"
	// The driver sends SET NAMES only when told a collation; every session
	// sets its own character set (see openSession), and utf8mb4 is the
	// driver's default in the handshake.
	t, err := o.TLS.config(o.Address)
	if err != nil {
		return nil, err
	}
	if t != nil {
		c.TLS = t
	} else if c.Net == "tcp" {
		// Encrypt when the server can, without a claim about who it is: what
		// the mysql client does by default.
		c.TLSConfig = "preferred"
		c.AllowFallbackToPlaintext = true
	}
	return c, nil
}

// config is nil when nothing was asked for.
func (t TLS) config(address string) (*tls.Config, error) {
	if t == (TLS{}) {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.SkipVerify, ServerName: t.ServerName} //nolint:gosec // asked for by name
	if c.ServerName == "" {
		if host, _, err := net.SplitHostPort(address); err == nil {
			c.ServerName = host
		}
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read the CA of the server: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the CA of the server: no certificate in %s", t.CA)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("a client certificate needs both the certificate and its key")
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// dialKey is under which openSession asks for the connection that was dialled.
type dialKey struct{}

// dialer makes the connections of the driver.
func (o Options) dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}
	dial := d.DialContext
	if o.Dial != nil {
		dial = o.Dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		b := &bufferedConn{patientConn: patientConn{Conn: c, timeout: o.ReadTimeout}, buf: make([]byte, dialBuffer)}
		if asked, ok := ctx.Value(dialKey{}).(**bufferedConn); ok {
			*asked = b
		}
		return b, nil
	}
}

type driverLog struct{ *slog.Logger }

// Print receives what the driver has to say about broken connections; the
// error itself comes back to the caller as well.
func (l driverLog) Print(v ...any) { l.Debug("mysql driver", "message", fmt.Sprint(v...)) }

// session is one connection that is nobody else's, from open to close. Its
// Close closes the socket, and with it the server gives back locks and ends
// transactions and queries.
type session struct {
	*sql.Conn
	// ID is the server's connection id, as in SHOW PROCESSLIST.
	ID uint64
	// host tells the server from others behind the same address.
	host string
	// client is who the server takes us for, as in SHOW PROCESSLIST: the user, and the address and port of this end.
	client string
	// dialled is the connection under the driver's.
	dialled *bufferedConn
	// wire is the connection under the driver's, where it is not encrypted
	// and reading past the driver was asked for.
	wire *bufferedConn
}

// errNoAnswer is connect's timeout.
var errNoAnswer = errors.New("no answer")

// connect dials and shakes hands within ConnectTimeout. The driver bounds only the dialling: a server that is stopped
// but whose kernel still accepts connections would be waited for as long as a read may take.
func (e *Engine) connect(ctx context.Context) (*sql.Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, e.opts.ConnectTimeout)
	defer cancel()
	conn, err := e.db.Conn(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w within %s", errNoAnswer, e.opts.ConnectTimeout)
	}
	return conn, err
}

// clientColumns tell who the client of a connection is.
const clientColumns = "CONCAT_WS('@', USER, HOST)"

// openSession connects and prepares the session: statements one after the
// other, after what every session needs.
func (e *Engine) openSession(ctx context.Context, statements ...string) (*session, error) {
	s := &session{}
	var err error
	if s.Conn, err = e.connect(context.WithValue(ctx, dialKey{}, &s.dialled)); err != nil {
		return nil, connectError(e.opts.Address, e.opts.User, err)
	}
	const who = "SELECT CONNECTION_ID(), CONCAT_WS(':', @@hostname, @@port, @@server_id), COALESCE((SELECT " + clientColumns +
		" FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()), '')"
	if err := s.QueryRowContext(ctx, who).Scan(&s.ID, &s.host, &s.client); err != nil {
		s.Close()
		return nil, fmt.Errorf("prepare session on %s: %w", e.opts.Address, err)
	}
	s.dialled.doubts = func() error { return e.doubts(s) }
	for _, q := range statements {
		if err := s.exec(ctx, q); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Close ends the connection itself rather than giving it back to the pool.
// Errors have no meaning any more: the server frees everything either way.
func (s *session) Close() {
	_ = s.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.Conn.Close()
}

// exec runs a statement; the error names it, cut short.
func (s *session) exec(ctx context.Context, query string) error {
	if _, err := s.ExecContext(ctx, query); err != nil {
		return s.queryError(query, err)
	}
	return nil
}

// queryRow is QueryRowContext(...).Scan with a readable error.
func (s *session) queryRow(ctx context.Context, query string, dest ...any) error {
	if err := s.QueryRowContext(ctx, query).Scan(dest...); err != nil {
		return s.queryError(query, err)
	}
	return nil
}

// each calls fn for every row of a small result, as text; NULL is "" with null set.
func (s *session) each(ctx context.Context, query string, fn func(row row) error) error {
	rows, err := s.QueryContext(ctx, query)
	if err != nil {
		return s.queryError(query, err)
	}
	defer rows.Close() //nolint:errcheck // the error of reading says more
	names, err := rows.Columns()
	if err != nil {
		return s.queryError(query, err)
	}
	values := make([]sql.NullString, len(names))
	dest := make([]any, len(names))
	for i := range values {
		dest[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return s.queryError(query, err)
		}
		if err := fn(row{names: names, values: values}); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return s.queryError(query, err)
	}
	return nil
}

// row is one row of a small result, valid during the callback.
type row struct {
	names  []string
	values []sql.NullString
}

// at is the value by position; NULL is "".
func (r row) at(i int) string { return r.values[i].String }

// null tells NULL from "".
func (r row) null(i int) bool { return !r.values[i].Valid }

// get is the value by column name, whatever its case; absent or NULL is "".
func (r row) get(name string) string {
	for i, n := range r.names {
		if strings.EqualFold(n, name) {
			return r.values[i].String
		}
	}
	return ""
}

// queryError names the statement, and says why its connection was given up if it was.
func (s *session) queryError(query string, err error) error {
	return queryError(query, s.explain(err))
}

// queryError names the statement, without its tail.
func queryError(query string, err error) error {
	const most = 160
	q := strings.Join(strings.Fields(query), " ")
	if len(q) > most {
		q = q[:most] + "..."
	}
	return fmt.Errorf("run %q: %w", q, err)
}

// Error numbers of the server that decide something.
const (
	errDBAccessDenied     = 1044
	errAccessDenied       = 1045
	errNoSuchTable        = 1146
	errLockWaitTimeout    = 1205
	errSpecificAccess     = 1227
	errTableAccessDenied  = 1142
	errColumnAccessDenied = 1143
	errQueryInterrupted   = 1317
	errTooManyConnections = 1040
	errMustChangePassword = 1820
	errAccountLocked      = 3118
	errStatementTimeout   = 1969
)

// errorNumber is the server's number for an error, 0 for other errors.
func errorNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysqldriver.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// connectError classes the failure of a connection: unreachable, not to be trusted, or refused.
func connectError(address, user string, err error) error {
	switch errorNumber(err) {
	case errAccessDenied, errDBAccessDenied, errMustChangePassword, errAccountLocked, 1698:
		return fmt.Errorf("connect to %s as %s: %w: %w", address, user, dbdump.ErrAccess, err)
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	if untrusted, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("connect to %s: %w: %w; name the file of its authority in --source-tls-ca-file or --target-tls-ca-file", address, dbdump.ErrUntrusted, untrusted.Err)
	}
	return fmt.Errorf("connect to %s: %w: %w%s", address, dbdump.ErrUnreachable, err, unreachableHint(err))
}

// unreachableHint says what to look at where the network's own words leave it open.
func unreachableHint(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, errNoAnswer), errors.As(err, &network) && network.Timeout():
		return "; check the address, and the network policies of both ends"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "; either no server listens there, or a network policy refuses the connection"
	default:
		return ""
	}
}

// lost tells whether the connection is gone, as opposed to a statement refused.
func lost(err error) bool {
	return errors.Is(err, mysqldriver.ErrInvalidConn) || errors.Is(err, driver.ErrBadConn) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// seconds rounds a duration up to whole seconds, at least one, for server
// variables that count in them.
func seconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }
