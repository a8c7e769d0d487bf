package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// BackupFlags are the flags of `backup run`, and what turns them into a job.
type BackupFlags struct {
	Repository RepositoryFlags
	Set        SetFlags
	Server     ServerFlags
	Volumes    VolumeFlags
	Command    CommandFlags
	Files      FileFlags
	Workers    WorkerFlags
	Metrics    MetricsFlags
	Method     string
	Sources    []string
	// ClaimTemplate and WorkerTimeout are of workers, which read files in the
	// cluster.
	ClaimTemplate string
	WorkerTimeout time.Duration
	Container     string
	CopyContainer string
	Ordinals      string
	Role          string
	Parallel      int
	Shrink        int
	MaxLag        time.Duration
	AllowEmpty    bool
	ID            string
	Origin        string
	Objects       bool
	Secrets       bool
	Labels        []string

	events func(ctx context.Context, warning bool, reason, message string) error
}

// Add declares the flags.
func (f *BackupFlags) Add(fs *pflag.FlagSet) {
	f.Repository.AddWrite(fs)
	f.Set.Add(fs)
	f.Server.Add(fs, "source")
	f.Server.AddDump(fs)
	fs.StringVar(&f.Method, "method", record.MethodDump, "how members are captured: dump (rows), physical (the server's files: of PostgreSQL by its replication protocol, of MariaDB by mariadb-backup, of MySQL by xtrabackup), snapshot (their volumes, in Kubernetes), or files (of their claims, or of directories)")
	f.Volumes.AddCut(fs)
	f.Command.Add(fs, "program whose standard output is the backup, for --engine command, run in the set's --container or, with --source local, here")
	f.Command.AddDump(fs)
	f.Files.AddSave(fs)
	f.addWorkers(fs)
	f.Metrics.Add(fs)
	fs.StringSliceVar(&f.Sources, "source", nil, "server to back up without Kubernetes, mysql://user@host:port or postgres://user@host:port; local[:NAME] for --command; with --method files a directory, file:///dir; repeatable, ordinal 0 first")
	fs.StringVar(&f.Container, "container", "", "the database's container in the set's pods (default: the one with the database's port)")
	addCopyContainer(fs, &f.CopyContainer)
	fs.StringVar(&f.Ordinals, "ordinals", "", "back up only these ordinals, for example 0,2-4")
	fs.StringVar(&f.Role, "role", "any", "which members: any, or follower for those that replicate from another")
	fs.IntVar(&f.Parallel, "parallel", 2, "members captured at once")
	fs.IntVar(&f.Shrink, "shrink-threshold", 50, "percent by which rows, bytes or objects may fall before a member is suspect; 0 turns it off")
	fs.DurationVar(&f.MaxLag, "max-lag", time.Hour, "how far a follower may be behind before it is suspect; 0: any")
	fs.StringSliceVar(&f.Labels, "label", nil, "label of the backup, key=value, for lists and for prunes with --keep-label; repeatable")
	fs.StringVar(&f.ID, "id", "", "continue the backup of this ID, which an earlier run did not finish (a Job's retries do so by themselves)")
	fs.StringVar(&f.Origin, "origin", "", "name of the cluster whose backups these are: another's are never mixed with them under one set (default: made from the cluster's certificate authority; none for plain servers)")
	fs.BoolVar(&f.Objects, "objects", true, "keep the set's Kubernetes objects with its data: itself, its Services, ConfigMaps and so on")
	fs.BoolVar(&f.Secrets, "with-secrets", false, "keep the Secrets that the set's pods name, too; only in an encrypted repository")
	fs.BoolVar(&f.AllowEmpty, "allow-empty", false, "a member without tables or rows is not suspect")
}

