package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/mysql"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
	"keepset/internal/statefulset"
)

// How a server is held still while its volumes are cut.
const (
	quiesceEngine  = "engine"
	quiesceCommand = "command"
	quiesceNone    = "none"
)

// VolumeFlags say how volumes are snapshotted, and where new ones are made.
type VolumeFlags struct {
	Snapshotter     string
	Class           string
	Quiesce         string
	Command         string
	CommandIn       string
	Hold            time.Duration
	CrashConsistent bool
	Region          string
	CopyRegions     []string
	KMSKey          string
	Zone            string
	Apart           bool
	CopyBlocks      bool
	FromCopy        bool
	Initialization  int
}

// AddCut declares what a backup needs.
func (f *VolumeFlags) AddCut(fs *pflag.FlagSet) {
	f.addSnapshotter(fs, "who snapshots volumes, for --method snapshot")
	fs.StringVar(&f.Class, "volume-snapshot-class", "", "VolumeSnapshotClass for csi (default: the driver's default, or its only one)")
	fs.StringVar(&f.Quiesce, "quiesce", quiesceEngine, "who holds the server still while its volumes are cut: engine, command, or none")
	fs.StringVar(&f.Command, "quiesce-command", "", `shell command for --quiesce command, run in the pod: it holds the server still, prints the line "held", waits for the end of its standard input, and lets the server go`)
	fs.StringVar(&f.CommandIn, "quiesce-container", "", "container that the command is run in (default: the database's)")
	fs.DurationVar(&f.Hold, "quiesce-hold", 30*time.Second, "how long writers may be held up while volumes are cut")
	fs.BoolVar(&f.CrashConsistent, "crash-consistent", false, "cut also the volumes of a member that cannot be held still, or whose pod is down: they hold what a power cut would leave")
	fs.BoolVar(&f.Apart, "apart", false, "the volumes of a member may be cut one after the other: all but one hold nothing that the others depend on")
	fs.StringSliceVar(&f.CopyRegions, "copy-to-region", nil, "AWS region that EBS snapshots are copied to before the backup counts; repeatable")
	fs.BoolVar(&f.CopyBlocks, "copy-blocks", false, "also copy the blocks of EBS snapshots into the repository, changed ones only where an earlier copy is there")
	f.addAWS(fs)
}

// AddProvision declares what a restore needs.
func (f *VolumeFlags) AddProvision(fs *pflag.FlagSet) {
	fs.StringVar(&f.Zone, "zone", "", "zone of volumes made of snapshots (default: where the ordinal's volume was, or where its pod will run)")
	fs.BoolVar(&f.FromCopy, "from-copy", false, "make volumes of the repository's copy of their blocks, even where the snapshots are still there")
	fs.IntVar(&f.Initialization, "volume-initialization-rate", 0, "MiB/s at which AWS fills a new EBS volume, 100 to 300; 0: as it is read")
	f.addAWS(fs)
}

// AddScrap declares what is needed to remove prepared volumes.
func (f *VolumeFlags) AddScrap(fs *pflag.FlagSet) {
	fs.StringVar(&f.Snapshotter, "snapshotter", "", "look for prepared volumes of all ordinals, where the dead restore's plan has gone with its Job: "+strings.Join(Snapshotters(), " or "))
	f.addRegion(fs)
}

// AddList declares what is needed to list volume snapshots.
func (f *VolumeFlags) AddList(fs *pflag.FlagSet) {
	f.addSnapshotter(fs, "who keeps the volume snapshots, for --orphans")
	fs.StringSliceVar(&f.CopyRegions, "copy-to-region", nil, "AWS region in which copies of EBS snapshots are looked for, beside those that the backups name; repeatable")
	f.addAWS(fs)
}

func (f *VolumeFlags) addSnapshotter(fs *pflag.FlagSet, what string) {
	fs.StringVar(&f.Snapshotter, "snapshotter", record.ProviderCSI, what+": "+strings.Join(Snapshotters(), " or "))
}

func (f *VolumeFlags) addAWS(fs *pflag.FlagSet) {
	f.addRegion(fs)
	fs.StringVar(&f.KMSKey, "ebs-kms-key-id", "", "key for EBS snapshots that are copied (default: the account's)")
}

func (f *VolumeFlags) addRegion(fs *pflag.FlagSet) {
	fs.StringVar(&f.Region, "aws-region", "", "region of the EBS volumes (default: AWS_REGION, else that of the volumes' zone)")
}

// check refuses what cannot be meant.
func (f *VolumeFlags) check() error {
	switch {
	case !slices.Contains([]string{quiesceEngine, quiesceCommand, quiesceNone}, f.Quiesce):
		return Usage("--quiesce %q is not one of %s, %s, %s", f.Quiesce, quiesceEngine, quiesceCommand, quiesceNone)
	case (f.Quiesce == quiesceCommand) != (f.Command != ""):
		return Usage("--quiesce %s and --quiesce-command go together", quiesceCommand)
	case f.Hold < time.Second:
		return Usage("--quiesce-hold %s: want at least 1s", f.Hold)
	}
	return f.checkSnapshotter()
}

