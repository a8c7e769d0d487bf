package cli

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// RestoreFlags are the flags of `restore plan` and `restore run`.
type RestoreFlags struct {
	Repository     RepositoryFlags
	Set            SetFlags
	FromSet        string
	Choice         ChoiceFlags
	Server         ServerFlags
	Upstream       UpstreamFlags
	Volumes        VolumeFlags
	Metrics        MetricsFlags
	FromNothing    FromNothingFlags
	Method         string
	DataDirectory  string
	Tablespaces    []string
	Workers        WorkerFlags
	Files          FileFlags
	Request        job.Request
	Container      string
	CopyContainer  string
	InitContainers []string
	Containers     []string
	ClaimTemplates []string
	SeedPatchFile  string
	ForcePod       bool
	SeedTimeout    time.Duration
	ReadyTimeout   time.Duration
	BackupTimeout  time.Duration
	LeaseDuration  time.Duration
	LeaseWait      time.Duration

	// events writes an Event on the set, once it is known where that is.
	events func(ctx context.Context, warning bool, reason, message string) error
	// given are all flags.
	given *pflag.FlagSet
}

// Add declares the flags.
func (f *RestoreFlags) Add(fs *pflag.FlagSet) {
	f.given = fs
	f.Repository.AddRead(fs)
	f.Set.Add(fs)
	f.Choice.Add(fs)
	f.Choice.AddWhole(fs)
	f.Server.Add(fs, "target")
	f.Upstream.Add(fs, "host:port of the upstream, or none (default: the set's member that the backed-up server followed, else its first ordinal)")
	f.Volumes.AddProvision(fs)
	f.Metrics.Add(fs)
	f.FromNothing.Add(fs)
	fs.StringVar(&f.Method, "method", "", "files or physical: fill claims with the files of a backup by that method (default: a database is filled, from a dump or a snapshot)")
	fs.StringVar(&f.DataDirectory, "data-directory", "", "with --method physical: where the database's container has its files (default: what its variable PGDATA says, else /var/lib/postgresql/data, from version 18 on /var/lib/postgresql/18/docker; /var/lib/mysql)")
	fs.StringArrayVar(&f.Tablespaces, "tablespace", nil, "with --method physical: where the database's container will have a tablespace, /old=/new, on the claim of its data directory (default: where it was); repeatable, in the variable one a line")
	fs.StringVar(&f.Upstream.Slot, "replication-slot", "", "with --method physical: slot of the upstream's that keeps the log for a standby of PostgreSQL; "+job.SlotOrdinal+" in it stands for the ordinal")
	f.Workers.Add(fs)
	f.Files.addLenience(fs)
	fs.StringVar(&f.FromSet, "from-set", "", "the set's [namespace/]name in the repository, where it is not --set's")
	q := &f.Request
	fs.IntVar(&q.Replicas, "replicas", 0, "scale the set up to as many replicas, each new one seeded")
	fs.IntSliceVar(&q.Ordinals, "ordinal", nil, "recover this ordinal in place; repeatable")
	fs.BoolVar(&q.All, "all", false, "restore the whole set, which stands at zero replicas")
	fs.BoolVar(&q.Replace, "replace", false, "delete what the ordinals' claims hold (a volume goes by its reclaim policy)")
	fs.BoolVar(&q.Keep, "keep", false, "let pods come up on claims that exist, as they are")
	fs.IntVar(&q.Base, "base", -1, "which member of the backup is loaded (default: the healthiest follower's for followers, the primary's for a whole set, the ordinal's own for who follows nobody)")
	fs.BoolVar(&q.AllowRollback, "allow-rollback", false, "restore a primary although followers live on")
	fs.BoolVar(&q.AllowSmallClaim, "allow-small-claim", false, "with --method: fill claims that ask for less than the files have, where the storage gives more, or compresses")
	fs.StringVar(&f.Container, "container", "", "the database's container (default: the one with the database's port)")
	addCopyContainer(fs, &f.CopyContainer)
	fs.StringSliceVar(&f.InitContainers, "init-container", nil, "init container that mounts a claim and runs in the seed pod all the same; repeatable")
	fs.StringSliceVar(&f.Containers, "sidecar", nil, "container that runs beside the database in the seed pod; repeatable")
	fs.StringSliceVar(&f.ClaimTemplates, "claim-template", nil, "claim templates to fill (default: those that the database's container mounts)")
	fs.StringVar(&f.SeedPatchFile, "seed-patch-file", "", "strategic merge patch of the seed pod, YAML (or set KEEPSET_SEED_PATCH to its text)")
	fs.BoolVar(&f.ForcePod, "force-pod", false, "delete the ordinal's pod without waiting for its node, which is known to be dead")
	fs.DurationVar(&f.SeedTimeout, "seed-timeout", 10*time.Minute, "how long a seed pod may take to start and its database to accept connections")
	fs.DurationVar(&f.ReadyTimeout, "ready-timeout", 10*time.Minute, "how long the real pod may take to become Ready")
	fs.DurationVar(&f.BackupTimeout, "backup-timeout", time.Hour, "how long to wait for a running backup to end")
	fs.DurationVar(&f.LeaseDuration, "lease-duration", statefulset.DefaultLeaseDuration, "how long a killed restore keeps the set busy")
	fs.DurationVar(&f.LeaseWait, "lease-wait", 0, "how long to wait for another restore to end")
}