// Job makes the job. done releases what it holds and may be called twice.
func (f *BackupFlags) Job(ctx context.Context, a *App) (b *job.Backup, done func(), err error) {
	if f.Role != "any" && f.Role != job.RoleFollower {
		return nil, nil, Usage("--role %q is not one of any, follower", f.Role)
	}
	if methods := []string{record.MethodDump, record.MethodPhysical, record.MethodSnapshot, record.MethodFiles}; !slices.Contains(methods, f.Method) {
		return nil, nil, Usage("--method %q is not one of %s", f.Method, strings.Join(methods, ", "))
	}
	if len(f.Files.planned()) > 0 && f.Method != record.MethodFiles {
		return nil, nil, Usage("--include-path and --exclude-path go with --method %s", record.MethodFiles)
	}
	if f.Workers.FromSnapshot && f.Method != record.MethodFiles {
		return nil, nil, Usage("--from-snapshot goes with --method %s", record.MethodFiles)
	}
	if f.Secrets && (!f.Objects || len(f.Sources) > 0 && a.Getenv(envWorker) == "") {
		return nil, nil, Usage("--with-secrets is for the objects of a StatefulSet: it goes with neither --objects=false nor --source")
	}
	if err := checkCopyContainer(f.CopyContainer, f.Method, f.Server.engine(), len(f.Sources) > 0); err != nil {
		return nil, nil, err
	}
	if f.Method == record.MethodSnapshot && (len(f.Sources) > 0 || len(f.Server.patterns()) > 0) {
		return nil, nil, Usage("--method snapshot captures whole volumes of a StatefulSet: it goes with neither --source, --database nor --exclude")
	}
	if f.Shrink < 0 || f.Shrink > 100 || f.Parallel < 1 {
		return nil, nil, Usage("--shrink-threshold wants 0 to 100 and --parallel at least 1")
	}
	b = &job.Backup{
		FollowersOnly: f.Role == job.RoleFollower, Parallel: f.Parallel,
		Rules: job.SuspectRules{ShrinkPercent: f.Shrink, MaxLag: f.MaxLag, AllowEmpty: f.AllowEmpty},
		Plan:  record.Plan{Method: record.MethodDump, Engine: f.Server.engine(), Databases: f.Server.patterns(), Origin: f.Origin, Tool: Version()},
		Clock: a.Clock, Log: a.Log,
	}
	if b.Plan.Labels, err = record.ParseLabels(f.Labels); err != nil {
		return nil, nil, Usage("--label: %w", err)
	}
	if b.Ordinals, err = job.ParseOrdinals(f.Ordinals); err != nil {
		return nil, nil, Usage("--%w", err)
	}
	if err := f.fill(ctx, a, b); err != nil {
		return nil, nil, err
	}
	if f.ID != "" {
		if b.ID, err = record.ParseBackupID(f.ID); err != nil {
			return nil, nil, Usage("--id: %w", err)
		}
	}
	if b.Repository, err = f.Repository.Open(ctx, a); err != nil {
		return nil, nil, err
	}
	if f.Secrets && !b.Repository.Encrypted() {
		return nil, nil, Usage("--with-secrets: the repository is not encrypted, so that whoever may read the bucket could read the Secrets; make an encrypted one (backup keygen, backup init), or leave --with-secrets out")
	}
	progress, end := a.StartProgress()
	b.Progress = progress
	return b, sync.OnceFunc(end), nil
}

// fill fills the job for what is backed up, and from where.
func (f *BackupFlags) fill(ctx context.Context, a *App, b *job.Backup) error {
	if err := f.checkEngine(a); err != nil {
		return err
	}
	switch {
	case f.Method == record.MethodFiles:
		return f.files(ctx, a, b)
	case len(f.Sources) > 0:
		return f.plain(a, b)
	default:
		return f.inCluster(ctx, a, b)
	}
}

// checkEngine refuses flags that are another engine's.
func (f *BackupFlags) checkEngine(a *App) error {
	if f.Server.Engine == command.Name {
		return f.checkCommand(a)
	}
	return f.Command.unused(f.Server.engine())
}

