package repository

import (
	"context"
	"errors"

	"keepset/internal/record"
)

// Backup is a backup being written.
type Backup struct{}

var errSoon = errors.New("being written")

// Begin writes the plan, or adopts the one that an earlier attempt wrote.
func (r *Repository) Begin(ctx context.Context, plan record.Plan, attempt record.AttemptID) (*Backup, error) {
	return nil, errSoon
}

// Plan as stored.
func (b *Backup) Plan() record.Plan { return record.Plan{} }

// Committed returns the valid commit of a member, if there is one.
func (b *Backup) Committed(ctx context.Context, ordinal int) (record.Commit, bool, error) {
	return record.Commit{}, false, errSoon
}

// Member starts a member.
func (b *Backup) Member(ctx context.Context, ordinal int) (*MemberWriter, error) { return nil, errSoon }

// Report stores the report of the run.
func (b *Backup) Report(ctx context.Context, report any) error { return errSoon }

// Close ends the backup and frees what it holds.
func (b *Backup) Close() error { return nil }

// MemberWriter takes the streams of one member.
type MemberWriter struct{}

// StreamOptions describe a stream.
type StreamOptions struct {
	// Secret streams are not deduplicated.
	Secret bool
	// Fixed cuts chunks of this many bytes instead of by content.
	Fixed int
}

// Create begins a stream.
func (w *MemberWriter) Create(ctx context.Context, name string, o StreamOptions) (*StreamWriter, error) {
	return nil, errSoon
}

// CommitStatus of a member.
type CommitStatus struct {
	Suspect bool
	Reasons []string
}

// Commit makes the member part of the backup.
func (w *MemberWriter) Commit(ctx context.Context, report record.Report, status CommitStatus) (record.Commit, error) {
	return record.Commit{}, errSoon
}

// Abort gives the member up.
func (w *MemberWriter) Abort() {}

// Stats so far.
func (w *MemberWriter) Stats() Stats { return Stats{} }

// Stats count bytes.
type Stats struct {
	// Read from the caller.
	Read int64
	// Holes of it were zeros that take no room.
	Holes int64
	// Deduplicated of it were in the store already.
	Deduplicated int64
	// New of it were not.
	New int64
	// Stored is what New took, compressed.
	Stored  int64
	Streams int64
}

// StreamWriter is one stream being written.
type StreamWriter struct{}

// Write appends.
func (s *StreamWriter) Write(p []byte) (int, error) { return 0, errSoon }

// Close ends the stream.
func (s *StreamWriter) Close() error { return errSoon }

// Abort discards the stream and with it the member.
func (s *StreamWriter) Abort(err error) {}
