package mysql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql/xbstream"
	"keepset/internal/filetree"
	"keepset/internal/record"
)

// CopyLayout is the name of the streams of a server's files, as mariadb-backup or xtrabackup copies them while the server runs.
//
//	tree/...       small files, an archive (package filetree)
//	large/<file>   a large file each, every element of its path escaped as in Layout
//	files.jsonl    where a stored file is not the server's file of that name: see storedName
//
// The files are not yet those of a server: the log among them has to be applied, by the program's --prepare of the same
// version. Coordinates are of the moment at which the copy ended; binary logs are not in it, but for the last one of MySQL.
const CopyLayout = "mysql-copy/1"

// Names in it.
const (
	largePrefix = "large/"
	namesStream = "files.jsonl"
	treeName    = "data directory"
	kindFile    = "file" // of record.Object: a large file
)

// omittedFromCopy is in no copy: the programs leave it out.
var omittedFromCopy = []string{
	"binary logs and relay logs", "temporary tables",
	"what the server has outside of its data directory, such as its configuration and the keys of encrypted tables",
}

// completed is what both programs say at their end, if all went well.
const completed = "completed OK!"

// errUnfinished: it ended with status 0 and did not say so.
var errUnfinished = fmt.Errorf("it ended without saying %q", completed)

// Copy writes the server's files to the sink. It returns nil only if the program ended with status 0 and said that it
// completed, the stream and all files in it ended whole with the right checksums, what it says of itself is that of a
// whole server, and its log ends where the server's was meanwhile.
func (e *Engine) Copy(ctx context.Context, sink filetree.Sink) (record.Report, error) {
	r, err := e.copy(ctx, sink)
	if err != nil {
		return r, fmt.Errorf("copy the files of %s: %w", e.opts.Address, err)
	}
	return r, nil
}

func (e *Engine) copy(ctx context.Context, sink filetree.Sink) (r record.Report, err error) {
	if e.opts.Programs == nil {
		return r, errors.New("nobody said what is to copy them") // of the caller, not of the user
	}
	server, err := e.server(ctx)
	if err != nil {
		return r, err
	}
	program := copierOf(server.Flavor)
	if err := e.checkProgram(ctx, program, server); err != nil {
		return r, err
	}
	s, err := e.openSession(ctx, slices.Concat(activateRoles(server), dumpSetup(server))...)
	if err != nil {
		return r, err
	}
	defer s.Close()
	c := &copying{dump: &dump{opts: e.opts, log: e.opts.Logger, server: server}, program: program, s: s}
	if err := c.settings(ctx); err != nil {
		return r, err
	}
	if c.files, err = newFileSet(ctx, sink, isInfo, func(string) error { return c.clock(ctx) }); err != nil {
		return r, err
	}
	if err = c.run(ctx); err == nil {
		r, err = c.describe(ctx)
	}
	if err == nil {
		err = c.store(&r)
	} else {
		c.files.abort(err)
	}
	return r, err
}

// copying is one Copy.
type copying struct {
	*dump
	program copier
	s       *session
	files   *fileSet

	dataDir   string
	temporary string // a directory that the server can write to
	follows   []channel
	// from is where the server's log was before.
	from uint64
	// before is what is asked of MySQL before, to be compared.
	before mysqlState
	// ended is the server's clock when the coordinates came, while writers were held up or just afterwards.
	ended time.Time
}

// clock reads the server's, at the first of the files in which the program says what it has copied.
func (c *copying) clock(ctx context.Context) (err error) {
	if c.ended.IsZero() {
		c.ended, err = serverClock(ctx, c.s)
	}
	return err
}