// Named is the set's name in the repository, where it can be told before anybody
// is asked: that of plain servers, and in a pod.
func (f *BackupFlags) Named(a *App) (record.SetID, bool) {
	id, err := f.Set.ID(a)
	return id, err == nil && (len(f.Sources) > 0 || id.Namespace != record.NoNamespace)
}

// plain fills the job for servers given by --source.
func (f *BackupFlags) plain(a *App, b *job.Backup) error {
	if f.Server.Engine == command.Name {
		return f.plainCommand(a, b)
	}
	id, err := f.Set.ID(a)
	if err != nil {
		return err
	}
	servers := map[string]Server{}
	addresses := make([]string, 0, len(f.Sources))
	for _, raw := range f.Sources {
		s, err := f.Server.ParseServerURL("source", raw)
		if err != nil {
			return err
		}
		if _, twice := servers[s.Address]; twice {
			return Usage("--source %s is given twice", s.Address)
		}
		if len(addresses) > 0 && s.Engine != servers[addresses[0]].Engine {
			return Usage("--source %s is %s and the one before is not: the servers of a set are of one engine", s.Address, s.Engine)
		}
		servers[s.Address] = s
		addresses = append(addresses, s.Address)
	}
	f.Server.Engine = servers[addresses[0]].Engine
	if err := f.Server.try(a); err != nil {
		return err
	}
	b.Set = id
	b.Plan.Engine = f.Server.engine()
	b.ID = record.NewBackupID(a.Clock(), "")
	b.Attempt = record.NewAttemptID()
	b.Discover = job.Sources(addresses)
	f.engines(a, b, func(m job.Member) Server { return servers[m.Address] }, nil)
	if f.Method == record.MethodPhysical {
		return f.physical(b)
	}
	return nil
}

// inCluster fills the job for a StatefulSet, from a Job's pod or from outside.
func (f *BackupFlags) inCluster(ctx context.Context, a *App, b *job.Backup) error {
	// What is wrong with the account or the server's flags is said once, before
	// a plan is written.
	if f.Server.Engine != command.Name {
		if err := f.Server.try(a); err != nil {
			return err
		}
	}
	at := endpointOf(f.Server.engine(), f.Container, f.Server.Port)
	client, _, err := f.reach(ctx, a, b, at)
	if err != nil {
		return err
	}
	if f.Server.Engine == command.Name {
		if err := f.Command.remote(false); err != nil {
			return err
		}
	} else if f.Server.User == "" && (f.Method == record.MethodDump || f.Method == record.MethodPhysical || f.Volumes.Quiesce == quiesceEngine) {
		return Usage("--source-user is required (or %s): the account that reads the databases", EnvName("source-user"))
	}
	b.Discover = job.FromCluster(client, b.Set.Name, at)
	if f.Server.Engine == command.Name {
		b.Open = f.openCommand(a, func(m job.Member) command.Exec { return inContainer(client, m.Name, m.Container) })
		if err := f.Command.choose(b); err != nil {
			return err
		}
	} else {
		f.engines(a, b, func(m job.Member) Server {
			return Server{Engine: f.Server.engine(), Address: m.Address, User: f.Server.User}
		}, func(m job.Member) execFunc { return execIn(client, m, f.CopyContainer) })
	}
	if f.Method == record.MethodPhysical {
		return f.physical(b)
	}
	if f.Method == record.MethodSnapshot {
		if err := f.Volumes.cuts(ctx, a, client, b); err != nil {
			return err
		}
	}
	return nil
}