// Job makes the job.
func (f *RestoreFlags) Job(ctx context.Context, a *App) (*job.Restore, error) {
	client, name, err := f.Set.Cluster(a)
	if err != nil {
		return nil, err
	}
	if err := f.checkMethod(); err != nil {
		return nil, err
	}
	f.events = func(ctx context.Context, warning bool, reason, message string) error {
		set, err := client.Discover(ctx, name, f.endpoint())
		if err != nil {
			return err
		}
		return client.Event(ctx, set, warning, reason, message)
	}
	r := &job.Restore{
		Cluster: client, Set: name, Request: f.Request, Lease: statefulset.LeaseOptions{Duration: f.LeaseDuration, Wait: f.LeaseWait},
		BackupWait: f.BackupTimeout, ServerWait: f.SeedTimeout, ReadyWait: f.ReadyTimeout,
		Clock: a.Clock, Log: a.Log,
	}
	if r.Choice, err = f.Choice.Choice(); err != nil {
		return nil, err
	}
	if r.Request.Follow, err = f.Upstream.address(endpointOf(f.Server.engine(), "", 0).DefaultPort); err != nil {
		return nil, err
	}
	if r.Seed, err = f.seed(a); err != nil {
		return nil, err
	}
	if r.From, err = fromSet(f.FromSet, client.Namespace(), name); err != nil {
		return nil, err
	}
	if f.Method == record.MethodFiles || f.Method == record.MethodPhysical {
		err = f.files(a, r)
	} else {
		err = f.servers(ctx, a, r)
	}
	if err != nil {
		return nil, err
	}
	if r.Repository, err = f.Repository.Open(ctx, a); err != nil {
		return nil, err
	}
	r.Run, err = client.Self(ctx, a.Getenv)
	return r, err
}

// checkMethod refuses what can be filled neither with files nor as a database.
func (f *RestoreFlags) checkMethod() error {
	if (len(f.Tablespaces) > 0 || f.Upstream.Slot != "") && (f.Method != record.MethodPhysical || f.Server.engine() != enginePostgres) {
		return Usage("--tablespace and --replication-slot are for the files of PostgreSQL: say --engine %s and --method %s, or leave them out", enginePostgres, record.MethodPhysical)
	}
	if err := checkCopyContainer(f.CopyContainer, f.Method, f.Server.engine(), false); err != nil {
		return err
	}
	switch f.Method {
	case record.MethodFiles:
		return nil
	case record.MethodPhysical:
		if f.Server.engine() == enginePostgres {
			return nil
		}
	case "", record.MethodDump, record.MethodSnapshot:
	default:
		return Usage("--method %q is not one of %s, %s, %s, %s", f.Method, record.MethodDump, record.MethodSnapshot, record.MethodFiles, record.MethodPhysical)
	}
	if f.Server.User == "" {
		return Usage("--target-user is required (or %s): the account that fills the databases, which the image creates", EnvName("target-user"))
	}
	if f.Server.engine() != engineMySQL {
		return Usage("--engine %s: ordinals are seeded from dumps and snapshots for the engine mysql alone; seed them from a base backup (--method %s), or start the set and fill its server with `restore load`", f.Server.engine(), record.MethodPhysical)
	}
	return nil
}

// servers fills the job for databases.
func (f *RestoreFlags) servers(ctx context.Context, a *App, r *job.Restore) (err error) {
	if err := f.Server.try(a); err != nil {
		return err
	}
	if r.Volumes, err = f.Volumes.Opener(ctx, a, r.Cluster); err != nil {
		return err
	}
	servers := &mysqlServers{app: a, server: &f.Server, upstream: &f.Upstream, replace: f.Request.Replace, log: onceLogger(a.Log)}
	r.Servers = servers
	return f.FromNothing.apply(r, servers)
}

