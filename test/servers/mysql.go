package servers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	driver "github.com/go-sql-driver/mysql"
)

// MySQL is a MariaDB or MySQL server. Its fields do not change while it is stopped, killed and started again.
type MySQL struct {
	Addr     string // Host:Port
	Host     string // 127.0.0.1
	Port     int
	Socket   string // path of the Unix socket
	User     string // root
	Password string
	DataDir  string
	LogFile  string
	ServerID uint32
	TLS      TLSFiles // empty without WithTLS

	product product
	config  string // path of my.cnf
	scratch string // folder of the socket and of temporary files
	process *process
}

// maxSocketPath is the most bytes that Linux takes in the path of a socket, less its closing zero.
const maxSocketPath = 107

// mysqlOptions is what the options of a database server set.
type mysqlOptions struct {
	config   []string
	serverID uint32
	tls      bool
}

// MySQLOption changes how a database server is started.
type MySQLOption func(*mysqlOptions)

// WithConfig adds lines to the server's configuration: key=value, or key alone. They win over the package's own.
func WithConfig(lines ...string) MySQLOption {
	return func(o *mysqlOptions) { o.config = append(o.config, lines...) }
}

// WithServerID sets server_id. Without it each server gets one of its own.
func WithServerID(id uint32) MySQLOption {
	return func(o *mysqlOptions) { o.serverID = id }
}

// WithTLS gives the server a certificate for 127.0.0.1 and localhost from an authority of its own, which also signs
// the client certificate of MySQL.TLS. Connections without TLS stay possible unless the configuration forbids them.
func WithTLS() MySQLOption {
	return func(o *mysqlOptions) { o.tls = true }
}

// MariaDB starts MariaDB 10.11 for the test: binary log on in ROW format, local_infile on, no durability, 64 MiB buffer pool.
func MariaDB(t testing.TB, options ...MySQLOption) *MySQL {
	t.Helper()
	return testMySQL(t, mariadb(), options)
}

// MariaDB105 starts MariaDB 10.5 with the settings of MariaDB.
func MariaDB105(t testing.TB, options ...MySQLOption) *MySQL {
	t.Helper()
	return testMySQL(t, mariadb105(), options)
}

// MariaDB118 starts MariaDB 11.8 with the settings of MariaDB.
func MariaDB118(t testing.TB, options ...MySQLOption) *MySQL {
	t.Helper()
	return testMySQL(t, mariadb118(), options)
}

// MySQL97 starts MySQL 9.7 for the test, with the server's own defaults but no durability and a 64 MiB buffer pool:
// binary log on, GTID mode as the configuration says, local_infile off.
func MySQL97(t testing.TB, options ...MySQLOption) *MySQL {
	t.Helper()
	return testMySQL(t, mysql(), options)
}

func testMySQL(t testing.TB, p product, options []MySQLOption) *MySQL {
	t.Helper()
	s, err := startMySQL(t.Context(), p, t.TempDir(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("end of the log of %s at %s:\n%s", s.product.name, s.Addr, tail(s.LogFile))
		}
	})
	return s
}

// StartMariaDB starts MariaDB 10.11 with its data in dir, which must be empty. See MariaDB for the settings.
func StartMariaDB(ctx context.Context, dir string, options ...MySQLOption) (*MySQL, error) {
	return startMySQL(ctx, mariadb(), dir, options)
}

