package cli

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/dbdump/mysql"
	"keepset/internal/dbdump/postgres"
)

// ServerFlags say how to talk to a database server. The same flags exist for
// the source of a backup and for the target of a restore.
type ServerFlags struct {
	// side is "source" or "target".
	side                      string
	User                      string
	PasswordFile              string
	Port                      int
	TLS                       string
	TLSCA, TLSCert, TLSKey    string
	Connections               int
	ConnectTimeout            time.Duration
	LockTimeout, LockHold     time.Duration
	LockMode                  string
	StopReplica               bool
	Engine                    string
	Programs, MySQLPrograms   string
	Databases, ExcludeObjects []string

	// password, where it comes from neither file nor variable.
	password string
}

// Add declares the flags of one side.
func (f *ServerFlags) Add(fs *pflag.FlagSet, side string) {
	f.side = side
	fs.StringVar(&f.Engine, "engine", "", "what the servers are: mysql (MySQL and MariaDB), postgres, or command for what a program dumps and loads (default: what the URL says, else mysql)")
	fs.StringVar(&f.User, side+"-user", "", "account on the "+side+", where the URL does not name one")
	fs.StringVar(&f.PasswordFile, side+"-password-file", "", "file with the account's password (or set "+f.passwordVariable()+")")
	fs.IntVar(&f.Port, side+"-port", 0, "port of the database in the set's pods (default: the container's, else 3306 or 5432)")
	fs.StringVar(&f.TLS, side+"-tls", "preferred", "TLS to the "+side+": preferred, required (not verified) or verify")
	fs.StringVar(&f.TLSCA, side+"-tls-ca-file", "", "CA certificates that the "+side+"'s certificate must come from, PEM (implies verify)")
	fs.StringVar(&f.TLSCert, side+"-tls-cert-file", "", "client certificate, PEM")
	fs.StringVar(&f.TLSKey, side+"-tls-key-file", "", "client certificate's key, PEM")
	fs.IntVar(&f.Connections, "connections", 0, "parallel connections to each server (default: number of CPUs, at least 2)")
	fs.DurationVar(&f.ConnectTimeout, "connect-timeout", 10*time.Second, "how long to wait for a connection")
}

// AddDump declares what only a dump needs.
func (f *ServerFlags) AddDump(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.Databases, "database", nil, "back up only this database or database.table (PostgreSQL: or database.schema.table), and no accounts; globs; repeatable")
	fs.StringSliceVar(&f.ExcludeObjects, "exclude", nil, "leave out this database or database.table (PostgreSQL: or database.schema.table); globs; repeatable")
	fs.DurationVar(&f.LockTimeout, "lock-timeout", 30*time.Second, "how long to wait for the lock of the consistent point")
	fs.DurationVar(&f.LockHold, "lock-hold", 60*time.Second, "how long writers may be held up (mysql)")
	fs.StringVar(&f.LockMode, "lock-mode", "auto", "how the consistent point is made: auto, ftwrl, backup-stage, lock-tables or none (mysql)")
	fs.StringVar(&f.Programs, "postgres-programs", "", "folder of the pg_dump and pg_dumpall to use (default: in Kubernetes those of the database's own container, else those of this machine)")
	fs.StringVar(&f.MySQLPrograms, "mysql-programs", "", "folder of the mariadb-backup or xtrabackup to use, with --method physical and --source (default: the first in PATH; in Kubernetes always that of the database's container, or of --copy-container)")
	fs.BoolVar(&f.StopReplica, "allow-stopping-replica", false, "let a follower without GTIDs, whose appliers run in parallel, stop them while its position is read")
}

// addCopyContainer declares the flag that names the container in which files are copied and prepared.
func addCopyContainer(fs *pflag.FlagSet, container *string) {
	fs.StringVar(container, "copy-container", "", "with --method physical: the container of the set's pods that has xtrabackup or mariadb-backup, and the database's claims mounted where the database has them (default: the database's own)")
}

// patterns are the filters as a plan records them; what is left out has a "!".
func (f *ServerFlags) patterns() []string {
	var all []string
	all = append(all, f.Databases...)
	for _, p := range f.ExcludeObjects {
		all = append(all, "!"+p)
	}
	return all
}

func (f *ServerFlags) passwordVariable() string { return EnvName(f.side + "-password") }

// Server is where a database server is and who we are there.
type Server struct{ Engine, Address, User string }

// serverURL is what a server's URL looks like.
const serverURL = "mysql://user@host:port or postgres://user@host:port"

// defaultPorts of the engines.
var defaultPorts = map[string]string{engineMySQL: "3306", enginePostgres: "5432"}

