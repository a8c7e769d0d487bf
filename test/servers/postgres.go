package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// Postgres is a PostgreSQL server. Its fields do not change while it is stopped, killed and started again.
type Postgres struct {
	Addr     string // Host:Port
	Host     string // 127.0.0.1
	Port     int
	User     string // postgres, a superuser
	Password string
	DataDir  string
	LogFile  string
	// Programs is the folder of the server's own programs: pg_dump, pg_dumpall, psql.
	Programs string
	TLS      TLSFiles // empty without WithPostgresTLS

	scratch string // folder of the socket
	process *process
}

// postgresOptions is what the options of a server set.
type postgresOptions struct {
	config []string
	hba    []string
	tls    bool
}

// PostgresOption changes how a server is started.
type PostgresOption func(*postgresOptions)

// WithPostgresConfig adds lines to the server's configuration. They win over the package's own.
func WithPostgresConfig(lines ...string) PostgresOption {
	return func(o *postgresOptions) { o.config = append(o.config, lines...) }
}

// WithPostgresAccess puts lines before the package's own in pg_hba.conf, which lets everybody in who has a password.
func WithPostgresAccess(lines ...string) PostgresOption {
	return func(o *postgresOptions) { o.hba = append(o.hba, lines...) }
}

// WithPostgresTLS gives the server a certificate, as WithTLS does.
func WithPostgresTLS() PostgresOption {
	return func(o *postgresOptions) { o.tls = true }
}

// postgresConfig are the settings of every server: no durability, little memory, and what replication needs.
const postgresConfig = "fsync=off\nsynchronous_commit=off\nfull_page_writes=off\nautovacuum=off\nshared_buffers=32MB\nmax_connections=60\n" +
	"wal_level=replica\nmax_wal_senders=4\nlog_line_prefix='%m [%p] %u@%d '\nlogging_collector=off\n"

// postgres is a version of PostgreSQL that the package can start.
type postgres struct {
	name     string // for messages
	packages string // the part of the cache that holds it
	major    string
}

// Postgres15 starts PostgreSQL 15 for the test.
func Postgres15(t testing.TB, options ...PostgresOption) *Postgres {
	t.Helper()
	return testPostgres(t, postgres{name: "PostgreSQL 15", packages: postgresBookworm, major: "15"}, options)
}

// Postgres18 starts PostgreSQL 18 for the test.
func Postgres18(t testing.TB, options ...PostgresOption) *Postgres {
	t.Helper()
	return testPostgres(t, postgres{name: "PostgreSQL 18", packages: postgresSid, major: "18"}, options)
}

// StartPostgres15 starts PostgreSQL 15 outside of a test, in dir, until Close.
func StartPostgres15(ctx context.Context, dir string, options ...PostgresOption) (*Postgres, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p := postgres{name: "PostgreSQL 15", packages: postgresBookworm, major: "15"}
	return newPostgres(ctx, p, dir, options, func(data string) error { return p.emptyDatabase(ctx, data) })
}

func testPostgres(t testing.TB, p postgres, options []PostgresOption) *Postgres {
	t.Helper()
	dir := t.TempDir()
	return started(t, p.name, func() (*Postgres, error) {
		return newPostgres(t.Context(), p, dir, options, func(data string) error { return p.emptyDatabase(t.Context(), data) })
	})
}

// started makes the server end with the test.
func started(t testing.TB, name string, start func() (*Postgres, error)) *Postgres {
	t.Helper()
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("end of the log of %s at %s:\n%s", name, s.Addr, tail(s.LogFile))
		}
	})
	return s
}

// newPostgres starts a server on what fill puts into its data folder.
func newPostgres(ctx context.Context, p postgres, dir string, options []PostgresOption, fill func(data string) error) (*Postgres, error) {
	var o postgresOptions
	for _, option := range options {
		option(&o)
	}
	programs, err := p.programs()
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	scratch, err := scratchDir(dir)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	s := &Postgres{
		Host: "127.0.0.1", Port: port, Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		User: "postgres", Password: rootPassword, DataDir: filepath.Join(dir, "data"), LogFile: filepath.Join(dir, "server.log"),
		Programs: programs, scratch: scratch,
	}
	if err := fill(s.DataDir); err != nil {
		return nil, err
	}
	if err := s.configure(dir, o); err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", p.name, err), s.Close())
	}
	return s, nil
}

