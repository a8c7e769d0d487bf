package repository

import (
	"context"
	"io"

	"keepset/internal/record"
)

// MemberReader reads the streams of one member.
type MemberReader struct{}

// OpenMember reads the map of a member.
func (r *Repository) OpenMember(ctx context.Context, info BackupInfo, ordinal int) (*MemberReader, error) {
	return nil, errSoon
}

// Map is the member's content.
func (m *MemberReader) Map() record.Map { return record.Map{} }

// Report is what the engine said of the dump.
func (m *MemberReader) Report() record.Report { return record.Report{} }

// Open reads one stream.
func (m *MemberReader) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	return nil, errSoon
}

// Close frees what the reader holds.
func (m *MemberReader) Close() error { return nil }