func (f *VolumeFlags) checkSnapshotter() error {
	switch {
	case !slices.Contains(Snapshotters(), f.Snapshotter):
		return Usage("--snapshotter %q is not one of %s", f.Snapshotter, strings.Join(Snapshotters(), ", "))
	case f.CopyBlocks && f.Snapshotter != record.ProviderEBS:
		return Usage("--copy-blocks is for --snapshotter %s", record.ProviderEBS)
	case len(f.CopyRegions) > 0 && f.Snapshotter != record.ProviderEBS:
		return Usage("--copy-to-region is for --snapshotter %s", record.ProviderEBS)
	}
	return nil
}

// Orphans makes the job that compares a set's volume snapshots. Those of EBS
// can be listed from anywhere, those of CSI where the cluster can be reached.
func (f *VolumeFlags) Orphans(ctx context.Context, a *App, r *repository.Repository, set *SetFlags) (*job.Orphans, error) {
	if err := f.checkSnapshotter(); err != nil {
		return nil, err
	}
	id, err := set.Find(ctx, a, r)
	if err != nil {
		return nil, err
	}
	infos, err := r.Backups(ctx, id)
	if err != nil {
		return nil, err
	}
	o := &job.Orphans{Repository: r, Set: id, Provider: f.Snapshotter, Clock: a.Clock}
	for _, info := range infos {
		if o.Cluster = info.Plan.Origin; o.Cluster != "" {
			break
		}
	}
	client, _, err := set.Cluster(a)
	if err != nil && f.Snapshotter != record.ProviderEBS {
		return nil, err
	}
	o.Snapshotter, err = f.Open(ctx, a, client, f.Snapshotter)
	return o, err
}

// cuts makes the method snapshot of a backup.
func (f *VolumeFlags) cuts(ctx context.Context, a *App, client *statefulset.Client, b *job.Backup) error {
	if err := f.check(); err != nil {
		return err
	}
	if home := orDefault(f.Region, a.Getenv("AWS_REGION")); home != "" && slices.Contains(f.CopyRegions, home) {
		return Usage("--copy-to-region %s: that is the region of the volumes", home)
	}
	s, err := f.Open(ctx, a, client, f.Snapshotter)
	if err != nil {
		return err
	}
	b.Plan.Method = record.MethodSnapshot
	b.Volumes = &job.VolumeCuts{Snapshotter: s, Cluster: b.Plan.Origin, Hold: f.Hold, CrashConsistent: f.CrashConsistent, Apart: f.Apart, Copy: f.CopyBlocks, Regions: f.CopyRegions}
	switch f.Quiesce {
	case quiesceNone:
	case quiesceCommand:
		b.Volumes.Quiesce = f.byCommand(a, client)
	default:
		b.Volumes.Quiesce = byEngine(b)
	}
	return nil
}

// byEngine has the engine hold a member still.
func byEngine(b *job.Backup) func(job.Member) (dbdump.Quiescer, error) {
	return func(m job.Member) (dbdump.Quiescer, error) {
		engine, err := b.Open(m)
		if err != nil {
			return nil, err
		}
		q, ok := engine.(dbdump.Quiescer)
		if !ok {
			return nil, Usage("--quiesce: engine %s cannot hold its server still", b.Plan.Engine)
		}
		return q, nil
	}
}

// byCommand has a shell in the member's pod hold it still. The command's text is
// visible to whoever may look at the pod's processes.
func (f *VolumeFlags) byCommand(a *App, client *statefulset.Client) func(job.Member) (dbdump.Quiescer, error) {
	return func(m job.Member) (dbdump.Quiescer, error) {
		return &command.Quiescer{Clock: a.Clock, Run: func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
			return client.Exec(ctx, statefulset.Exec{
				Pod: m.Name, Container: orDefault(f.CommandIn, m.Container), Command: []string{"/bin/sh", "-c", f.Command},
				Stdin: stdin, Stdout: stdout, Stderr: stderr,
			})
		}}, nil
	}
}

// Abort makes the job that clears away what restores have left; whose set and
// how is for the caller to fill in.
func (f *VolumeFlags) Abort(ctx context.Context, a *App, client *statefulset.Client) (*job.Abort, error) {
	if f.Snapshotter != "" {
		if err := f.checkSnapshotter(); err != nil {
			return nil, err
		}
	}
	opener, err := f.Opener(ctx, a, client)
	if err != nil {
		return nil, err
	}
	return &job.Abort{Cluster: client, Volumes: opener, Provider: f.Snapshotter, Discover: endpointOf(engineMySQL, "", 0)}, nil
}

// Opener makes what a restore of volume snapshots needs. A snapshotter is
// opened once the backup says whose the snapshots are.
func (f *VolumeFlags) Opener(ctx context.Context, a *App, client *statefulset.Client) (*job.VolumeRestore, error) {
	origin, err := client.Origin()
	if err != nil {
		return nil, err
	}
	opened := map[string]snapshot.Snapshotter{}
	script, arguments := mysql.PrepareFiles()
	return &job.VolumeRestore{
		Cluster: origin, Zone: f.Zone, FromCopy: f.FromCopy, Adopt: statefulset.Adoption{Script: script, Arguments: arguments},
		Open: func(provider string) (snapshot.Snapshotter, error) {
			if s, ok := opened[provider]; ok {
				return s, nil
			}
			s, err := f.Open(ctx, a, client, provider)
			if err != nil {
				return nil, fmt.Errorf("open the snapshotter %s: %w", provider, err)
			}
			opened[provider] = s
			return s, nil
		},
	}, nil
}
