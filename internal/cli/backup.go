package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql"
	"keepset/internal/job"
	"keepset/internal/record"
)

// BackupFlags are the flags of `backup run`, and what turns them into a job.
type BackupFlags struct {
	Repository RepositoryFlags
	Set        SetFlags
	Server     ServerFlags
	Sources    []string
	Container  string
	Ordinals   string
	Role       string
	Parallel   int
	Shrink     int
	MaxLag     time.Duration
	AllowEmpty bool
	ID         string
	Origin     string

	events func(ctx context.Context, warning bool, reason, message string) error
}

// Add declares the flags.
func (f *BackupFlags) Add(fs *pflag.FlagSet) {
	f.Repository.AddWrite(fs)
	f.Set.Add(fs)
	f.Server.Add(fs, "source")
	f.Server.AddDump(fs)
	fs.StringSliceVar(&f.Sources, "source", nil, "server to back up without Kubernetes, mysql://user@host:port; repeatable, ordinal 0 first")
	fs.StringVar(&f.Container, "container", "", "the database's container in the set's pods (default: the one with the database's port)")
	fs.StringVar(&f.Ordinals, "ordinals", "", "back up only these ordinals, for example 0,2-4")
	fs.StringVar(&f.Role, "role", "any", "which members: any, or follower for those that replicate from another")
	fs.IntVar(&f.Parallel, "parallel", 2, "members captured at once")
	fs.IntVar(&f.Shrink, "shrink-threshold", 50, "percent by which rows, bytes or objects may fall before a member is suspect; 0 turns it off")
	fs.DurationVar(&f.MaxLag, "max-lag", time.Hour, "how far a follower may be behind before it is suspect; 0: any")
	fs.StringVar(&f.ID, "id", "", "continue the backup of this ID, which an earlier run did not finish (a Job's retries do so by themselves)")
	fs.StringVar(&f.Origin, "origin", "", "name of the cluster whose backups these are: another's are never mixed with them under one set (default: made from the cluster's certificate authority; none for plain servers)")
	fs.BoolVar(&f.AllowEmpty, "allow-empty", false, "a member without tables or rows is not suspect")
}

// Job makes the job. done releases what it holds and may be called twice.
func (f *BackupFlags) Job(ctx context.Context, a *App) (b *job.Backup, done func(), err error) {
	if f.Role != "any" && f.Role != job.RoleFollower {
		return nil, nil, Usage("--role %q is not one of any, follower", f.Role)
	}
	if f.Shrink < 0 || f.Shrink > 100 || f.Parallel < 1 {
		return nil, nil, Usage("--shrink-threshold wants 0 to 100 and --parallel at least 1")
	}
	b = &job.Backup{
		FollowersOnly: f.Role == job.RoleFollower, Parallel: f.Parallel,
		Rules: job.SuspectRules{ShrinkPercent: f.Shrink, MaxLag: f.MaxLag, AllowEmpty: f.AllowEmpty},
		Plan:  record.Plan{Method: record.MethodDump, Engine: f.Server.Engine, Databases: f.Server.patterns(), Origin: f.Origin, Tool: Version()},
		Clock: a.Clock, Log: a.Log,
	}
	if b.Ordinals, err = job.ParseOrdinals(f.Ordinals); err != nil {
		return nil, nil, Usage("--%w", err)
	}
	// What is wrong with the account or the server's flags is said once, before
	// a plan is written.
	if err := f.Server.try(a); err != nil {
		return nil, nil, err
	}
	if len(f.Sources) > 0 {
		err = f.plain(a, b)
	} else {
		err = f.inCluster(ctx, a, b)
	}
	if err != nil {
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
	progress, end := a.StartProgress()
	b.Progress = progress
	return b, sync.OnceFunc(end), nil
}

// plain fills the job for servers given by --source.
func (f *BackupFlags) plain(a *App, b *job.Backup) error {
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
		servers[s.Address] = s
		addresses = append(addresses, s.Address)
	}
	b.Set = id
	b.ID = record.NewBackupID(a.Clock(), "")
	b.Attempt = record.NewAttemptID()
	b.Discover = job.Sources(addresses)
	f.engines(a, b, func(m job.Member) Server { return servers[m.Address] })
	return nil
}

// inCluster fills the job for a StatefulSet, from a Job's pod or from outside.
func (f *BackupFlags) inCluster(ctx context.Context, a *App, b *job.Backup) error {
	client, name, err := f.Set.Cluster(a)
	if err != nil {
		return err
	}
	if f.Server.User == "" {
		return Usage("--source-user is required (or %s): the account that reads the databases", EnvName("source-user"))
	}
	run, err := client.Self(ctx, a.Getenv)
	if err != nil {
		return err
	}
	b.Set = record.SetID{Namespace: client.Namespace(), Name: name}
	if f.Origin == "" {
		if b.Plan.Origin, err = client.Origin(); err != nil {
			return err
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
	b.Discover = job.FromCluster(client, name, endpointOf(f.Container, f.Server.Port))
	f.engines(a, b, func(m job.Member) Server {
		return Server{Engine: f.Server.Engine, Address: m.Address, User: f.Server.User}
	})
	f.events = func(ctx context.Context, warning bool, reason, message string) error {
		set, err := client.Discover(ctx, name, endpointOf(f.Container, f.Server.Port))
		if err != nil {
			return err
		}
		return client.Event(ctx, set, warning, reason, message)
	}
	return nil
}

// engines tells the job how to dump a member and how to ask for its role.
func (f *BackupFlags) engines(a *App, b *job.Backup, where func(job.Member) Server) {
	open := func(m job.Member) (*mysql.Engine, error) {
		s := where(m)
		opts, err := f.Server.MySQL(a, s, a.Log.With("ordinal", m.Ordinal))
		if err != nil {
			return nil, err
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
