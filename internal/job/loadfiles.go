package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"keepset/internal/filetree"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// LoadFiles brings the files of one member of one backup back into a directory.
type LoadFiles struct {
	Repository *repository.Repository
	Set        record.SetID
	Choice     Choice
	Ordinal    int
	// Options say where the files go, and which.
	Options filetree.RestoreOptions
	// Base makes a server's files, of a backup that holds them.
	Base Base
	// FilesOnly is a flag that was given and is for directories alone, BaseOnly one for servers' files.
	FilesOnly, BaseOnly string

	Clock    func() time.Time
	Log      *slog.Logger
	Progress Progress
}

// Of is the set whose member is restored.
func (l *LoadFiles) Of() record.SetID { return l.Set }

// Run restores the files. The directory is not touched before the backup has
// been found and its member opened.
func (l *LoadFiles) Run(ctx context.Context) (*LoadReport, error) {
	start := l.Clock()
	member, report, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	source := &fileSource{MemberReader: member}
	stop := l.watch(source, member)
	restored, err := l.restore(ctx, source)
	stop(err)
	if err = errors.Join(err, member.Close()); err != nil {
		return report, err
	}
	for _, w := range restored.Warnings {
		l.Log.Warn(w)
	}
	report.Entries, report.Bytes, report.Warnings = restored.Rows, restored.Bytes, restored.Warnings
	report.Seconds = l.Clock().Sub(start).Seconds()
	return report, nil
}

func (l *LoadFiles) restore(ctx context.Context, source *fileSource) (record.Report, error) {
	if isBase(source.Report()) {
		return l.Base.Restore(ctx, source)
	}
	return filetree.Restore(ctx, source, l.Options)
}

// DryRun does everything that Run does before it touches the target.
func (l *LoadFiles) DryRun(ctx context.Context) (*LoadReport, error) {
	member, report, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	report.Entries, report.Bytes, report.DryRun = member.Report().Rows, member.Report().Bytes, true
	return report, member.Close()
}

func (l *LoadFiles) prepare(ctx context.Context) (*repository.MemberReader, *LoadReport, error) {
	info, passed, err := l.Choice.resolve(ctx, l.Repository, l.Set)
	if err != nil {
		return nil, nil, err
	}
	if passed != "" {
		l.Log.Warn(passed)
	}
	if err := l.checkMethod(&info.Plan); err != nil {
		return nil, nil, err
	}
	member, err := l.Repository.OpenMember(ctx, info, l.Ordinal)
	if err != nil {
		return nil, nil, fmt.Errorf("open ordinal %d of backup %s: %w", l.Ordinal, info.ID, err)
	}
	if isBase(member.Report()) {
		if err := l.Base.Check(ctx, member.Report()); err != nil {
			return nil, nil, errors.Join(err, member.Close())
		}
	}
	for _, doubt := range member.Report().Doubts {
		l.Log.Warn("the backup is doubtful: " + doubt)
	}
	return member, &LoadReport{
		Set: l.Set.String(), Backup: info.ID, Ordinal: l.Ordinal, Target: l.Options.Path,
		CapturedAt: member.Report().CapturedAt, Omitted: member.Report().Omitted,
	}, nil
}

func (l *LoadFiles) watch(source *fileSource, member *repository.MemberReader) (stop func(error)) {
	if l.Progress == nil {
		return func(error) {}
	}
	var expected int64
	for _, s := range member.Map().Streams {
		expected += s.Size
	}
	return every(time.Second, func(done, failed bool) {
		l.Progress(Event{Ordinal: l.Ordinal, Name: l.Options.Path, Bytes: source.bytes.Load(), Expected: expected, Done: done, Failed: failed})
	})
}

// fileSource gives a tree back its streams, and counts their bytes.
type fileSource struct {
	*repository.MemberReader
	bytes atomic.Int64
}

// Streams are the names, in order.
func (s *fileSource) Streams() []string {
	streams := s.Map().Streams
	names := make([]string, 0, len(streams))
	for i := range streams {
		names = append(names, streams[i].Name)
	}
	return names
}

// Open reads one stream.
func (s *fileSource) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := s.MemberReader.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &countingReader{r, &s.bytes}, nil
}