// settings asks what has to be known before, and refuses what no restore could put right.
func (c *copying) settings(ctx context.Context) (err error) {
	if c.grants, err = readGrants(ctx, c.s, c.server); err != nil {
		return err
	}
	if err := c.require(append(c.positionNeeds(), c.copyNeeds()...)); err != nil {
		return err
	}
	var temporary string
	elsewhere := make([]string, len(homes))
	dest := []any{&c.dataDir, &temporary}
	for i := range elsewhere {
		dest = append(dest, &elsewhere[i])
	}
	if err := c.s.queryRow(ctx, "SELECT @@GLOBAL.datadir, @@GLOBAL.tmpdir, COALESCE(@@GLOBAL."+strings.Join(homes, ", ''), COALESCE(@@GLOBAL.")+", '')", dest...); err != nil {
		return err
	}
	for i, dir := range elsewhere {
		if dir != "" && filepath.IsAbs(dir) && path.Clean(dir) != path.Clean(c.dataDir) {
			return fmt.Errorf("the server keeps files outside of its data directory (%s=%s), where no restore would put them: take --method dump or snapshot", homes[i], dir)
		}
	}
	c.temporary, _, _ = strings.Cut(temporary, ":")
	if c.follows, err = c.channels(ctx, c.s); err != nil {
		return fmt.Errorf("read whom the server follows: %w", err)
	}
	if !c.server.MariaDB() {
		if err := c.mysqlSettings(ctx); err != nil {
			return err
		}
	}
	c.from, err = c.logPosition(ctx)
	return err
}

// copyNeeds are the privileges that the program and we need to copy files, beside those to read the position.
func (c *copying) copyNeeds() []need {
	hold := need{[]string{"RELOAD"}, "hold writers up at the end (BACKUP STAGE)"}
	list := []need{hold, {[]string{"PROCESS"}, "see how InnoDB is"}, {[]string{"SHOW VIEW"}, "see which tables there are"}}
	if !c.server.MariaDB() {
		list[0].what = "flush tables and logs"
		list = append(list, need{[]string{"LOCK TABLES"}, "lock tables that are not InnoDB's"})
		if c.server.AtLeast(8, 0, 0) {
			list = append(list, need{[]string{"BACKUP_ADMIN"}, "hold changes of tables up (LOCK INSTANCE FOR BACKUP)"})
		}
	}
	return list
}

// homes are the variables that say where parts of InnoDB are.
var homes = []string{"innodb_data_home_dir", "innodb_log_group_home_dir", "innodb_undo_directory"}

// logPosition is how far InnoDB's log is written; 0 where the server does not tell.
func (c *copying) logPosition(ctx context.Context) (at uint64, err error) {
	if !c.server.MariaDB() {
		return c.mysqlLogPosition(ctx)
	}
	err = c.s.each(ctx, "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'", func(r row) error {
		at = unsigned(r.at(1))
		return nil
	})
	return at, err
}

// run copies the files.
func (c *copying) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdout, in := io.Pipe()
	words := &dbdump.LastWords{}
	ended := make(chan error, 1)
	go func() {
		err := c.opts.Programs.Run(ctx, Program{
			Name: c.program.name, Args: c.arguments(), Password: c.opts.Password, ByFile: !c.server.MariaDB(), Stdout: in, Stderr: words,
		})
		if err == nil && !strings.HasSuffix(words.String(), completed) {
			err = errUnfinished
		}
		if err != nil {
			err = fmt.Errorf("run %s: %w", c.program.name, err)
		}
		in.CloseWithError(err) // nil is io.EOF
		ended <- err
	}()
	err := c.files.read(xbstream.NewReader(stdout, c.program.dialect))
	cancelled := err != nil
	if cancelled {
		cancel()
		_ = stdout.CloseWithError(err)
	}
	failed := <-ended
	if failed != nil && (!cancelled || !errors.Is(failed, context.Canceled)) {
		err = failed // why the stream is not whole
	}
	if err != nil {
		return fmt.Errorf("%w%s", err, said(words.String()))
	}
	return nil
}

// arguments of the program. Files of options are not read: what they turn on, such as compression, changes the stream.
func (c *copying) arguments() []string {
	args := []string{
		"--backup", "--stream=xbstream", "--user=" + c.opts.User, "--target-dir=" + c.temporary, "--tmpdir=" + c.temporary,
		// No --ftwrl-wait-timeout: with it the program waits until no query at all runs, and fails on a busy server.
		"--parallel=" + strconv.Itoa(c.opts.Workers),
	}
	if c.server.MariaDB() {
		args = append([]string{"--no-defaults"}, args...)
		args = append(args, "--skip-ssl-verify-server-cert") // the connection does not leave the machine
	} else {
		args = append(args, c.mysqlArguments()...)
	}
	if len(c.follows) > 0 {
		args = append(args, "--slave-info")
	}
	if host, port, err := net.SplitHostPort(c.opts.Address); err == nil {
		return append(args, "--host="+host, "--port="+port)
	}
	return append(args, "--socket="+c.opts.Address)
}

