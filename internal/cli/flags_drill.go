package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/mysql"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// DrillFlags are the flags of `restore drill`.
type DrillFlags struct {
	Repository RepositoryFlags
	Set        SetFlags
	FromSet    string
	Choice     ChoiceFlags
	Server     ServerFlags
	Metrics    MetricsFlags
	Target     string
	Ordinal    int
	Queries    []string
	Command    string
	AllowEmpty bool
	// AllowNoCoordinates takes followers without positions.
	AllowNoCoordinates bool
	NoProof            bool

	Container      string
	InitContainers []string
	Containers     []string
	SeedPatchFile  string
	Namespace      string
	StorageClass   string
	SeedTimeout    time.Duration
	LeaseDuration  time.Duration
}

// Add declares the flags.
func (f *DrillFlags) Add(fs *pflag.FlagSet) {
	f.Repository.AddProve(fs)
	f.Set.Add(fs)
	f.Choice.Add(fs)
	f.Choice.AddWhole(fs)
	f.Server.Add(fs, "target")
	f.Metrics.Add(fs)
	fs.StringVar(&f.FromSet, "from-set", "", "the set's [namespace/]name in the repository, where it is not --set's")
	fs.StringVar(&f.Target, "target", "", "without Kubernetes: an empty server to throw away, mysql://user@host:port")
	fs.IntVar(&f.Ordinal, "ordinal", job.PrimaryOrdinal, "which member of the backup (default -1: the one that a restore of the whole set loads)")
	fs.StringArrayVar(&f.Queries, "check-sql", nil, "query that must return a row whose first column is true, or not zero; repeatable, in the variable one a line")
	fs.StringVar(&f.Command, "check-command", "", "program that must end with 0, run here; KEEPSET_DRILL_HOST, _PORT, _USER and _PASSWORD tell it where the server is")
	fs.BoolVar(&f.AllowEmpty, "allow-empty", false, "a backup without rows is no finding")
	fs.BoolVar(&f.AllowNoCoordinates, "allow-no-coordinates", false, "followers whose positions were not recorded are no finding")
	fs.BoolVar(&f.NoProof, "no-proof", false, "say what was found, and store no proof of it")
	fs.StringVar(&f.Container, "container", "", "the database's container (default: the one with the database's port)")
	fs.StringSliceVar(&f.InitContainers, "init-container", nil, "init container that mounts a claim and runs in the drill's pod all the same; repeatable")
	fs.StringSliceVar(&f.Containers, "sidecar", nil, "container that runs beside the database in the drill's pod; repeatable")
	fs.StringVar(&f.SeedPatchFile, "seed-patch-file", "", "strategic merge patch of the drill's pod, YAML (or set KEEPSET_SEED_PATCH to its text)")
	fs.StringVar(&f.Namespace, "drill-namespace", "", "namespace of the drill's pod and claims, which has the Secrets and ConfigMaps that the pod names (default: the set's own)")
	fs.StringVar(&f.StorageClass, "drill-storage-class", "", "storage class of the drill's claims (default: that of the set's templates)")
	fs.DurationVar(&f.SeedTimeout, "seed-timeout", 10*time.Minute, "how long the drill's pod may take to start, its database to accept connections, and what is deleted to go")
	fs.DurationVar(&f.LeaseDuration, "lease-duration", statefulset.DefaultLeaseDuration, "how long a killed drill keeps the next one away")
}

// InCluster says whether the drill makes its server in Kubernetes.
func (f *DrillFlags) InCluster() bool { return f.Target == "" }

// Job makes the job. done releases what it holds and may be called twice.
func (f *DrillFlags) Job(ctx context.Context, a *App) (d *job.Drill, done func(), err error) {
	if f.Ordinal < job.PrimaryOrdinal {
		return nil, nil, Usage("--ordinal %d: want 0 or more", f.Ordinal)
	}
	d = &job.Drill{
		Engine: engineMySQL, Ordinal: f.Ordinal, AllowEmpty: f.AllowEmpty, AllowNoCoordinates: f.AllowNoCoordinates, NoProof: f.NoProof,
		Tool: Version(), Clock: a.Clock, Log: a.Log,
	}
	for _, lines := range f.Queries {
		for line := range strings.Lines(lines) {
			if q := strings.TrimSuffix(strings.TrimSpace(line), ";"); q != "" {
				d.Queries = append(d.Queries, q)
			}
		}
	}
	if d.Choice, err = f.Choice.Choice(); err != nil {
		return nil, nil, err
	}
	d.Choice.Whole = true
	if d.Ordinal != job.PrimaryOrdinal {
		d.Choice.Ordinals = []int{d.Ordinal}
	}
	servers, err := f.servers(a)
	if err != nil {
		return nil, nil, err
	}
	d.Open, d.Ready = servers.open, servers.ready
	if d.Command, err = f.command(a, servers); err != nil {
		return nil, nil, err
	}
	var cluster *statefulset.Client
	if f.InCluster() {
		if cluster, err = f.inCluster(ctx, a, d); err != nil {
			return nil, nil, err
		}
	} else {
		d.Place = job.GivenServer{Address: servers.server.Address}
	}
	if d.Repository, err = f.Repository.Open(ctx, a); err != nil {
		return nil, nil, err
	}
	if d.Set, err = f.from(ctx, a, d.Repository, cluster); err != nil {
		return nil, nil, err
	}
	progress, end := a.StartProgress()
	d.Progress = progress
	return d, sync.OnceFunc(end), nil
}

