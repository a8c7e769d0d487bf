package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/filetree"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// envWorker holds the ordinal that a worker works for. It comes from the run that
// has started the worker, and is no flag.
const envWorker = Prefix + "WORKER"

// WorkerFlags say as whom a set's files are read or written in the cluster.
type WorkerFlags struct {
	UID, GID int64
	Root     bool
}

// Add declares the flags.
func (f *WorkerFlags) Add(fs *pflag.FlagSet) {
	fs.Int64Var(&f.UID, "worker-uid", 0, "with --method files in the cluster: the user that the files belong to (default: the one that the set's pods run as by runAsUser)")
	fs.Int64Var(&f.GID, "worker-gid", 0, "the group that the files belong to (default: runAsGroup of the set's pods, or their fsGroup, or the number of the user)")
	fs.BoolVar(&f.Root, "worker-root", false, "files of several owners: work as root, with DAC_READ_SEARCH to read them, which pod security has to allow, or with what it takes to give them back")
}

// spec is the form of the workers.
func (f *WorkerFlags) spec(template string) (statefulset.WorkerSpec, error) {
	if f.UID < 0 || f.GID < 0 || f.Root && f.UID+f.GID != 0 {
		return statefulset.WorkerSpec{}, Usage("--worker-uid and --worker-gid want a number above 0, and do not go with --worker-root")
	}
	return statefulset.WorkerSpec{Template: template, UID: f.UID, GID: f.GID, Root: f.Root}, nil
}

// ofSet fills the job for the files of a StatefulSet's claims.
func (f *BackupFlags) ofSet(ctx context.Context, a *App, b *job.Backup) error {
	spec, err := f.Workers.spec(f.ClaimTemplate)
	if err != nil {
		return err
	}
	if f.Files.OneFileSystem { // a claim is one
		return Usage("--one-file-system goes with --source")
	}
	if _, err := f.Files.patterns(); err != nil {
		return err
	}
	client, run, err := f.reach(ctx, a, b, statefulset.DiscoverOptions{NoServer: true})
	if err != nil {
		return err
	}
	if own := a.Getenv(EnvName("pod-namespace")); !run.Local && own != "" && own != client.Namespace() {
		return Usage("--method files: the workers belong to the backup's Job, which has to be in the set's namespace %s, and this one is in %s", client.Namespace(), own)
	}
	b.Plan.Method, b.Plan.Engine, b.Plan.Paths = record.MethodFiles, "", f.Files.planned()
	b.Workers = &job.FileWorkers{
		Cluster: client, Set: b.Set.Name, Spec: spec, Run: run, Fuzzy: f.Files.Fuzzy, StartTimeout: f.WorkerTimeout,
		Env: workerEnv, Out: &lineWriter{to: a.Err},
	}
	b.Discover = b.Workers.Discover
	return nil
}

// workerEnv is what a worker is told besides the environment and arguments of the
// run. The run alone leaves metrics, of all members.
func workerEnv(id record.BackupID, ordinal int) map[string]string {
	return map[string]string{
		envWorker: strconv.Itoa(ordinal), EnvName("id"): string(id),
		EnvName("source"):       "file://" + statefulset.WorkerPath,
		EnvName("metrics-push"): "", EnvName("metrics-file"): "",
	}
}

// asWorker fills the job of a worker: one member of a plan that is stored.
func (f *BackupFlags) asWorker(ctx context.Context, a *App, b *job.Backup) error {
	ordinal, err := strconv.Atoi(a.Getenv(envWorker))
	if err != nil || f.ID == "" {
		return Usage("%s is set by the run that starts a worker; it is not for CronJobs", envWorker)
	}
	if _, _, err := f.reach(ctx, a, b, statefulset.DiscoverOptions{NoServer: true}); err != nil {
		return err
	}
	f.events = nil // the run's to write
	if b.Files, err = f.saveOptions(a); err != nil {
		return err
	}
	b.WorkFor(ordinal, statefulset.WorkerPath)
	return nil
}

