package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"keepset/internal/filetree"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// files streams the member's directory into the repository and commits it.
func (c *capture) files(ctx context.Context, member Member) (commit record.Commit, report record.Report, err error) {
	use := c.job.claimUse(member)
	if err := use.refuse(ctx); err != nil {
		return record.Commit{}, record.Report{}, err
	}
	return c.into(ctx, member, func(ctx context.Context, w *repository.MemberWriter) (report record.Report, err error) {
		o := *c.job.Files
		o.Path = member.Address
		if from := c.job.FromSnapshot; from != nil {
			o.Clock = func() time.Time { return from.CutAt }
		}
		doubts, err := use.during(ctx, useAsked, func() error {
			report, err = filetree.Save(ctx, fileSink{w}, o)
			return err
		})
		if err != nil {
			return report, err
		}
		report.Doubts = append(report.Doubts, doubts...)
		c.job.FromSnapshot.describe(&report)
		counts, err := filetree.CountsOf(report)
		if err == nil {
			c.job.Log.Info("files read", "ordinal", member.Ordinal, "directory", member.Address,
				"files", counts.Files, "unchanged", counts.Unchanged, "entries", counts.Entries())
		}
		return report, err
	})
}

// fileSink lets a tree write into a member of the repository.
type fileSink struct{ w *repository.MemberWriter }

// Create begins a stream.
func (s fileSink) Create(ctx context.Context, name string) (filetree.Stream, error) {
	stream, err := s.w.Create(ctx, name, repository.StreamOptions{})
	if err != nil {
		return nil, err
	}
	return &fileStream{StreamWriter: stream, ctx: ctx, w: s.w}, nil
}

// fileStream recalls what the repository remembers of files.
type fileStream struct {
	*repository.StreamWriter
	ctx context.Context //nolint:containedctx // of the stream, which has it too
	w   *repository.MemberWriter
}

// Section begins a part that is remembered by itself.
func (s *fileStream) Section(key string, fingerprint []byte) error {
	if fingerprint == nil {
		return s.StreamWriter.Section(nil)
	}
	return s.StreamWriter.Section(&repository.Remember{Key: key, Fingerprint: fingerprint})
}

// Reuse takes over a part of an earlier backup, whole or not at all.
func (s *fileStream) Reuse(key string, fingerprint []byte) (int64, error) {
	e, found, err := s.w.Recall(s.ctx, key, fingerprint)
	if err != nil || !found || e.Size() == 0 {
		return 0, err
	}
	if err := s.Section(key, fingerprint); err != nil {
		return 0, err
	}
	err = s.ReuseAll(e)
	if errors.Is(err, repository.ErrNotReusable) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return e.Size(), nil
}

// Directories is the inventory of directories outside of Kubernetes: ordinal i
// is paths[i].
func Directories(paths []string) Discover {
	return func(context.Context) (Inventory, error) {
		inv := Inventory{Replicas: len(paths)}
		for i, path := range paths {
			inv.Members = append(inv.Members, Member{
				PlannedMember: record.PlannedMember{Ordinal: i, Name: "file://" + path},
				Address:       path,
			})
		}
		return inv, nil
	}
}

// judgeTree returns the reasons to doubt a tree: that of a program that wrote
// all its files anew, under other names, is none.
func (s SuspectRules) judgeTree(r record.Report, last *record.Commit) []string {
	reasons := slices.Clone(r.Doubts)
	if !s.AllowEmpty && r.Rows <= 1 {
		reasons = append(reasons, "the directory is empty")
	}
	if last != nil && s.ShrinkPercent > 0 {
		reasons = append(reasons, s.shrunk("entries", last.Rows, r.Rows)...)
	}
	return reasons
}

// isTree says that a report is of a tree of files.
func isTree(r record.Report) bool { return r.Layout == filetree.Layout }

// errTree refuses to load a tree into a server.
func errTree(id record.BackupID) error {
	return fmt.Errorf("%w: backup %s holds files; restore run --method files brings them back into claims, restore load --target file:///dir into a directory", ErrConfig, id)
}