// ParseServerURL reads mysql://user@host:port, or the same of another engine.
func (f *ServerFlags) ParseServerURL(flag, raw string) (Server, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Server{}, Usage("--%s: not a URL of the form %s", flag, serverURL) // the text may hold a password
	}
	if _, has := u.User.Password(); has {
		return Server{}, refusePassword(flag, f.passwordVariable(), f.side+"-password-file")
	}
	if !slices.Contains(Engines(), u.Scheme) {
		return Server{}, Usage("--%s %q: want %s", flag, withoutAccount(raw), serverURL)
	}
	if u.Path != "" && u.Path != "/" || strings.ContainsAny(raw, "?#") || u.Hostname() == "" {
		return Server{}, Usage("--%s %q: want %s and nothing after it", flag, withoutAccount(raw), serverURL)
	}
	if f.Engine != "" && f.Engine != u.Scheme {
		return Server{}, Usage("--%s %q: it says %s and --engine says %s", flag, withoutAccount(raw), u.Scheme, f.Engine)
	}
	host, port, err := SplitHostPort(flag, net.JoinHostPort(u.Hostname(), orDefault(u.Port(), defaultPorts[u.Scheme])), 0)
	if err != nil {
		return Server{}, err
	}
	s := Server{Engine: u.Scheme, User: f.User, Address: net.JoinHostPort(host, strconv.Itoa(port))}
	if u.User.Username() != "" {
		s.User = u.User.Username()
	}
	if s.User == "" {
		return Server{}, Usage("--%s %q: no account; write %s://user@host:port or give --%s-user", flag, raw, u.Scheme, f.side)
	}
	return s, nil
}

// withoutAccount is what may be shown of a text that is no URL of ours: a
// password stands before an @, or in a query.
func withoutAccount(raw string) string {
	if i := strings.IndexAny(raw, "?#"); i >= 0 {
		raw = raw[:i]
	}
	if i := strings.LastIndexByte(raw, '@'); i >= 0 {
		raw, _, _ = strings.Cut(raw[i+1:], "/")
	}
	return raw
}

// engine is the servers' engine where no URL says it.
func (f *ServerFlags) engine() string { return orDefault(f.Engine, engineMySQL) }

// Options fills the options of one server's engine.
func (f *ServerFlags) Options(a *App, s Server, log *slog.Logger) (o EngineOptions, err error) {
	password := f.password
	if password == "" {
		if password, err = a.Secret(f.PasswordFile, f.passwordVariable()); err != nil {
			return o, err
		}
	}
	if s.Engine == enginePostgres {
		o.Postgres, err = f.postgres(s, password, log)
		return o, err
	}
	o.MySQL = mysql.Options{
		Address: s.Address, User: s.User, Password: password,
		Workers: f.Connections, ConnectTimeout: f.ConnectTimeout,
		LockWait: f.LockTimeout, LockHold: f.LockHold, LockMode: mysql.LockMode(f.LockMode),
		AllowStoppingReplica: f.StopReplica,
		Programs:             mysql.Local{Dir: f.MySQLPrograms},
		Filter:               mysql.Filter{Include: f.Databases, Exclude: f.ExcludeObjects},
		Logger:               log,
	}
	o.MySQL.TLS, err = f.tls()
	return o, err
}

// postgres fills the options of the engine postgres, and refuses what is another engine's.
func (f *ServerFlags) postgres(s Server, password string, log *slog.Logger) (postgres.Options, error) {
	if f.StopReplica || f.LockMode != "" && f.LockMode != "auto" {
		return postgres.Options{}, Usage("--lock-mode and --allow-stopping-replica are for the engine mysql")
	}
	t, err := f.tls()
	o := postgres.Options{
		Address: s.Address, User: s.User, Password: password,
		TLS:     postgres.TLS{Required: t.Required, CA: t.CA, Cert: t.Cert, Key: t.Key, SkipVerify: t.SkipVerify},
		Workers: f.Connections, ConnectTimeout: f.ConnectTimeout, LockWait: f.LockTimeout,
		Filter: postgres.Filter{Include: f.Databases, Exclude: f.ExcludeObjects}, Logger: log,
	}
	if f.Programs != "" {
		o.Programs = postgres.Local{Dir: f.Programs}
	}
	return o, err
}

// try finds out whether an engine could be made with these flags, for whatever
// server: it reads the files that they name.
func (f *ServerFlags) try(a *App) error {
	s := Server{Engine: f.engine(), Address: "127.0.0.1:1", User: orDefault(f.User, "anyone")}
	opts, err := f.Options(a, s, a.Log)
	if err != nil {
		return err
	}
	return tryEngine(s.Engine, opts)
}

func (f *ServerFlags) tls() (mysql.TLS, error) {
	t := mysql.TLS{CA: f.TLSCA, Cert: f.TLSCert, Key: f.TLSKey}
	switch f.TLS {
	case "preferred":
	case "required":
		t.Required = true
		t.SkipVerify = f.TLSCA == ""
	case "verify":
		t.Required = true
	default:
		return t, Usage("--%s-tls %q is not one of preferred, required, verify", f.side, f.TLS)
	}
	return t, nil
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// SplitHostPort reads host:port, or a host alone, which gets the given port
// unless that is 0.
func SplitHostPort(flag, s string, port int) (string, int, error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil { // no port, or an IPv6 address without brackets
		host, text = s, strconv.Itoa(port)
		if inside, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(s, "]") {
			host = strings.TrimSuffix(inside, "]")
		}
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 || !validHost(host) {
		return "", 0, Usage("--%s %q: want host:port", flag, s)
	}
	return host, port, nil
}

func validHost(host string) bool {
	if strings.Contains(host, ":") {
		_, err := netip.ParseAddr(host)
		return err == nil
	}
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`[]/\@?#`, r)
	})
}