// from is the set's name in the repository.
func (f *DrillFlags) from(ctx context.Context, a *App, r *repository.Repository, cluster *statefulset.Client) (record.SetID, error) {
	if cluster == nil && f.FromSet == "" {
		return f.Set.Find(ctx, a, r)
	}
	namespace, name, err := f.Set.split()
	if err != nil {
		return record.SetID{}, err
	}
	if cluster != nil {
		namespace = cluster.Namespace()
	}
	return fromSet(f.FromSet, orDefault(namespace, record.NoNamespace), name)
}

// servers opens the server of a drill.
func (f *DrillFlags) servers(a *App) (*drillServers, error) {
	if engine := f.Server.engine(); engine != engineMySQL {
		return nil, Usage("--engine %s: drills are made for the engine mysql alone; restore load loads the others into a server that you look at yourself", engine)
	}
	s := &drillServers{app: a, flags: &f.Server, server: Server{Engine: engineMySQL, User: f.Server.User}}
	if !f.InCluster() {
		var err error
		if s.server, err = f.Server.ParseServerURL("target", f.Target); err != nil {
			return nil, err
		}
		if s.server.Engine != engineMySQL {
			return nil, Usage("--target: drills are made for the engine mysql alone; restore load loads the others into a server that you look at yourself")
		}
	} else {
		if s.server.User == "" {
			return nil, Usage("--target-user is required (or %s): the account that fills the database, which the image creates; without Kubernetes give --target %s", EnvName("target-user"), "mysql://user@host:port")
		}
		// Its volume is new: what the image has put there makes room.
		s.load = mysql.LoadOptions{Seed: true}
	}
	s.load.SkipBinlog, s.load.Isolated, s.load.SilentEvents, s.load.Accounts = true, true, true, mysql.AccountsReplace
	return s, f.Server.try(a)
}

// drillServers opens one server several times.
type drillServers struct {
	app    *App
	flags  *ServerFlags
	server Server
	load   mysql.LoadOptions
}

func (s *drillServers) engine(address string) (Engine, error) {
	server := s.server
	server.Address = address
	opts, err := s.flags.Options(s.app, server, onceLogger(s.app.Log))
	if err != nil {
		return nil, err
	}
	opts.MySQL.Load = s.load
	return OpenEngine(engineMySQL, opts)
}

func (s *drillServers) open(address string) (dbdump.Engine, error) { return s.engine(address) }

func (s *drillServers) ready(ctx context.Context, address string) error {
	engine, err := s.engine(address)
	if err != nil {
		return err
	}
	return errors.Join(engine.Ping(ctx), engine.Close())
}

// command makes what runs --check-command; nil without one. The program gets the
// server's address and account, and none of the keys and accounts that we have.
func (f *DrillFlags) command(a *App, s *drillServers) (func(context.Context, string) error, error) {
	if f.Command == "" {
		return nil, nil
	}
	words, err := command.ParseLine(f.Command)
	if err != nil {
		return nil, Usage("--check-command: %w", err)
	}
	password, err := a.Secret(f.Server.PasswordFile, f.Server.passwordVariable())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, address string) error {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Env = append(slices.DeleteFunc(a.Environ(), func(kv string) bool {
			return strings.HasPrefix(kv, Prefix) || strings.HasPrefix(kv, "AWS_")
		}), "KEEPSET_DRILL_HOST="+host, "KEEPSET_DRILL_PORT="+port, "KEEPSET_DRILL_USER="+s.server.User, "KEEPSET_DRILL_PASSWORD="+password)
		var said tail
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run %s: %w: %s", words[0], err, oneLine(said.String()))
		}
		return nil
	}, nil
}

// tail keeps the last bytes of what is written to it.
type tail struct{ kept []byte }

// tailBytes of a program's output are shown when it fails.
const tailBytes = 1 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailBytes; over > 0 {
		t.kept = slices.Delete(t.kept, 0, over)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.ToValidUTF8(strings.TrimSpace(string(t.kept)), "") }

// inCluster has the drill make its server in Kubernetes.
func (f *DrillFlags) inCluster(ctx context.Context, a *App, d *job.Drill) (*statefulset.Client, error) {
	client, name, err := f.Set.Cluster(a)
	if err != nil {
		return nil, err
	}
	form := RestoreFlags{InitContainers: f.InitContainers, Containers: f.Containers, SeedPatchFile: f.SeedPatchFile}
	seed, err := form.seed(a)
	if err != nil {
		return nil, err
	}
	run, err := client.Self(ctx, a.Getenv)
	if err != nil {
		return nil, err
	}
	d.Place = &job.DrillCluster{
		Cluster: client, Set: name, Run: run, Lease: statefulset.LeaseOptions{Duration: f.LeaseDuration},
		Spec: statefulset.DrillSpec{
			DiscoverOptions: endpointOf(engineMySQL, f.Container, f.Server.Port),
			InitContainers:  seed.InitContainers, Containers: seed.Containers, Patch: seed.Patch,
			Namespace: f.Namespace, StorageClass: f.StorageClass, StartTimeout: f.SeedTimeout,
		},
		Ready: d.Ready, ServerWait: f.SeedTimeout, Clock: a.Clock,
		Note: func(note string) { a.Log.Info("drill's pod", "note", note) },
	}
	return client, nil
}

// Event records on the set how a drill ended. Its failure is only logged.
func (f *DrillFlags) Event(ctx context.Context, a *App, d *job.Drill, warning bool, reason, message string) {
	place, ok := d.Place.(*job.DrillCluster)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	set, err := place.Cluster.Discover(ctx, place.Set, place.Spec.DiscoverOptions)
	if err == nil {
		err = place.Cluster.Event(ctx, set, warning, reason, oneLine(message))
	}
	if err != nil {
		a.Log.Warn("event not written", "error", err)
	}
}