// saveOptions say what of a directory is saved, and how.
func (f *BackupFlags) saveOptions(a *App) (*filetree.SaveOptions, error) {
	patterns, err := f.Files.patterns()
	return &filetree.SaveOptions{
		Patterns: patterns, OneFileSystem: f.Files.OneFileSystem, Fuzzy: f.Files.Fuzzy, Workers: max(2, runtime.GOMAXPROCS(0)), Clock: a.Clock,
	}, err
}

// addWorkers declares what a backup of a set's files needs.
func (f *BackupFlags) addWorkers(fs *pflag.FlagSet) {
	f.Workers.Add(fs)
	fs.StringVar(&f.ClaimTemplate, "claim-template", "", "with --method files in the cluster: the claim template whose claims are backed up (default: the set's only one)")
	fs.DurationVar(&f.WorkerTimeout, "worker-timeout", 10*time.Minute, "with --method files in the cluster: how long a worker's pod may take to start")
}

// lineWriter passes whole lines on, so that the logs of workers do not mix within
// one. What has no end of line at last is kept back.
type lineWriter struct {
	mu   sync.Mutex
	to   io.Writer
	rest []byte
}

// Write implements io.Writer.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	end := bytes.LastIndexByte(w.rest, '\n') + 1
	_, err := w.to.Write(w.rest[:end])
	w.rest = append(w.rest[:0], w.rest[end:]...)
	return len(p), err
}

// files fills the job for claims that are filled with files. What else their seed
// pods need to know, such as the store's account, they have from the restore's own
// Job by their environment.
func (f *RestoreFlags) files(a *App, r *job.Restore) error {
	template := ""
	switch len(f.ClaimTemplates) {
	case 0:
	case 1:
		template = f.ClaimTemplates[0]
	default:
		return Usage("--claim-template: with --method %s one at a time", f.Method)
	}
	spec, err := f.Workers.spec(template)
	if err != nil {
		return err
	}
	r.Files = &job.FilesRestore{
		Method: f.Method, Spec: spec, Env: notForLoad(),
		Args: func(plan *job.RestorePlan, item job.RestoreItem, dir string) []string {
			return append(f.loadArgs(a, plan, item, dir), boolFlag("no-owner", f.Files.NoOwner), boolFlag("no-devices", f.Files.NoDevices), boolFlag("no-xattrs", f.Files.NoXattrs))
		},
	}
	switch {
	case f.Method == record.MethodFiles:
		r.Request.Follow = "none"
	case f.Server.engine() == engineMySQL:
		return f.copies(a, r)
	default:
		err = f.bases(a, r)
	}
	return errors.Join(err, f.FromNothing.applyFiles(r, f.Method))
}

// loadArgs are the arguments of a seed pod that brings the item's files to dir.
func (f *RestoreFlags) loadArgs(a *App, plan *job.RestorePlan, item job.RestoreItem, dir string) []string {
	return append([]string{
		"load", "--target=file://" + dir, "--set=" + plan.From.String(),
		"--backup=" + string(plan.Backup), "--ordinal=" + strconv.Itoa(item.Base), "--replace=false",
		boolFlag("allow-incomplete", plan.Incomplete), boolFlag("allow-suspect", plan.Suspect),
	}, f.repositoryArgs(a)...)
}

// repositoryArgs say of the repository what a seed pod does not have from its
// environment, which is that of the restore's own Job.
func (f *RestoreFlags) repositoryArgs(a *App) (args []string) {
	theirs := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(RepositoryFlags).AddRead(theirs)
	f.given.Visit(func(flag *pflag.Flag) {
		if value := flag.Value.String(); theirs.Lookup(flag.Name) != nil && a.Getenv(EnvName(flag.Name)) != value {
			args = append(args, "--"+flag.Name+"="+value)
		}
	})
	return args
}

func boolFlag(name string, value bool) string { return "--" + name + "=" + strconv.FormatBool(value) }

// notForLoad empties the variables of a restore that say something else to
// `restore load`.
func notForLoad() map[string]string {
	env := map[string]string{}
	for _, flag := range []string{"as-follower-of", "container", "include-path", "exclude-path", "metrics-push", "metrics-file", "tablespace", "replication-slot"} {
		env[EnvName(flag)] = ""
	}
	return env
}
