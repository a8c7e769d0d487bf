package filetree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

// memory keeps streams, and remembers sections from one Save to the next, as a
// repository does.
type memory struct {
	mu       sync.Mutex
	streams  map[string][]byte
	report   record.Report
	sections map[string][]byte // of the Save before
	next     map[string][]byte
	// before is called before each write.
	before func(name string) error
}

func newMemory() *memory { return &memory{next: map[string][]byte{}} }

// memoryStream is a stream of a memory.
type memoryStream struct {
	m           *memory
	name        string
	data        []byte
	key         string
	begin       int
	ended, lost bool
}

func (m *memory) Create(_ context.Context, name string) (Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, twice := m.streams[name]; twice {
		return nil, fmt.Errorf("stream %s is there", name)
	}
	m.streams[name] = nil
	return &memoryStream{m: m, name: name}, nil
}

func (s *memoryStream) Write(p []byte) (int, error) {
	if s.m.before != nil {
		if err := s.m.before(s.name); err != nil {
			return 0, err
		}
	}
	s.data = append(s.data, p...)
	return len(p), nil
}

func (s *memoryStream) Section(key string, fingerprint []byte) error {
	if s.key != "" && !s.lost && len(s.data) > s.begin {
		s.m.mu.Lock()
		s.m.next[s.key] = bytes.Clone(s.data[s.begin:])
		s.m.mu.Unlock()
	}
	s.begin, s.key, s.lost = len(s.data), "", false
	if fingerprint != nil {
		s.key = key + "\x00" + string(fingerprint)
	}
	return nil
}

func (s *memoryStream) Reuse(key string, fingerprint []byte) (int64, error) {
	have := s.m.sections[key+"\x00"+string(fingerprint)]
	if len(have) == 0 {
		return 0, nil
	}
	if err := s.Section(key, fingerprint); err != nil {
		return 0, err
	}
	s.data = append(s.data, have...)
	return int64(len(have)), nil
}

func (s *memoryStream) Forget()    { s.lost = true }
func (s *memoryStream) Cut() error { return nil }

func (s *memoryStream) Close() error {
	if s.ended {
		return errors.New("ended twice")
	}
	s.ended = true
	if err := s.Section("", nil); err != nil {
		return err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.streams[s.name] = s.data
	return nil
}

func (s *memoryStream) Abort(error) { s.ended = true }

func (m *memory) Report() record.Report { return m.report }

func (m *memory) Streams() []string { return slices.Sorted(maps.Keys(m.streams)) }

func (m *memory) Open(_ context.Context, name string) (io.ReadCloser, error) {
	data, ok := m.streams[name]
	if !ok {
		return nil, fmt.Errorf("no stream %s", name)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// archive is all streams in order.
func (m *memory) archive() []byte {
	var all []byte
	for _, name := range m.Streams() {
		all = append(all, m.streams[name]...)
	}
	return all
}

// save saves a directory, as if all in it had been there for an hour.
func (m *memory) save(t testing.TB, o SaveOptions) (Counts, record.Report) {
	t.Helper()
	r, err := m.trySave(t, o)
	require.NoError(t, err)
	counts, err := CountsOf(r)
	require.NoError(t, err)
	return counts, r
}

func (m *memory) trySave(t testing.TB, o SaveOptions) (record.Report, error) {
	t.Helper()
	m.streams, m.sections, m.next = map[string][]byte{}, m.next, map[string][]byte{}
	if o.Clock == nil {
		o.Clock = func() time.Time { return time.Now().Add(time.Hour) }
	}
	o.Workers = max(2, o.Workers)
	var err error
	m.report, err = Save(t.Context(), m, o)
	return m.report, err
}
