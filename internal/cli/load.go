package cli

import (
	"context"
	"net"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/pflag"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/mysql"
	"keepset/internal/dbdump/postgres"
	"keepset/internal/job"
	"keepset/internal/record"
)

// ObjectFlags choose databases and tables of a backup.
type ObjectFlags struct {
	Databases, Tables []string
}

// Add declares the flags.
func (f *ObjectFlags) Add(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.Databases, "database", nil, "only this database; globs; repeatable")
	fs.StringSliceVar(&f.Tables, "table", nil, "only this database.table, with PostgreSQL database.schema.table; globs; repeatable")
}

// patterns returns "database" and "database.table".
func (f *ObjectFlags) patterns() ([]string, error) {
	all := append([]string{}, f.Databases...)
	for _, t := range f.Tables {
		if db, name, ok := strings.Cut(t, "."); !ok || db == "" || name == "" {
			return nil, Usage("--table %q: want database.table", t)
		}
		all = append(all, t)
	}
	for _, p := range all {
		if _, err := path.Match(p, ""); err != nil {
			return nil, Usage("%q is no pattern: %w", p, err)
		}
	}
	return all, nil
}

// UpstreamFlags say whom a restored server follows, and as whom.
type UpstreamFlags struct {
	Follow       string
	User         string
	PasswordFile string
	TLS          bool
	TLSCA        string
	// Slot is PostgreSQL's, and declared where a standby is made of files.
	Slot string

	// password, where it comes from neither file nor variable.
	password string
}

// Add declares the flags.
func (f *UpstreamFlags) Add(fs *pflag.FlagSet, usage string) {
	fs.StringVar(&f.Follow, "as-follower-of", "", usage)
	fs.StringVar(&f.User, "replication-user", "", "account with which the follower replicates")
	fs.StringVar(&f.PasswordFile, "replication-password-file", "", "file with its password (or set KEEPSET_REPLICATION_PASSWORD)")
	fs.BoolVar(&f.TLS, "replication-tls", false, "the follower connects with TLS (not verified)")
	fs.StringVar(&f.TLSCA, "replication-tls-ca", "", "CA certificates that the upstream's certificate must come from, in its name: a path where the follower runs, not here (implies --replication-tls)")
}

// Upstream reads them; nil when nobody is to be followed.
func (f *UpstreamFlags) Upstream(a *App) (*dbdump.Upstream, error) {
	if f.Follow == "" || f.Follow == "none" {
		return nil, nil
	}
	host, port, err := SplitHostPort("as-follower-of", f.Follow, 3306)
	if err != nil {
		return nil, err
	}
	return f.account(a, host, port)
}