// reach connects to the cluster and fills in what a backup of a StatefulSet is
// called, whose attempt it is, and who may hold the set. The pods are found by at.
func (f *BackupFlags) reach(ctx context.Context, a *App, b *job.Backup, at statefulset.DiscoverOptions) (*statefulset.Client, statefulset.Run, error) {
	client, name, err := f.Set.Cluster(a)
	if err != nil {
		return nil, statefulset.Run{}, err
	}
	f.events = func(ctx context.Context, warning bool, reason, message string) error {
		set, err := client.Discover(ctx, name, at)
		if err != nil {
			return err
		}
		return client.Event(ctx, set, warning, reason, message)
	}
	run, err := client.Self(ctx, a.Getenv)
	if err != nil {
		return nil, run, err
	}
	b.Set = record.SetID{Namespace: client.Namespace(), Name: name}
	if f.Origin == "" {
		if b.Plan.Origin, err = client.Origin(); err != nil {
			return nil, run, err
		}
		// A kubeconfig may go through a proxy with an authority of its own.
		f.Repository.GuessedOrigin = run.Local
	}
	b.ID = record.NewBackupID(run.Created, run.JobUID)
	b.Attempt = record.AttemptID(run.PodUID)
	if run.Local {
		b.ID, b.Attempt = record.NewBackupID(a.Clock(), ""), record.NewAttemptID()
	}
	if run.Index >= 0 {
		b.Share = job.Share{Index: run.Index, Of: run.Completions}
	}
	b.Guard = &job.LeaseGuard{Client: client, Set: name}
	if f.Objects {
		b.Objects = func(ctx context.Context) (statefulset.Objects, error) { return client.Objects(ctx, name, f.Secrets) }
	}
	return client, run, nil
}

// engines tells the job how to dump a member and how to ask for its role.
// exec is what a member's programs are run by, where that is not here.
func (f *BackupFlags) engines(a *App, b *job.Backup, where func(job.Member) Server, exec func(job.Member) execFunc) {
	open := func(m job.Member) (Engine, error) {
		s := where(m)
		opts, err := f.Server.Options(a, s, a.Log.With("ordinal", m.Ordinal))
		if err != nil {
			return nil, err
		}
		if exec != nil {
			opts.runBy(exec(m))
		}
		return OpenEngine(s.Engine, opts)
	}
	b.Open = func(m job.Member) (dbdump.Engine, error) { return open(m) }
	if b.FollowersOnly {
		b.Role = func(ctx context.Context, m job.Member) (string, error) {
			e, err := open(m)
			if err != nil {
				return "", err
			}
			return roleOf(ctx, e)
		}
	}
}

// Failed reports a run that ended before it began: the store, say, could not be opened.
func (f *BackupFlags) Failed(ctx context.Context, a *App, err error) {
	f.emit(context.WithoutCancel(ctx), a.Log, true, "BackupFailed", err.Error())
}

// Finish reports how the run ended: result, Event on the set, termination
// message. Nothing that goes wrong here changes how the run ended.
func (f *BackupFlags) Finish(ctx context.Context, a *App, r *job.BackupReport, runErr error, text func(io.Writer, *job.BackupReport) error) error {
	ctx = context.WithoutCancel(ctx)
	if r.Status == "" {
		f.emit(ctx, a.Log, true, "BackupFailed", runErr.Error())
		return runErr
	}
	a.SetMessage(r.Summary())
	if err := a.Print(r, func(w io.Writer) error { return text(w, r) }); err != nil && runErr == nil {
		runErr = err
	}
	if runErr != nil {
		f.emit(ctx, a.Log, true, eventReason(r), runErr.Error())
		return runErr
	}
	f.emit(ctx, a.Log, false, eventReason(r), r.Summary())
	return nil
}

func eventReason(r *job.BackupReport) string {
	switch r.Status {
	case job.StatusComplete:
		if r.Partial() {
			return "BackupShareComplete" // whether the whole is, no single pod knows
		}
		return "BackupComplete"
	case job.StatusIncomplete:
		return "BackupIncomplete"
	case job.StatusSuspect:
		return "BackupSuspect"
	case job.StatusBusy:
		return "BackupBusy"
	default:
		return "BackupFailed"
	}
}

// emit writes an Event on the set, with a bound on how long that may take.
func (f *BackupFlags) emit(ctx context.Context, log *slog.Logger, warning bool, reason, message string) {
	if f.events == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := f.events(ctx, warning, reason, oneLine(message)); err != nil {
		log.Warn("event not written", "error", fmt.Sprint(err))
	}
}