func startMySQL(ctx context.Context, p product, dir string, options []MySQLOption) (*MySQL, error) {
	var o mysqlOptions
	for _, option := range options {
		option(&o)
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	if o.serverID == 0 {
		o.serverID = uint32(port) // unique among the servers of this machine
	}
	scratch, err := scratchDir(dir)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	s := &MySQL{
		Host: "127.0.0.1", Port: port, Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		Socket: filepath.Join(scratch, "s"), User: "root", Password: rootPassword,
		DataDir: filepath.Join(dir, "data"), LogFile: filepath.Join(dir, "server.log"), ServerID: o.serverID,
		product: p, config: filepath.Join(dir, "my.cnf"), scratch: scratch,
	}
	if err := s.prepare(ctx, dir, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// scratchDir makes the folder of the socket and of temporary files: in dir, unless that makes the socket's path too long.
func scratchDir(dir string) (string, error) {
	if scratch := filepath.Join(dir, "run"); len(filepath.Join(scratch, "s")) <= maxSocketPath {
		return scratch, os.MkdirAll(scratch, 0o700)
	}
	return os.MkdirTemp("", "ks")
}

// prepare writes everything that the server needs into dir: its data, its certificates and its configuration.
func (s *MySQL) prepare(ctx context.Context, dir string, o mysqlOptions) error {
	root, err := packageRoot(s.product.packages)
	if err != nil {
		return err
	}
	if err := s.product.emptyDatabase(ctx, s.DataDir); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "[mysqld]\nuser=root\n%s", s.product.places(root))
	fmt.Fprintf(&text, "datadir=%s\nsocket=%s\npid_file=%s\ntmpdir=%s\n",
		s.DataDir, s.Socket, filepath.Join(s.scratch, "pid"), s.scratch)
	fmt.Fprintf(&text, "bind_address=%s\nport=%d\nskip_name_resolve\n", s.Host, s.Port)
	fmt.Fprintf(&text, "server_id=%d\nlog_bin=binlog\nsync_binlog=0\n", s.ServerID)
	text.WriteString("innodb_buffer_pool_size=64M\ninnodb_flush_log_at_trx_commit=0\n" +
		"innodb_flush_method=O_DIRECT_NO_FSYNC\ninnodb_fast_shutdown=1\nkey_buffer_size=8M\n")
	text.WriteString(s.product.config)
	if o.tls {
		if s.TLS, err = writeTLS(dir); err != nil {
			return err
		}
		fmt.Fprintf(&text, "ssl_ca=%s\nssl_cert=%s\nssl_key=%s\n", s.TLS.CA, s.TLS.Cert, s.TLS.Key)
	}
	for _, line := range o.config {
		text.WriteString(line + "\n")
	}
	if err := os.WriteFile(s.config, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("configure %s: %w", s.product.name, err)
	}
	return nil
}

// Start starts the server again after Stop or Kill, on the same address, and waits until it answers. The arguments win
// over its configuration.
func (s *MySQL) Start(ctx context.Context, arguments ...string) error {
	program, err := s.product.binary()
	if err != nil {
		return err
	}
	p, err := startProcess(ctx, underUs(), s.LogFile, nil, program, append([]string{"--defaults-file=" + s.config}, arguments...)...)
	if err != nil {
		return err
	}
	s.process = p
	if err := p.waitReady(ctx, s.ping); err != nil {
		return fmt.Errorf("start %s at %s: %w\n%s", s.product.name, s.Addr, err, tail(s.LogFile))
	}
	return nil
}

// Empty replaces the data of a stopped server by an empty database: a new volume under an old name. MySQL makes itself
// a new server_uuid with it.
func (s *MySQL) Empty(ctx context.Context) error {
	if s.Running() {
		return fmt.Errorf("empty %s at %s: it is running", s.product.name, s.Addr)
	}
	if err := os.RemoveAll(s.DataDir); err != nil {
		return fmt.Errorf("empty %s at %s: %w", s.product.name, s.Addr, err)
	}
	return s.product.emptyDatabase(ctx, s.DataDir)
}

// ping reports whether the server answers on its socket, which no other server can have taken.
func (s *MySQL) ping(ctx context.Context) error {
	config := s.driverConfig()
	config.Net, config.Addr = "unix", s.Socket
	connector, err := driver.NewConnector(config)
	if err != nil {
		return err
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

// StopServer asks the server to shut down and waits for it.
func (s *MySQL) StopServer() error { return s.end(syscall.SIGTERM) }

// KillServer kills the server, as a power cut would, and waits for it.
func (s *MySQL) KillServer() error { return s.end(syscall.SIGKILL) }

func (s *MySQL) end(signal syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	if err := s.process.stop(signal); err != nil {
		return fmt.Errorf("stop %s at %s: %w", s.product.name, s.Addr, err)
	}
	s.process = nil
	return nil
}

// Close ends the server for good, without waiting for a tidy shutdown. Its data stay for whoever owns the folder.
func (s *MySQL) Close() error {
	return errors.Join(s.KillServer(), os.RemoveAll(s.scratch))
}

// Running reports whether the server's process is there.
func (s *MySQL) Running() bool { return s.process != nil && s.process.running() }

// Stop shuts the server down.
func (s *MySQL) Stop(t testing.TB) {
	t.Helper()
	if err := s.StopServer(); err != nil {
		t.Fatal(err)
	}
}

// Kill kills the server, as a power cut would.
func (s *MySQL) Kill(t testing.TB) {
	t.Helper()
	if err := s.KillServer(); err != nil {
		t.Fatal(err)
	}
}

// Restart stops the server if it runs and starts it on the same address, with its configuration as it stands on disk.
func (s *MySQL) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// driverConfig returns the driver's settings for the administrator over TCP.
func (s *MySQL) driverConfig() *driver.Config {
	config := driver.NewConfig()
	config.User, config.Passwd = s.User, s.Password
	config.Net, config.Addr = "tcp", s.Addr
	config.MultiStatements = true
	config.Logger = driver.Logger(&driver.NopLogger{}) // attempts before the server is up are expected
	return config
}

// DSN returns a data source name for go-sql-driver, as the administrator over TCP, without a database.
func (s *MySQL) DSN() string { return s.driverConfig().FormatDSN() }

// Open opens a pool of the administrator's connections; the caller closes it. Several statements may go in one call.
func (s *MySQL) Open() (*sql.DB, error) {
	connector, err := driver.NewConnector(s.driverConfig())
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.Addr, err)
	}
	return sql.OpenDB(connector), nil
}

// DB is Open for a test, which closes the pool when it ends.
func (s *MySQL) DB(t testing.TB) *sql.DB {
	t.Helper()
	db, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// Exec runs the statements one after the other on one connection, as the administrator.
func (s *MySQL) Exec(t testing.TB, statements ...string) {
	t.Helper()
	db, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // every statement's own result was checked
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatalf("connect to %s: %v", s.Addr, err)
	}
	defer conn.Close() //nolint:errcheck // every statement's own result was checked
	for _, statement := range statements {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("run %.200q: %v", statement, err)
		}
	}
}

// Value returns the first column of the query's first row as text, NULL as "NULL".
func (s *MySQL) Value(t testing.TB, query string) string {
	t.Helper()
	db, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // only read
	var value sql.NullString
	if err := db.QueryRowContext(t.Context(), query).Scan(&value); err != nil {
		t.Fatalf("run %.200q: %v", query, err)
	}
	if !value.Valid {
		return "NULL"
	}
	return value.String
}
