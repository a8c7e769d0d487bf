package job

import (
	"context"
	"fmt"
	"slices"

	"keepset/internal/filetree"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// Copier is the power of an engine whose server gives its files out.
type Copier interface {
	// Copy writes them to the sink, and returns nil only if they are whole and,
	// with the log among them, one state of the server.
	Copy(ctx context.Context, sink filetree.Sink) (record.Report, error)
}

// Base makes a server's files of the streams that a Copier has written.
type Base interface {
	// Check says, before anything is touched, whether that can be done.
	Check(ctx context.Context, r record.Report) error
	Restore(ctx context.Context, source filetree.Source) (record.Report, error)
}

// base streams the files of the member's server into the repository and commits it.
func (c *capture) base(ctx context.Context, member Member) (commit record.Commit, report record.Report, err error) {
	engine, err := c.job.Open(member)
	if err != nil {
		return record.Commit{}, record.Report{}, err
	}
	defer closeEngine(engine)
	copier, ok := engine.(Copier)
	if !ok {
		return record.Commit{}, record.Report{}, fmt.Errorf("%w: the engine of %s gives out no files: take another --method", ErrConfig, member.Address)
	}
	return c.into(ctx, member, func(ctx context.Context, w *repository.MemberWriter) (record.Report, error) {
		return copier.Copy(ctx, fileSink{w})
	})
}

// isBase says that a report is of a server's files as the server gives them out.
func isBase(r record.Report) bool {
	return len(r.Objects) > 0 && r.Objects[0].Kind == filetree.KindTree && !isTree(r)
}

// judgeBase returns the reasons to doubt a server's files.
func (s SuspectRules) judgeBase(r record.Report, last *record.Commit) []string {
	reasons := append(slices.Clone(r.Doubts), s.judgeFollower(r.Coordinates.Upstream)...)
	if last != nil && s.ShrinkPercent > 0 {
		reasons = append(reasons, s.shrunk("bytes", last.Bytes, r.Bytes)...)
	}
	return reasons
}

// errBase refuses to load a server's files into a server.
func errBase(id record.BackupID) error {
	return fmt.Errorf("%w: backup %s holds the files of a server: restore run --method %s seeds ordinals from it, restore load --target file:///dir brings it into a directory, where a server is started",
		ErrConfig, id, record.MethodPhysical)
}

// checkMethod refuses a backup that has nothing for a directory, or not what was asked for.
func (l *LoadFiles) checkMethod(p *record.Plan) error {
	switch {
	case p.Method == record.MethodFiles && l.BaseOnly != "":
		return fmt.Errorf("%w: backup %s holds the files of a directory, and %s goes with --method %s", ErrConfig, p.ID, l.BaseOnly, record.MethodPhysical)
	case p.Method == record.MethodFiles:
		return nil
	case p.Method != record.MethodPhysical:
		return fmt.Errorf("%w: backup %s was captured by the method %s and holds no files of a directory; a backup before it may, choose it by --backup", ErrConfig, p.ID, p.Method)
	case l.FilesOnly != "":
		return fmt.Errorf("%w: backup %s holds the files of a server, which are worth nothing unless they are whole: %s does not go with it", ErrConfig, p.ID, l.FilesOnly)
	}
	return nil
}
