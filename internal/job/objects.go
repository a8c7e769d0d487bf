package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// objectsStream is the stream of each member that holds the objects of the set.
// Every member has all of them: members are committed by themselves, and any
// one of them is enough to bring a set back.
const objectsStream = "kubernetes/objects.json"

// maxObjects bounds what is read of one. Kubernetes itself keeps no object of
// more than 1.5 MiB.
const maxObjects = 64 << 20

// readObjects reads what travels with the data. An object that may not be read
// is no reason to have no backup of the data; that it is missing is said.
func (b *Backup) readObjects(ctx context.Context) ([]byte, error) {
	if b.Objects == nil {
		return nil, nil
	}
	objects, err := b.Objects(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the Kubernetes objects of %s: %w", b.Set, err)
	}
	logOmitted(ctx, b.Log, "not in the backup: a Kubernetes object of the set", objects.Omitted)
	return objects.Encode()
}

func logOmitted(ctx context.Context, log *slog.Logger, what string, omitted []statefulset.OmittedObject) {
	for _, o := range omitted {
		level := slog.LevelWarn
		if o.ByChoice {
			level = slog.LevelInfo
		}
		log.Log(ctx, level, what, "kind", o.Kind, "name", o.Name, "why", o.Why)
	}
}

// writeObjects stores the objects with a member. They may hold Secrets, whose
// hashes would give short ones away.
func (c *capture) writeObjects(ctx context.Context, w *repository.MemberWriter) error {
	if c.objects == nil {
		return nil
	}
	s, err := w.Create(ctx, objectsStream, repository.StreamOptions{Secret: true})
	if err != nil {
		return err
	}
	if _, err := s.Write(c.objects); err != nil {
		return errors.Join(fmt.Errorf("store the Kubernetes objects: %w", err), s.Close())
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("store the Kubernetes objects: %w", err)
	}
	return nil
}

// RestoreObjects creates the objects of a set that a backup holds.
type RestoreObjects struct {
	Repository *repository.Repository
	// Cluster is nil where the objects are only looked at.
	Cluster *statefulset.Client
	// From is the set's name in the repository.
	From   record.SetID
	Choice Choice
	DryRun bool
	Log    *slog.Logger
}

// ObjectsReport is what a RestoreObjects did.
type ObjectsReport struct {
	From      record.SetID                `json:"from"`
	Backup    record.BackupID             `json:"backup"`
	Namespace string                      `json:"namespace"`
	DryRun    bool                        `json:"dryRun,omitempty"`
	Objects   []statefulset.CreatedObject `json:"objects"`
	// Omitted were left out of the backup.
	Omitted []statefulset.OmittedObject `json:"omitted,omitempty"`
}

// Run creates what is missing, and changes nothing that exists.
func (r *RestoreObjects) Run(ctx context.Context) (*ObjectsReport, error) {
	objects, info, err := r.Read(ctx)
	if err != nil {
		return nil, err
	}
	report := &ObjectsReport{From: r.From, Backup: info, Namespace: r.Cluster.Namespace(), DryRun: r.DryRun, Omitted: objects.Omitted}
	report.Objects, err = r.Cluster.CreateObjects(ctx, objects, r.DryRun)
	if err != nil {
		err = fmt.Errorf("create the objects of backup %s of %s in namespace %s: %w; what was created stays, and the same command goes on", info, r.From, report.Namespace, err)
	}
	return report, err
}

// Read reads the objects, ready to be created: the set at zero replicas.
func (r *RestoreObjects) Read(ctx context.Context) (statefulset.Objects, record.BackupID, error) {
	info, passed, err := r.Choice.resolve(ctx, r.Repository, r.From)
	if err != nil {
		return statefulset.Objects{}, "", err
	}
	if passed != "" {
		r.Log.Warn(passed)
	}
	objects, err := readObjects(ctx, r.Repository, info)
	if err != nil {
		return objects, info.ID, err
	}
	objects.ForRestore()
	return objects, info.ID, nil
}