func (p postgres) programs() (string, error) {
	root, err := packageRoot(p.packages)
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "usr/lib/postgresql", p.major, "bin"), nil
}

// emptyDatabase copies the version's empty database to dir, and builds it first when the cache does not hold it.
func (p postgres) emptyDatabase(ctx context.Context, dir string) error {
	template, err := once(ctx, "template-"+p.packages+"-1", func(ctx context.Context, dir string) error {
		programs, err := p.programs()
		if err != nil {
			return err
		}
		password := filepath.Join(dir, "password")
		if err := os.WriteFile(password, []byte(rootPassword+"\n"), 0o600); err != nil {
			return err
		}
		data := filepath.Join(dir, "data")
		if err := os.Mkdir(data, 0o700); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, filepath.Join(programs, "initdb"), "--pgdata="+data, "--username=postgres", "--pwfile="+password,
			"--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--no-sync")
		cmd.SysProcAttr, cmd.Dir = unprivileged(), dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("initialise %s: %w\n%s", p.name, err, out)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return copyTree(dir, filepath.Join(template, "data"))
}

// configure writes the server's settings and who may connect.
func (s *Postgres) configure(dir string, o postgresOptions) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%slisten_addresses='%s'\nport=%d\nunix_socket_directories='%s'\n", postgresConfig, s.Host, s.Port, s.scratch)
	if o.tls {
		var err error
		if s.TLS, err = writeTLS(dir); err != nil {
			return err
		}
		fmt.Fprintf(&text, "ssl=on\nssl_ca_file='%s'\nssl_cert_file='%s'\nssl_key_file='%s'\n", s.TLS.CA, s.TLS.Cert, s.TLS.Key)
	}
	for _, line := range o.config {
		text.WriteString(line + "\n")
	}
	access := strings.Join(append(o.hba, "local all all trust", "host all all all scram-sha-256", "host replication all all scram-sha-256"), "\n") + "\n"
	for name, content := range map[string]string{"postgresql.conf": text.String(), "pg_hba.conf": access} {
		if err := os.WriteFile(filepath.Join(s.DataDir, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("configure PostgreSQL: %w", err)
		}
	}
	return nil
}

// unprivileged makes root somebody else for PostgreSQL's server, which refuses to run as root: in a user namespace of its
// own, where the files of root are that somebody's.
func unprivileged() *syscall.SysProcAttr {
	attr := underUs()
	if os.Geteuid() == 0 {
		const somebody = 1000
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: somebody, HostID: 0, Size: 1}}
		attr.GidMappings = attr.UidMappings
		attr.Credential = &syscall.Credential{Uid: somebody, Gid: somebody, NoSetGroups: true}
	}
	return attr
}

// Start starts the server again after Stop or Kill, on the same address, and waits until it answers.
func (s *Postgres) Start(ctx context.Context, arguments ...string) error {
	p, err := startProcess(ctx, unprivileged(), s.LogFile, nil, filepath.Join(s.Programs, "postgres"), append([]string{"-D", s.DataDir}, arguments...)...)
	if err != nil {
		return err
	}
	s.process = p
	if err := p.waitReady(ctx, s.ping); err != nil {
		return fmt.Errorf("PostgreSQL at %s: %w\n%s", s.Addr, err, tail(s.LogFile))
	}
	return nil
}

// ping reports whether the server answers on its socket, which no other server can have taken.
func (s *Postgres) ping(ctx context.Context) error {
	conn, err := pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=template1", s.scratch, s.Port, s.User))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// StopServer asks the server to shut down, which ends all connections, and waits for it.
func (s *Postgres) StopServer() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.stop(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop PostgreSQL at %s: %w", s.Addr, err)
	}
	s.process = nil
	return nil
}

// KillServer kills the server and all processes of it, as a power cut would.
func (s *Postgres) KillServer() error {
	if s.process == nil {
		return nil
	}
	children, err := childrenOf(s.process.cmd.Process.Pid)
	if err != nil {
		return err
	}
	if err := s.process.stop(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill PostgreSQL at %s: %w", s.Addr, err)
	}
	s.process = nil
	for _, child := range children { // each has a session of its own
		if err := syscall.Kill(child, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d of PostgreSQL: %w", child, err)
		}
	}
	return nil
}

