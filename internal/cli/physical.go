package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql"
	"keepset/internal/dbdump/postgres"
	"keepset/internal/filetree"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// physical makes the job one that takes the servers' files.
func (f *BackupFlags) physical(b *job.Backup) error {
	switch f.Server.engine() {
	case enginePostgres:
	case engineMySQL:
		if f.Server.StopReplica || f.Server.LockMode != string(mysql.LockAuto) {
			return Usage("--lock-mode and --allow-stopping-replica are for --method %s: what copies the files locks in its own way", record.MethodDump)
		}
		if f.Server.MySQLPrograms != "" && len(f.Sources) == 0 {
			return Usage("--mysql-programs goes with --source: in Kubernetes mariadb-backup or xtrabackup is run in the database's own container, or in --copy-container, where its files are")
		}
	default:
		return Usage("--method %s is for the engines %s and %s; the engine is %s", record.MethodPhysical, enginePostgres, engineMySQL, f.Server.engine())
	}
	if len(f.Server.patterns()) > 0 {
		return Usage("--method %s takes a server's files as a whole: it goes with neither --database nor --exclude", record.MethodPhysical)
	}
	b.Plan.Method = record.MethodPhysical
	return nil
}

// checkCopyContainer refuses the name of a container that copies files where nothing is copied in one.
func checkCopyContainer(container, method, engine string, plain bool) error {
	if container != "" && (method != record.MethodPhysical || engine != engineMySQL || plain) {
		return Usage("--copy-container goes with --method %s of MySQL and MariaDB in Kubernetes", record.MethodPhysical)
	}
	return nil
}

// serverFiles makes the files of a server, of whatever engine the backup is.
type serverFiles struct {
	postgres *postgresBase
	mysql    copyBase
}

// copyBase makes the files of a MariaDB or MySQL.
type copyBase struct{ mysql.CopyRestore }

// Check implements job.Base.
func (b *copyBase) Check(_ context.Context, r record.Report) error {
	if err := b.CopyRestore.Check(r); err != nil {
		return fmt.Errorf("%w: %w", job.ErrConfig, err)
	}
	return nil
}

// Check implements job.Base.
func (b *serverFiles) Check(ctx context.Context, r record.Report) error {
	if !mysql.IsCopy(r) {
		return b.postgres.Check(ctx, r)
	}
	if flag := b.postgres.particular(); flag != "" {
		return fmt.Errorf("%w: %s is for the files of PostgreSQL, and the backup holds those of MariaDB or MySQL", job.ErrConfig, flag)
	}
	return b.mysql.Check(ctx, r)
}

// Restore implements job.Base.
func (b *serverFiles) Restore(ctx context.Context, source filetree.Source) (record.Report, error) {
	places := slices.AppendSeq([]string{b.postgres.Path}, maps.Values(b.postgres.Tablespaces))
	if err := makeAbove(statefulset.WorkerPath, places); err != nil {
		return record.Report{}, err
	}
	if mysql.IsCopy(source.Report()) {
		return b.mysql.Restore(ctx, source)
	}
	return b.postgres.Restore(ctx, source)
}

// serverFiles says what becomes of a server's files in dir.
func (f *LoadFlags) serverFiles(a *App, dir string, workers int) (*serverFiles, error) {
	base, err := f.base(a, dir, workers)
	return &serverFiles{postgres: base, mysql: copyBase{mysql.CopyRestore{Path: dir, Workers: workers}}}, err
}

// postgresBase makes the files of a PostgreSQL server, after its upstream has been asked.
type postgresBase struct {
	postgres.BaseRestore
	upstream *postgres.Engine // nil for a primary
	// patience is how long a slot may serve another standby: the one that was in the
	// place of this one, whose end the upstream notices after a while.
	patience time.Duration
	app      *App
}

// slotPatience is more than PostgreSQL's wal_sender_timeout.
const slotPatience = 90 * time.Second

