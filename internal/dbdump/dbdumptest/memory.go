package dbdumptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// Memory keeps the streams of a dump in memory, and holds the engine to the sink's contract while it takes them.
type Memory struct {
	mu      sync.Mutex
	streams map[string]*memoryStream
	// OnWrite, when set, is called with the number of bytes written so far, before each write is taken. An error
	// becomes that of the write.
	OnWrite func(total int64) error
	// OnCreate and OnClose do the same for opening and closing a stream.
	OnCreate, OnClose func(name string) error

	total int64
}

// NewMemory returns an empty sink.
func NewMemory() *Memory { return &Memory{streams: make(map[string]*memoryStream)} }

type memoryStream struct {
	memory *Memory
	name   string
	secret bool
	data   bytes.Buffer
	ended  bool
	whole  bool
}

// Create implements dbdump.Sink.
func (m *Memory) Create(ctx context.Context, name string, opts dbdump.StreamOptions) (dbdump.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.OnCreate != nil {
		if err := m.OnCreate(name); err != nil {
			return nil, err
		}
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[name] != nil {
		return nil, fmt.Errorf("stream %q is created twice", name)
	}
	s := &memoryStream{memory: m, name: name, secret: opts.Secret}
	m.streams[name] = s
	return s, nil
}

// checkName holds a stream's name to the contract.
func checkName(name string) error {
	if !utf8.ValidString(name) || name == "" {
		return fmt.Errorf("stream name %q is empty or not UTF-8", name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element == "." || element == ".." {
			return fmt.Errorf("stream name %q has the element %q", name, element)
		}
	}
	return nil
}

// Write implements io.Writer.
func (s *memoryStream) Write(p []byte) (int, error) {
	m := s.memory
	m.mu.Lock()
	if s.ended {
		m.mu.Unlock()
		return 0, fmt.Errorf("stream %q: write after its end", s.name)
	}
	m.total += int64(len(p))
	total := m.total
	m.mu.Unlock()
	if m.OnWrite != nil {
		if err := m.OnWrite(total); err != nil {
			return 0, err
		}
	}
	return s.data.Write(p)
}

// Close implements dbdump.Stream.
func (s *memoryStream) Close() error {
	if s.memory.OnClose != nil {
		if err := s.memory.OnClose(s.name); err != nil {
			return errors.Join(err, s.end(false))
		}
	}
	return s.end(true)
}

// Abort implements dbdump.Stream.
func (s *memoryStream) Abort(error) { _ = s.end(false) }

func (s *memoryStream) end(whole bool) error {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	if s.ended {
		return fmt.Errorf("stream %q is ended twice", s.name)
	}
	s.ended, s.whole = true, whole
	return nil
}

// Open lists the streams that neither Close nor Abort has ended.
func (m *Memory) Open() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name, s := range m.streams {
		if !s.ended {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Names lists all streams.
func (m *Memory) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.streams))
}

// Total is the number of bytes written.
func (m *Memory) Total() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

// Bytes returns the content of a stream; nil when there is none of that name.
func (m *Memory) Bytes(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[name]; s != nil {
		return s.data.Bytes()
	}
	return nil
}

// Secret tells whether the stream was declared secret.
func (m *Memory) Secret(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.streams[name] != nil && m.streams[name].secret
}

// Source gives the streams back, as the dump that the report describes.
func (m *Memory) Source(report record.Report) *Source { return &Source{memory: m, report: report} }

// Source is a dbdump.Source over a Memory. Its hooks make it fail.
type Source struct {
	memory *Memory
	report record.Report
	// OnOpen, when set, may refuse to open a stream.
	OnOpen func(name string) error
	// Wrap, when set, replaces the reader of a stream.
	Wrap func(name string, r io.Reader) io.Reader
	// CloseError, when set, is what closing a stream returns.
	CloseError error
}

// Report implements dbdump.Source.
func (s *Source) Report() record.Report { return s.report }

// Open implements dbdump.Source.
func (s *Source) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if s.OnOpen != nil {
		if err := s.OnOpen(name); err != nil {
			return nil, err
		}
	}
	s.memory.mu.Lock()
	stream := s.memory.streams[name]
	s.memory.mu.Unlock()
	if stream == nil || !stream.whole {
		return nil, fmt.Errorf("stream %q: %w", name, fs.ErrNotExist)
	}
	var r io.Reader = &contextReader{ctx: ctx, r: bytes.NewReader(stream.data.Bytes())}
	if s.Wrap != nil {
		r = s.Wrap(name, r)
	}
	return &sourceStream{Reader: r, err: s.CloseError}, nil
}

type sourceStream struct {
	io.Reader
	err    error
	closed bool
}

// Close may be called once.
func (s *sourceStream) Close() error {
	if s.closed {
		return errors.New("a stream is closed twice")
	}
	s.closed = true
	return s.err
}

// contextReader ends with the context, as a reader of a repository does.
type contextReader struct {
	ctx context.Context //nolint:containedctx // io.Reader has no other way to get one
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