// fromSet is the set's name in the repository: what --from-set says, else the
// name that it has here.
func fromSet(from, namespace, name string) (record.SetID, error) {
	if from == "" {
		return record.SetID{Namespace: namespace, Name: name}, nil
	}
	other := SetFlags{Name: from}
	ns, name, err := other.split()
	if err != nil {
		return record.SetID{}, Usage("--from-%w", err)
	}
	return record.SetID{Namespace: orDefault(ns, namespace), Name: name}, nil
}

// seed reads the form of the seed pods.
func (f *RestoreFlags) seed(a *App) (statefulset.SeedSpec, error) {
	spec := statefulset.SeedSpec{
		DiscoverOptions: f.endpoint(),
		InitContainers:  f.InitContainers, Containers: f.Containers, ClaimTemplates: f.ClaimTemplates,
		ForcePod: f.ForcePod, StartTimeout: f.SeedTimeout,
		Patch: []byte(a.Getenv(EnvName("seed-patch"))),
	}
	if f.SeedPatchFile != "" {
		patch, err := os.ReadFile(f.SeedPatchFile)
		if err != nil {
			return spec, Usage("--seed-patch-file: %w", err)
		}
		spec.Patch = patch
	}
	if len(spec.Patch) == 0 {
		spec.Patch = nil
	}
	return spec, nil
}

func (f *RestoreFlags) endpoint() statefulset.DiscoverOptions {
	if f.Method == record.MethodFiles {
		return statefulset.DiscoverOptions{NoServer: true}
	}
	return endpointOf(f.Server.engine(), f.Container, f.Server.Port)
}

// endpointOf says which container of the pods is the database. MySQL and
// MariaDB images keep their files in one and the same place; so do those of
// PostgreSQL, but for the version.
func endpointOf(engine, container string, port int) statefulset.DiscoverOptions {
	if engine == enginePostgres {
		return statefulset.DiscoverOptions{Container: container, Port: port, PortName: "postgres", DefaultPort: 5432, DataDir: "/var/lib/postgresql/data"}
	}
	return statefulset.DiscoverOptions{Container: container, Port: port, PortName: "mysql", DefaultPort: 3306, DataDir: "/var/lib/mysql"}
}

// mysqlServers opens the servers of a restore.
type mysqlServers struct {
	app      *App
	server   *ServerFlags
	upstream *UpstreamFlags
	// replace is the consent to lose what a seed's claim holds.
	replace bool
	log     *slog.Logger
	// copied: the servers have come up on files that were copied by --method physical.
	copied bool
	// dataDir is where those files are in the container.
	dataDir string
	// dial reaches the pods where the network does not; nil where it does.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (s *mysqlServers) options(address string) (EngineOptions, error) {
	o, err := s.server.Options(s.app, Server{Engine: engineMySQL, Address: address, User: s.server.User}, s.log)
	o.MySQL.Dial = s.dial
	return o, err
}

// Target implements job.Servers. A seed is loaded without writing its binary
// log. Its claim was made for it: what the image and its scripts have put there,
// databases and accounts, makes room for those of the backup; data that is not
// in the backup does so with the user's consent only.
func (s *mysqlServers) Target(address string, follower bool) (dbdump.Engine, error) {
	opts, err := s.options(address)
	if err != nil {
		return nil, err
	}
	opts.MySQL.Load = mysql.LoadOptions{Follower: follower, Seed: true, Replace: s.replace, SkipBinlog: true, Isolated: true, Accounts: mysql.AccountsReplace, Copied: s.copied, DataDirectory: s.dataDir}
	return OpenEngine(engineMySQL, opts)
}

// Ready implements job.Servers.
func (s *mysqlServers) Ready(ctx context.Context, address string) error {
	opts, err := s.options(address)
	if err != nil {
		return err
	}
	engine, err := OpenEngine(engineMySQL, opts)
	if err != nil {
		return err
	}
	return errors.Join(engine.Ping(ctx), engine.Close())
}

// Upstream implements job.Servers.
func (s *mysqlServers) Upstream(address string) (dbdump.Upstream, error) {
	host, port, err := SplitHostPort("as-follower-of", address, 0)
	if err != nil {
		return dbdump.Upstream{}, err
	}
	up, err := s.upstream.account(s.app, host, port)
	if err != nil {
		return dbdump.Upstream{}, err
	}
	return *up, nil
}

// Event records on the set how a restore ended. Its failure is only logged.
func (f *RestoreFlags) Event(ctx context.Context, a *App, warning bool, reason, message string) {
	if f.events == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := f.events(ctx, warning, reason, oneLine(message)); err != nil {
		a.Log.Warn("event not written", "error", err)
	}
}