// readObjects takes them from the first member that can be read.
func readObjects(ctx context.Context, r *repository.Repository, info repository.BackupInfo) (statefulset.Objects, error) {
	var failed error
	for _, planned := range info.Plan.Members {
		if !info.Members[planned.Ordinal].Valid {
			continue
		}
		objects, found, err := objectsOf(ctx, r, info, planned.Ordinal)
		if found && err == nil {
			return objects, nil
		}
		if err != nil && (ctx.Err() != nil || !errors.Is(err, repository.ErrDamaged)) {
			return objects, err
		}
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return statefulset.Objects{}, failed
	}
	return statefulset.Objects{}, fmt.Errorf("%w: backup %s of %s holds no Kubernetes objects: it was taken outside of Kubernetes, with --objects=false or by an earlier version; apply the set's YAML yourself", ErrConfig, info.ID, info.Set)
}

func objectsOf(ctx context.Context, r *repository.Repository, info repository.BackupInfo, ordinal int) (objects statefulset.Objects, found bool, err error) {
	member, err := r.OpenMember(ctx, info, ordinal)
	if err != nil {
		return objects, false, err
	}
	defer func() { err = errors.Join(err, member.Close()) }()
	i := slices.IndexFunc(member.Map().Streams, func(s record.Stream) bool { return s.Name == objectsStream })
	if i < 0 {
		return objects, false, nil
	}
	if size := member.Map().Streams[i].Size; size > maxObjects {
		return objects, false, fmt.Errorf("backup %s: %w: they have %d bytes", info.ID, statefulset.ErrObjects, size)
	}
	s, err := member.Open(ctx, objectsStream)
	if err != nil {
		return objects, false, err
	}
	data, err := io.ReadAll(s)
	if err = errors.Join(err, s.Close()); err != nil {
		return objects, false, fmt.Errorf("read the Kubernetes objects of backup %s: %w", info.ID, err)
	}
	if objects, err = statefulset.ParseObjects(data); err != nil {
		return objects, false, fmt.Errorf("backup %s: %w", info.ID, err)
	}
	if objects.Set != info.Set {
		return objects, false, fmt.Errorf("backup %s: %w: they are of %s, and the backup of %s", info.ID, statefulset.ErrObjects, objects.Set, info.Set)
	}
	return objects, true, nil
}

// makeObjects is the part of a restore that makes what is missing of the set.
func (r *Restore) makeObjects(ctx context.Context, dryRun bool) (*ObjectsReport, error) {
	if r.Set != r.From.Name {
		return nil, fmt.Errorf("%w: the objects in the backup are of a set called %s, and %s is to be restored: a set gets another name only by hand (restore objects -o yaml)", ErrConfig, r.From.Name, r.Set)
	}
	choice := r.Choice
	choice.Whole = true
	objects := RestoreObjects{Repository: r.Repository, Cluster: r.Cluster, From: r.From, Choice: choice, DryRun: dryRun, Log: r.Log}
	return objects.Run(ctx)
}

// Missing says what a restore with objects would create first, if that is the
// set itself; nil if the set is there, and its plan can be made.
func (r *Restore) Missing(ctx context.Context) (*ObjectsReport, error) {
	if r.Objects {
		report, err := r.makeObjects(ctx, true)
		if err != nil {
			return nil, err
		}
		set := func(o statefulset.CreatedObject) bool {
			return o.Kind == "StatefulSet" && o.Action == statefulset.ObjectCreated
		}
		if slices.ContainsFunc(report.Objects, set) {
			return report, nil
		}
	}
	if r.Prepared != nil {
		return nil, r.Prepared(ctx)
	}
	return nil, nil
}

// prepare makes the set and its objects where that was asked for. The set comes
// without replicas: no pod of it starts before its claims are filled.
func (r *Restore) prepare(ctx context.Context) error {
	if r.Objects {
		report, err := r.makeObjects(ctx, false)
		if err != nil {
			return err
		}
		for _, o := range report.Objects {
			level := slog.LevelInfo
			if o.Action == statefulset.ObjectDiffers {
				level = slog.LevelWarn
			}
			r.Log.Log(ctx, level, "object of the set", "kind", o.Kind, "name", o.Name, "action", o.Action, "note", o.Note)
		}
		logOmitted(ctx, r.Log, "not in the backup, so not restored: a Kubernetes object of the set", report.Omitted)
	}
	if r.Prepared != nil {
		return r.Prepared(ctx)
	}
	return nil
}
