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
	"keepset/internal/snapshot/csi"
	"keepset/internal/statefulset"
)

// What a worker is told by the run that has started it; none of it is a flag: the
// ordinal that it works for, and the volume snapshot that its files are of, and when
// that was cut.
const (
	envWorker         = Prefix + "WORKER"
	envWorkerSnapshot = Prefix + "WORKER_SNAPSHOT"
	envWorkerCutAt    = Prefix + "WORKER_CUT_AT"
)

// WorkerFlags say as whom a set's files are read or written in the cluster.
type WorkerFlags struct {
	UID, GID int64
	Root     bool
	// FromSnapshot and Class are of workers that read.
	FromSnapshot bool
	Class        string
}

// Add declares the flags.
func (f *WorkerFlags) Add(fs *pflag.FlagSet) {
	fs.Int64Var(&f.UID, "worker-uid", 0, "with --method files in the cluster: the user that the files belong to (default: the one that the set's pods run as by runAsUser)")
	fs.Int64Var(&f.GID, "worker-gid", 0, "the group that the files belong to (default: runAsGroup of the set's pods, or their fsGroup, or the number of the user)")
	fs.BoolVar(&f.Root, "worker-root", false, "files of several owners: work as root, with DAC_READ_SEARCH to read them, which pod security has to allow, or with what it takes to give them back")
}

// spec is the form of the workers.
func (f *WorkerFlags) spec(template string) (statefulset.WorkerSpec, error) {
	if f.Class != "" && !f.FromSnapshot {
		return statefulset.WorkerSpec{}, Usage("--worker-storage-class is the class of claims made --from-snapshot")
	}
	if f.UID < 0 || f.GID < 0 || f.Root && f.UID+f.GID != 0 {
		return statefulset.WorkerSpec{}, Usage("--worker-uid and --worker-gid want a number above 0, and do not go with --worker-root")
	}
	return statefulset.WorkerSpec{Template: template, UID: f.UID, GID: f.GID, Root: f.Root, Temporary: f.FromSnapshot, Class: f.Class}, nil
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
	return f.fromSnapshot(a, client, run, b)
}

// fromSnapshot has the workers read what snapshots of the volumes hold.
func (f *BackupFlags) fromSnapshot(a *App, client *statefulset.Client, run statefulset.Run, b *job.Backup) error {
	if !f.Workers.FromSnapshot {
		return nil
	}
	switch {
	case f.Files.Fuzzy:
		return Usage("--fuzzy does not go with --from-snapshot: in a snapshot nothing changes")
	case f.Volumes.Snapshotter != record.ProviderCSI:
		return Usage("--from-snapshot is for --snapshotter %s: EBS volumes of the CSI driver ebs.csi.aws.com have VolumeSnapshots as well", record.ProviderCSI)
	case f.Volumes.Quiesce == quiesceCommand:
		return Usage("--quiesce %s does not go with --from-snapshot: the files are those that a power cut would leave; --method snapshot holds a program still", quiesceCommand)
	}
	kube, config := client.Connection()
	s, err := csi.Connect(config, csi.Options{Kube: kube, Class: f.Volumes.Class, Log: a.Log, Temporary: &csi.Temporary{Owners: run.Owner()}})
	if err != nil {
		return err
	}
	b.Workers.Snapshots = &job.FileSnapshots{Snapshotter: s, Cluster: b.Plan.Origin}
	return nil
}

// workerEnv is what a worker is told besides the environment and arguments of the
// run. The run alone leaves metrics, of all members.
func workerEnv(id record.BackupID, ordinal int, from *job.FromSnapshot) map[string]string {
	env := map[string]string{
		envWorker: strconv.Itoa(ordinal), EnvName("id"): string(id),
		EnvName("source"):       "file://" + statefulset.WorkerPath,
		EnvName("metrics-push"): "", EnvName("metrics-file"): "",
	}
	if from != nil {
		env[envWorkerSnapshot], env[envWorkerCutAt] = from.Name, from.CutAt.UTC().Format(time.RFC3339Nano)
	}
	return env
}

// toldSnapshot is the volume snapshot that a worker was told of; nil: of none.
func toldSnapshot(a *App) (*job.FromSnapshot, error) {
	name := a.Getenv(envWorkerSnapshot)
	if name == "" {
		return nil, nil //nolint:nilnil // most workers read the set's own claims
	}
	at, err := time.Parse(time.RFC3339Nano, a.Getenv(envWorkerCutAt))
	if err != nil {
		return nil, Usage("%s: %w", envWorkerCutAt, err)
	}
	return &job.FromSnapshot{Name: name, CutAt: at}, nil
}

// asWorker fills the job of a worker: one member of a plan that is stored.
func (f *BackupFlags) asWorker(ctx context.Context, a *App, b *job.Backup) error {
	ordinal, err := strconv.Atoi(a.Getenv(envWorker))
	if err != nil || f.ID == "" {
		return Usage("%s is set by the run that starts a worker; it is not for CronJobs", envWorker)
	}
	client, _, err := f.reach(ctx, a, b, statefulset.DiscoverOptions{NoServer: true})
	if err != nil {
		return err
	}
	f.events = nil // the run's to write
	if b.Files, err = f.saveOptions(a); err != nil {
		return err
	}
	if b.FromSnapshot, err = toldSnapshot(a); err != nil {
		return err
	}
	if b.FromSnapshot == nil && !f.Files.Fuzzy {
		b.Users = client.ClaimUsers
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
	fs.BoolVar(&f.Workers.FromSnapshot, "from-snapshot", false, "with --method files in the cluster: read files that pods are writing as they were at one moment, from a temporary claim made of a CSI volume snapshot (class: --volume-snapshot-class)")
	fs.StringVar(&f.Workers.Class, "worker-storage-class", "", "with --from-snapshot: the StorageClass of the temporary claims (default: that of the set's)")
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
	spec.Server = f.Method == record.MethodPhysical
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
		boolFlag("allow-incomplete", plan.Incomplete), boolFlag("allow-suspect", plan.Suspect), boolFlag("allow-filtered", f.Choice.AllowFiltered),
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
	for _, flag := range []string{
		"as-follower-of", "container", "include-path", "exclude-path", "metrics-push", "metrics-file", "tablespace", "replication-slot",
		"database", "table", "rename", "with-users", "skip-binlog",
	} {
		env[EnvName(flag)] = ""
	}
	return env
}