// describe judges what has come, and says what it is.
func (c *copying) describe(ctx context.Context) (r record.Report, err error) {
	found := c.files.infos()
	last, err := found.check(c.program.name)
	if err != nil {
		return r, err
	}
	for _, name := range []string{"ibdata1", c.program.log, "backup-my.cnf"} {
		if _, exists := c.files.files[name]; !exists {
			return r, fmt.Errorf("%w: it has no file %s", xbstream.ErrStream, name)
		}
	}
	if err := c.files.complete(c.program.loss); err != nil {
		return r, err
	}
	if err := c.missing(ctx); err != nil {
		return r, err
	}
	to, err := c.logPosition(ctx)
	if err != nil {
		return r, err
	}
	if to > 0 && (last < c.from || last > to) {
		return r, fmt.Errorf("the log of the copied files ends at %d, and the server's went from %d to %d meanwhile: the files are not those of the server at %s; %s runs where the server's files are",
			last, c.from, to, c.opts.Address, c.program.name)
	}
	r = record.Report{
		Engine: "mysql", Layout: CopyLayout, Flavor: c.server.Flavor, Version: c.server.Version, Consistency: c.program.name, Omitted: slices.Clone(omittedFromCopy),
		LockSeconds: float64(unsigned(parseProperties(found[infoItself])["lock_time"])), Bytes: c.files.bytes,
	}
	if r.Coordinates, err = c.coordinates(ctx, found); err != nil {
		return r, err
	}
	if err := c.warnOfKeys(ctx); err != nil {
		return r, err
	}
	r.CapturedAt, r.Warnings = c.ended, c.report.Warnings
	return r, nil
}

// store ends what is stored.
func (c *copying) store(r *record.Report) error {
	tree, err := c.files.close()
	if err != nil {
		return err
	}
	counts, err := filetree.CountsOfTree(tree)
	if err != nil {
		return err
	}
	r.Objects = append([]record.Object{tree}, c.files.large...)
	r.Rows = counts.Entries() + int64(len(c.files.large))
	return nil
}

// coordinates are those that the program has read when its copy ended.
func (c *copying) coordinates(ctx context.Context, found infos) (at record.Coordinates, err error) {
	if at, err = found.own(c.server.MariaDB()); err != nil {
		return at, err
	}
	var log bool
	identity := "server_uuid"
	if c.server.MariaDB() {
		identity = "server_id"
	}
	if err := c.s.queryRow(ctx, "SELECT @@GLOBAL.log_bin, @@GLOBAL."+identity, &log, &at.Server); err != nil {
		return at, err
	}
	switch {
	case log && at.File == "":
		return at, fmt.Errorf("%w: it does not say where in its binary log the server was", xbstream.ErrStream)
	case !log:
		c.warn("the server writes no binary log: nothing can follow it from these files, and no point in time after them can be reached")
	}
	now, err := c.channels(ctx, c.s)
	if err != nil {
		return at, err
	}
	name := func(c channel) string { return fmt.Sprintf("%s %s:%d", c.Channel, c.Host, c.Port) }
	if !maps.Equal(setOf(c.follows, name), setOf(now, name)) {
		return at, errors.New("the server was set to follow others while its files were copied")
	}
	if err := found.upstreams(&at, now, c.server.MariaDB()); err != nil {
		return at, err
	}
	if len(now) > 1 {
		c.warn(severalUpstreams(now))
	}
	if c.server.MariaDB() {
		return at, nil
	}
	for _, u := range upstreamsOf(&at) { // MySQL has in one set what it has written and what it has applied
		at.GTID = cmp.Or(at.GTID, u.GTID)
		u.GTID = at.GTID
	}
	return at, c.between(ctx, &at)
}

func setOf[T any](list []T, key func(T) string) map[string]bool {
	set := map[string]bool{}
	for _, x := range list {
		set[key(x)] = true
	}
	return set
}

// warnOfKeys says where the files are of no use by themselves.
func (c *copying) warnOfKeys(ctx context.Context) error {
	if !c.server.MariaDB() {
		return nil // was refused
	}
	return c.s.each(ctx, "SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_TYPE = 'ENCRYPTION' AND PLUGIN_STATUS = 'ACTIVE'", func(r row) error {
		c.warn("the server encrypts its files by the plugin " + r.at(0) + ", whose keys are not in the backup: mariadb-backup --prepare needs them, and so does a server")
		return nil
	})
}