// childrenOf lists the processes that the process has started.
func childrenOf(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid ...; the name may hold anything.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				return nil, err
			}
			children = append(children, child)
		}
	}
	return children, nil
}

// Close ends the server for good, without waiting for a tidy shutdown.
func (s *Postgres) Close() error { return errors.Join(s.KillServer(), os.RemoveAll(s.scratch)) }

// Running reports whether the server's process is there.
func (s *Postgres) Running() bool { return s.process != nil && s.process.running() }

// Ask runs one statement outside of a test, and returns the first value of its result, if it has one.
func (s *Postgres) Ask(ctx context.Context, database, statement string) (string, error) {
	conn, err := pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable", s.Host, s.Port, s.User, s.Password, database))
	if err != nil {
		return "", err
	}
	results, err := conn.Exec(ctx, statement).ReadAll()
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return "", fmt.Errorf("run %.200q: %w", statement, err)
	}
	if len(results) == 0 || len(results[0].Rows) == 0 {
		return "", nil
	}
	return string(results[0].Rows[0][0]), nil
}

// Connect connects to a database as the administrator, in UTF-8 whatever the server's default is; the test closes it when it ends.
func (s *Postgres) Connect(t testing.TB, database string) *pgconn.PgConn {
	t.Helper()
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s sslmode=disable", s.Host, s.Port, s.User))
	if err != nil {
		t.Fatal(err)
	}
	config.Password, config.Database, config.RuntimeParams["client_encoding"] = s.Password, database, "UTF8"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // what it did was checked
	return conn
}

// Exec runs the statements one after the other on one connection to the database, as the administrator.
func (s *Postgres) Exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	conn := s.Connect(t, database)
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement).ReadAll(); err != nil {
			t.Fatalf("run %.200q: %v", statement, err)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Rows returns the rows of a query as text, columns joined by a bar and NULL as "NULL".
func (s *Postgres) Rows(t testing.TB, database, query string) []string {
	t.Helper()
	conn := s.Connect(t, database)
	results, err := conn.Exec(t.Context(), query).ReadAll()
	if err != nil {
		t.Fatalf("run %.200q: %v", query, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, row := range results[len(results)-1].Rows {
		var fields []string
		for _, value := range row {
			if value == nil {
				value = []byte("NULL")
			}
			fields = append(fields, string(value))
		}
		rows = append(rows, strings.Join(fields, "|"))
	}
	return rows
}

// Value returns the first row of a query, see Rows; "" when there is none.
func (s *Postgres) Value(t testing.TB, database, query string) string {
	t.Helper()
	rows := s.Rows(t, database, query)
	if len(rows) == 0 {
		return ""
	}
	return rows[0]
}

// Run runs one of the server's own programs, which must succeed.
func (s *Postgres) Run(ctx context.Context, program string, args ...string) error {
	if out, err := exec.CommandContext(ctx, filepath.Join(s.Programs, program), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// Standby starts a server that follows s, on a copy of its files.
func (s *Postgres) Standby(t testing.TB, options ...PostgresOption) *Postgres {
	t.Helper()
	return s.On(t, func(data string) error { return s.copyTo(t.Context(), data) }, options...)
}

// On starts a server of the version of s on the files that fill puts into its data folder.
func (s *Postgres) On(t testing.TB, fill func(data string) error, options ...PostgresOption) *Postgres {
	t.Helper()
	p := postgres{name: "PostgreSQL 15 on other files", packages: postgresBookworm, major: "15"}
	if !strings.Contains(s.Programs, "/15/") {
		p = postgres{name: "PostgreSQL 18 on other files", packages: postgresSid, major: "18"}
	}
	dir := t.TempDir()
	return started(t, p.name, func() (*Postgres, error) { return newPostgres(t.Context(), p, dir, options, fill) })
}

// copyTo makes a copy of the server's files that will follow it.
func (s *Postgres) copyTo(ctx context.Context, data string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.Programs, "pg_basebackup"), "--pgdata="+data, "--write-recovery-conf", "--wal-method=stream",
		"--checkpoint=fast", "--no-sync", fmt.Sprintf("--dbname=host=%s port=%d user=%s", s.Host, s.Port, s.User))
	cmd.Env = append(os.Environ(), "PGPASSWORD="+s.Password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the files of PostgreSQL at %s: %w\n%s", s.Addr, err, out)
	}
	return nil
}