// address is the upstream as host:port, with the default port if none was given, "none" for nobody and "" for nothing
// said.
func (f *UpstreamFlags) address(defaultPort int) (string, error) {
	if f.Follow == "" || f.Follow == "none" {
		return f.Follow, nil
	}
	host, port, err := SplitHostPort("as-follower-of", f.Follow, defaultPort)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// account completes an upstream with the replication account.
func (f *UpstreamFlags) account(a *App, host string, port int) (*dbdump.Upstream, error) {
	if f.User == "" {
		return nil, Usage("--replication-user is required to follow another server (or %s)", EnvName("replication-user"))
	}
	password := f.password
	if password == "" {
		var err error
		if password, err = a.Secret(f.PasswordFile, EnvName("replication-password")); err != nil {
			return nil, err
		}
	}
	return &dbdump.Upstream{
		Host: host, Port: port, User: f.User, Password: password, TLS: f.TLS || f.TLSCA != "", CA: f.TLSCA,
	}, nil
}

// LoadFlags are the flags of `restore load`.
type LoadFlags struct {
	Repository   RepositoryFlags
	Set          SetFlags
	Choice       ChoiceFlags
	Server       ServerFlags
	Upstream     UpstreamFlags
	Objects      ObjectFlags
	Command      CommandFlags
	TimesTen     TimesTenFlags
	Container    string
	Files        FileFlags
	Metrics      MetricsFlags
	Target       string
	Ordinal      int
	ordinalGiven func() bool
	Rename       []string
	Tablespaces  []string
	Replace      bool
	WithUsers    bool
	SkipBinlog   bool
	Rows         string
}

// Add declares the flags.
func (f *LoadFlags) Add(fs *pflag.FlagSet) {
	f.Repository.AddRead(fs)
	f.Set.Add(fs)
	f.Choice.Add(fs)
	f.Choice.AddWhole(fs)
	f.Server.Add(fs, "target")
	f.Upstream.Add(fs, "host:port of the server that the target shall follow, as the target sees it")
	f.Objects.Add(fs)
	f.Command.Add(fs, "program that reads the backup on its standard input, for --engine command, run in the --target pod's --container or, with --target local, here")
	f.Command.Preset.Add(fs)
	f.TimesTen.Add(fs)
	f.Files.AddRestore(fs)
	f.Metrics.Add(fs)
	fs.StringVar(&f.Upstream.Slot, "replication-slot", "", "slot of the upstream's that keeps the log for a standby of PostgreSQL (--method physical)")
	fs.StringArrayVar(&f.Tablespaces, "tablespace", nil, "where a tablespace of a base backup goes, /old=/new, or /old=/new=/seen if the server will see it as /seen; repeatable, in the variable one a line")
	fs.StringVar(&f.Container, "container", "", "container of a --target pod")
	fs.StringVar(&f.Target, "target", "", "server to load into, mysql://user@host:port or postgres://user@host:port; for --command pod/NAME or local; for files a new or empty directory, file:///dir")
	fs.IntVar(&f.Ordinal, "ordinal", 0, "which member of the backup; with --command-preset timesten its only one, if none is named")
	f.ordinalGiven = func() bool { return fs.Changed("ordinal") }
	fs.StringSliceVar(&f.Rename, "rename", nil, "load database old as new, old=new; repeatable")
	fs.BoolVar(&f.Replace, "replace", false, "replace databases (or, with --table, tables, or files) that the target already has")
	fs.BoolVar(&f.WithUsers, "with-users", false, "also load accounts, roles and grants, in place of the target's")
	fs.BoolVar(&f.SkipBinlog, "skip-binlog", false, "keep the load out of the target's binary log, and so from its followers")
	fs.StringVar(&f.Rows, "rows", "auto", "how rows travel: auto, load-data or insert")
}

// Job makes the job. done releases what it holds and may be called twice.
func (f *LoadFlags) Job(ctx context.Context, a *App) (l Loader, done func(), err error) {
	switch {
	case isDirectoryURL(f.Target):
		return f.files(ctx, a)
	case len(f.Tablespaces) > 0 || f.Upstream.Slot != "":
		return nil, nil, Usage("--target %s is no directory: --tablespace and --replication-slot go with the files of a server", withoutAccount(f.Target))
	case len(f.Files.planned()) > 0 || f.Files.NoOwner || f.Files.NoDevices || f.Files.NoXattrs:
		return nil, nil, Usage("--target %s is no directory: the flags for files do not go with it", withoutAccount(f.Target))
	case f.Server.Engine == command.Name:
		return f.found(ctx, a, func(a *App) (*job.Load, error) { return f.command(ctx, a) })
	default:
		return f.found(ctx, a, f.server)
	}
}

// found makes a job that loads into a server or a command, and finds its backup's set.
func (f *LoadFlags) found(ctx context.Context, a *App, fill func(*App) (*job.Load, error)) (l *job.Load, done func(), err error) {
	l, err = fill(a)
	if err != nil {
		return nil, nil, err
	}
	if l.Repository, err = f.Repository.Open(ctx, a); err != nil {
		return nil, nil, err
	}
	if l.Set, err = f.Set.Find(ctx, a, l.Repository); err != nil {
		return nil, nil, err
	}
	progress, end := a.StartProgress()
	l.Progress = progress
	return l, sync.OnceFunc(end), nil
}

// server fills the job for a load into a server that an engine speaks to.
func (f *LoadFlags) server(a *App) (l *job.Load, err error) {
	if f.Target == "" {
		return nil, Usage("--target is required (or %s): %s", EnvName("target"), serverURL)
	}
	if err := f.Command.unused(f.Server.engine()); err != nil {
		return nil, err
	}
	server, err := f.Server.ParseServerURL("target", f.Target)
	if err != nil {
		return nil, err
	}
	l = &job.Load{Ordinal: f.Ordinal, Target: server.Address, Clock: a.Clock, Log: a.Log}
	if l.Choice, err = f.Choice.Choice(); err != nil {
		return nil, err
	}
	if l.Upstream, err = f.Upstream.Upstream(a); err != nil {
		return nil, err
	}
	load, err := f.options(l.Upstream != nil)
	if err != nil {
		return nil, err
	}
	l.Part = !load.Filter.Empty()
	l.Choice.Whole, l.Choice.Ordinals = !l.Part, []int{f.Ordinal}
	opts, err := f.Server.Options(a, server, onceLogger(a.Log))
	if err != nil {
		return nil, err
	}
	opts.MySQL.Load = load
	if server.Engine == enginePostgres {
		if opts.Postgres.Load, err = f.postgres(load); err != nil {
			return nil, err
		}
	}
	l.Open, err = opener(server.Engine, opts)
	return l, err
}

// Omissions splits what a backup leaves out: what is particular to it, and how
// many classes of objects are in no backup of any server.
func Omissions(all []string) (particular []string, always int) {
	for _, o := range all {
		if mysql.AlwaysOmitted(o) || postgres.AlwaysOmitted(o) {
			always++
		} else {
			particular = append(particular, o)
		}
	}
	return particular, always
}

// opener returns what opens engines with opts, after it has tried once, so
// that options that cannot be meant are found before anything is touched.
func opener(name string, opts EngineOptions) (func() (dbdump.Engine, error), error) {
	if err := tryEngine(name, opts); err != nil {
		return nil, err
	}
	return func() (dbdump.Engine, error) { return OpenEngine(name, opts) }, nil
}

// tryEngine opens an engine, which reaches for no server yet but reads the files
// that the flags name, and closes it.
func tryEngine(name string, opts EngineOptions) error {
	e, err := OpenEngine(name, opts)
	if err != nil {
		return err
	}
	return e.Close()
}

func (f *LoadFlags) options(follower bool) (mysql.LoadOptions, error) {
	include, err := f.Objects.patterns()
	if err != nil {
		return mysql.LoadOptions{}, err
	}
	o := mysql.LoadOptions{
		Replace: f.Replace, Follower: follower, SkipBinlog: f.SkipBinlog,
		Filter: mysql.Filter{Include: include}, Rename: map[string]string{}, Rows: mysql.RowMethod(f.Rows),
	}
	if f.WithUsers {
		o.Accounts = mysql.AccountsReplace
	}
	for _, r := range f.Rename {
		from, to, ok := strings.Cut(r, "=")
		if !ok || from == "" || to == "" {
			return o, Usage("--rename %q: want old=new", r)
		}
		if other, twice := o.Rename[from]; twice && other != to {
			return o, Usage("--rename %q: %s is to become %s already", r, from, other)
		}
		o.Rename[from] = to
	}
	return o, nil
}

// postgres says the same to the engine postgres, and refuses what it cannot do.
func (f *LoadFlags) postgres(load mysql.LoadOptions) (postgres.LoadOptions, error) {
	if load.Follower {
		return postgres.LoadOptions{}, Usage("--as-follower-of: a standby of PostgreSQL is made of its primary's files, never of a dump")
	}
	if load.SkipBinlog || load.Rows != "" && load.Rows != mysql.RowsAuto {
		return postgres.LoadOptions{}, Usage("--skip-binlog and --rows are for the engine mysql")
	}
	o := postgres.LoadOptions{Replace: load.Replace, Filter: postgres.Filter{Include: load.Filter.Include}, Rename: load.Rename}
	if f.WithUsers {
		o.Roles = postgres.RolesReplace
	}
	return o, nil
}

// ExportFlags are the flags of `restore export`.
type ExportFlags struct {
	Repository RepositoryFlags
	Set        SetFlags
	Choice     ChoiceFlags
	Objects    ObjectFlags
	Ordinal    int
	Streams    []string
	To         string
	List       bool
	WithUsers  bool
}

// Add declares the flags.
func (f *ExportFlags) Add(fs *pflag.FlagSet) {
	f.Repository.AddRead(fs)
	f.Set.Add(fs)
	f.Choice.Add(fs)
	f.Objects.Add(fs)
	fs.IntVar(&f.Ordinal, "ordinal", 0, "which member of the backup")
	fs.StringSliceVar(&f.Streams, "stream", nil, "only this stream; globs; repeatable")
	fs.StringVar(&f.To, "to", "", "directory to write to, or - for standard output")
	fs.BoolVar(&f.List, "list", false, "list the streams and stop")
	fs.BoolVar(&f.WithUsers, "with-users", false, "also the streams with accounts and password hashes")
}

// Job makes the job.
func (f *ExportFlags) Job(ctx context.Context, a *App) (*job.Export, error) {
	include, err := f.Objects.patterns()
	if err != nil {
		return nil, err
	}
	if f.To == "" && !f.List {
		return nil, Usage("--to is required: a directory, or - for standard output; --list shows what there is")
	}
	if f.To == "-" && a.JSON() && !f.List {
		return nil, Usage("--json and --to - both want standard output; name a directory, or leave --json out")
	}
	e := &job.Export{Ordinal: f.Ordinal, Archive: a.Out, Log: a.Log}
	if f.To != "-" {
		e.Directory = f.To
	}
	e.Raw = f.To == "-" && len(f.Streams) > 0
	e.Want = f.wanted(mysql.Filter{Include: include})
	if e.Choice, err = f.Choice.Choice(); err != nil {
		return nil, err
	}
	e.Choice.Ordinals = []int{f.Ordinal}
	if e.Repository, err = f.Repository.Open(ctx, a); err != nil {
		return nil, err
	}
	e.Set, err = f.Set.Find(ctx, a, e.Repository)
	return e, err
}

// wanted chooses streams: those named, else those of the chosen objects. The
// secret ones come only when they are asked for.
func (f *ExportFlags) wanted(filter mysql.Filter) func(record.Object, bool, string) bool {
	return func(o record.Object, secret bool, name string) bool {
		if len(f.Streams) > 0 {
			for _, pattern := range f.Streams {
				if ok, err := path.Match(pattern, name); pattern == name || err == nil && ok {
					return true
				}
			}
			return false
		}
		if secret && !f.WithUsers && !f.List {
			return false
		}
		if filter.Empty() {
			return true
		}
		if o.Attributes[postgres.AttrDatabase] != "" {
			return postgres.Filter{Include: filter.Include}.Object(o)
		}
		switch {
		case o.Schema == "" && o.Kind != mysql.KindSchema:
			return false
		case o.Kind == mysql.KindTable || o.Kind == mysql.KindView || o.Kind == mysql.KindSequence:
			return filter.Table(o.Schema, o.Name)
		case o.Kind == mysql.KindTrigger:
			return filter.Table(o.Schema, o.Attributes[mysql.AttrTable])
		case o.Kind == mysql.KindSchema:
			return filter.Schema(orDefault(o.Schema, o.Name))
		default:
			return filter.Whole(o.Schema)
		}
	}
}