// Check implements job.Base.
func (b *postgresBase) Check(ctx context.Context, r record.Report) error {
	if err := b.BaseRestore.Check(r); err != nil {
		return fmt.Errorf("%w: %w", job.ErrConfig, err)
	}
	if b.upstream == nil {
		return nil
	}
	start := b.app.Clock()
	for told := false; ; told = true {
		err := b.upstream.CanFollow(ctx, r.Coordinates, b.Slot)
		if !errors.Is(err, postgres.ErrSlotInUse) || b.app.Clock().Sub(start) >= b.patience {
			return err
		}
		if !told {
			b.app.Log.Info("the replication slot is in use: waiting until the upstream lets it go", "slot", b.Slot, "patience", b.patience)
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// pause waits, but not beyond the context.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// base says what becomes of a base backup's files in dir.
func (f *LoadFlags) base(a *App, dir string, workers int) (*postgresBase, error) {
	b := &postgresBase{BaseRestore: postgres.BaseRestore{
		Path: dir, NoOwner: f.Files.NoOwner, Workers: workers, Slot: f.Upstream.Slot, Tablespaces: map[string]string{}, Seen: map[string]string{},
	}, app: a, patience: slotPatience}
	spaces, err := parseTablespaces(f.Tablespaces, 3)
	if err != nil {
		return nil, err
	}
	for was, now := range spaces {
		b.Tablespaces[was], b.Seen[was] = now[0], now[len(now)-1]
	}
	if f.Upstream.Follow == "" || f.Upstream.Follow == "none" {
		if b.Slot != "" {
			return nil, Usage("--replication-slot is for a standby: say --as-follower-of, too")
		}
		return b, nil
	}
	host, port, err := SplitHostPort("as-follower-of", f.Upstream.Follow, 5432)
	if err != nil {
		return nil, err
	}
	if b.Upstream, err = f.Upstream.account(a, host, port); err != nil {
		return nil, err
	}
	b.upstream, err = f.standbyOf(b.Upstream)
	return b, err
}

// standbyOf asks an upstream as its standby will.
func (f *LoadFlags) standbyOf(up *dbdump.Upstream) (*postgres.Engine, error) {
	if strings.ContainsAny(up.Password+up.User+up.Host+up.CA+f.Upstream.Slot, "\r\n\x00") {
		return nil, Usage("an address, account or password of the upstream's has a line break in it, which the standby's configuration cannot hold")
	}
	o := postgres.Options{
		Address: net.JoinHostPort(up.Host, strconv.Itoa(up.Port)), User: up.User, Password: up.Password, ConnectTimeout: f.Server.ConnectTimeout,
	}
	if up.TLS { // the authorities' file is the standby's; here the server is not identified
		o.TLS = postgres.TLS{Required: true, SkipVerify: true}
	}
	e, err := postgres.New(o)
	if err != nil {
		return nil, Usage("--as-follower-of: %w", err)
	}
	return e, nil
}

// copies fills the job for claims that are filled with the files of a MariaDB or
// MySQL, on which its server is started in the seed pod.
func (f *RestoreFlags) copies(a *App, r *job.Restore) error {
	if f.Files.NoDevices || f.Files.NoXattrs || f.Files.NoOwner {
		return Usage("--no-owner, --no-devices and --no-xattrs do not go with --method %s: the files are those of one server, and belong to who fills the claim", f.Method)
	}
	if err := f.Server.try(a); err != nil {
		return err
	}
	script, arguments := mysql.PrepareCopy()
	r.Files.Adopt = &statefulset.Adoption{Script: script, Arguments: arguments, Container: f.CopyContainer}
	r.Files.Place = func(set statefulset.Set, _ record.Report) (statefulset.DataPlace, error) {
		return set.DataPlace(r.Seed.DiscoverOptions, statefulset.DataDirectory{Said: f.DataDirectory, Default: r.Seed.DataDir})
	}
	r.Files.Args = func(plan *job.RestorePlan, item job.RestoreItem, dir string) []string {
		return f.loadArgs(a, plan, item, dir)
	}
	r.Files.Base = func(job.RestoreItem) (job.Base, error) {
		return &copyBase{mysql.CopyRestore{Path: statefulset.WorkerPath, Workers: 1}}, nil
	}
	servers := &mysqlServers{app: a, server: &f.Server, upstream: &f.Upstream, copied: true, dataDir: orDefault(f.DataDirectory, f.endpoint().DataDir), log: onceLogger(a.Log)}
	r.Servers = servers
	return f.FromNothing.apply(r, servers)
}

// particular is a flag that was given and goes with directories alone; "" for none.
func (f *FileFlags) particular() string {
	switch {
	case len(f.Include) > 0:
		return "--include-path"
	case len(f.Exclude) > 0:
		return "--exclude-path"
	case f.NoDevices:
		return "--no-devices"
	case f.NoXattrs:
		return "--no-xattrs"
	}
	return ""
}

// particular is a flag that was given and goes with a server's files alone.
func (b *postgresBase) particular() string {
	switch {
	case b.Upstream != nil:
		return "--as-follower-of"
	case len(b.Tablespaces) > 0:
		return "--tablespace"
	}
	return ""
}
