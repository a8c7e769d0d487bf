package job

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keepset/internal/record"
	"keepset/internal/repository"
)

// Export writes the streams of one member to a directory or as a tar archive.
type Export struct {
	Repository *repository.Repository
	Set        record.SetID
	Choice     Choice
	Ordinal    int
	// Want chooses streams; nil chooses all. It is handed the object that a
	// stream belongs to (zero for streams of no object), whether the stream is
	// secret, and its name.
	Want func(object record.Object, secret bool, stream string) bool
	// Directory is where files go. It is made when it is missing, and files
	// that exist are never overwritten.
	Directory string
	// Archive takes a tar archive when Directory is empty; Raw, when set,
	// takes the bytes of the one chosen stream instead.
	Archive io.Writer
	Raw     bool
	Log     *slog.Logger
}

// ExportReport says what an Export wrote.
type ExportReport struct {
	Set        string           `json:"set"`
	Backup     record.BackupID  `json:"backup"`
	Ordinal    int              `json:"ordinal"`
	CapturedAt time.Time        `json:"capturedAt"`
	Streams    []ExportedStream `json:"streams"`
	Bytes      int64            `json:"bytes"`
}

// ExportedStream is one stream.
type ExportedStream struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Secret bool   `json:"secret,omitempty"`
}

// List says what Run would write.
func (e *Export) List(ctx context.Context) (*ExportReport, error) {
	member, report, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	return report, member.Close()
}

// Run writes the streams. Each is verified to its end; on an error what was
// written of the current one is removed from the directory.
func (e *Export) Run(ctx context.Context) (*ExportReport, error) {
	member, report, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case e.Directory != "":
		err = e.toDirectory(ctx, member, report.Streams)
	case e.Raw:
		err = e.raw(ctx, member, report.Streams)
	default:
		err = e.archive(ctx, member, report)
	}
	return report, errors.Join(err, member.Close())
}

func (e *Export) open(ctx context.Context) (*repository.MemberReader, *ExportReport, error) {
	info, passed, err := e.Choice.resolve(ctx, e.Repository, e.Set)
	if err != nil {
		return nil, nil, err
	}
	if passed != "" {
		e.Log.Warn(passed)
	}
	member, err := e.Repository.OpenMember(ctx, info, e.Ordinal)
	if err != nil {
		return nil, nil, fmt.Errorf("open ordinal %d of backup %s: %w", e.Ordinal, info.ID, err)
	}
	report := &ExportReport{
		Set: e.Set.String(), Backup: info.ID, Ordinal: e.Ordinal,
		CapturedAt: member.Report().CapturedAt, Streams: []ExportedStream{},
	}
	owners := ownersOf(member.Report())
	for _, s := range member.Map().Streams {
		if e.Want == nil || e.Want(owners[s.Name], s.Secret, s.Name) {
			report.Streams = append(report.Streams, ExportedStream{Name: s.Name, Bytes: s.Size, Secret: s.Secret})
			report.Bytes += s.Size
		}
	}
	if len(report.Streams) == 0 {
		err := fmt.Errorf("%w: backup %s holds nothing that was asked for; `restore export --list` shows what it holds", ErrConfig, info.ID)
		return nil, nil, errors.Join(err, member.Close())
	}
	return member, report, nil
}

// ownersOf maps each stream to the object that it belongs to. An engine may
// name further streams of an object in its attributes.
func ownersOf(r record.Report) map[string]record.Object {
	owners := map[string]record.Object{}
	for _, o := range r.Objects {
		for _, text := range o.Attributes {
			for name := range strings.FieldsSeq(text) {
				owners[name] = o
			}
		}
	}
	for _, o := range r.Objects {
		for _, name := range slices.Concat([]string{o.DDL}, o.Data) {
			owners[name] = o
		}
	}
	return owners
}

func (e *Export) toDirectory(ctx context.Context, member *repository.MemberReader, streams []ExportedStream) (err error) {
	if err := os.MkdirAll(e.Directory, 0o700); err != nil {
		return fmt.Errorf("make the directory to export to: %w", err)
	}
	// Names come from the repository; os.Root keeps them inside.
	root, err := os.OpenRoot(e.Directory)
	if err != nil {
		return fmt.Errorf("open the directory to export to: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, s := range streams {
		if err := exportFile(ctx, root, member, s.Name); err != nil {
			return fmt.Errorf("export %s to %s: %w", s.Name, e.Directory, err)
		}
	}
	return nil
}

func exportFile(ctx context.Context, root *os.Root, member *repository.MemberReader, name string) error {
	local := filepath.FromSlash(name)
	if dir := filepath.Dir(local); dir != "." {
		if err := root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(local, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copyStream(ctx, f, member, name)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, root.Remove(local))
	}
	return nil
}

func (e *Export) raw(ctx context.Context, member *repository.MemberReader, streams []ExportedStream) error {
	if len(streams) != 1 {
		return fmt.Errorf("%w: %d streams were chosen, and standard output takes one; `restore export --list` shows their names", ErrConfig, len(streams))
	}
	if err := copyStream(ctx, e.Archive, member, streams[0].Name); err != nil {
		return fmt.Errorf("export %s: %w", streams[0].Name, err)
	}
	return nil
}

func (e *Export) archive(ctx context.Context, member *repository.MemberReader, report *ExportReport) error {
	if isTree(member.Report()) {
		return e.tree(ctx, member, report.Streams)
	}
	w := tar.NewWriter(e.Archive)
	prefix := strings.ReplaceAll(string(report.Backup), "/", "_")
	for _, s := range report.Streams {
		header := &tar.Header{Name: path.Join(prefix, s.Name), Mode: 0o600, Size: s.Bytes, ModTime: report.CapturedAt, Typeflag: tar.TypeReg}
		err := w.WriteHeader(header)
		if err == nil {
			err = copyStream(ctx, w, member, s.Name)
		}
		if err != nil {
			return fmt.Errorf("export %s into the archive: %w", s.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	return nil
}

// tree writes the streams of a directory, which are one archive together.
func (e *Export) tree(ctx context.Context, member *repository.MemberReader, streams []ExportedStream) error {
	for _, s := range streams {
		if s.Name == objectsStream { // is beside the tree
			continue
		}
		if err := copyStream(ctx, e.Archive, member, s.Name); err != nil {
			return fmt.Errorf("export %s: %w", s.Name, err)
		}
	}
	return nil
}

// copyStream copies a stream to its verified end.
func copyStream(ctx context.Context, w io.Writer, member *repository.MemberReader, name string) error {
	r, err := member.Open(ctx, name)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, r.Close())
}
