// Package dbdumptest holds what every implementation of dbdump.Engine must
// pass, and the sink and the source in memory that it is tested with.
//
// The suite tests failure as much as success: a sink that refuses, a source
// that ends early or lies, a server that dies, a caller that gives up. In each
// of these cases the engine must return an error: a dump or a load that is
// reported good is good. [Run] is the entry point; [Memory] and [Source] serve
// other tests as well.
package dbdumptest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// Server is a running database server under test, which the suite may fill, kill and start again.
type Server interface {
	// Engine returns a new engine that talks to the server. It is closed by the test's end.
	Engine(t *testing.T) dbdump.Engine
	// Fill puts objects of several kinds into the server and rows worth at least a megabyte.
	Fill(t *testing.T)
	// Content describes everything that Fill makes, objects and values, so that equal content gives equal text.
	Content(t *testing.T) string
	// Reset makes the server empty again, whatever a failed load has left.
	Reset(t *testing.T)
	// Kill ends the server without a goodbye. Called from any goroutine.
	Kill()
}

// Harness makes servers for the suite.
type Harness struct {
	// Start starts an empty server, which ends with the test.
	Start func(t *testing.T) Server
	// Unreachable returns an engine for an address where nothing listens.
	Unreachable func(t *testing.T) dbdump.Engine
	// Refused returns an engine whose account the server refuses.
	Refused func(t *testing.T, s Server) dbdump.Engine
	// Opaque: the engine knows nothing of its streams but their bytes. It counts
	// no rows, and why a server refuses is not known to it.
	Opaque bool
	// Leaks are further options for the check of goroutines that are left over.
	Leaks []goleak.Option
}

// errInjected is the failure that the suite causes.
var errInjected = errors.New("injected failure")

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	// What runs before the suite is not the engine's.
	leaks := append([]goleak.Option{goleak.IgnoreCurrent()}, h.Leaks...)
	s := &suite{h: h, full: h.Start(t)}
	s.full.Fill(t)
	s.spare = h.Start(t)
	if !t.Run("dump", s.testDump) {
		return
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"report describes the streams", s.testReport},
		{"dump is repeatable", s.testRepeatable},
		{"round trip", s.testRoundTrip},
		{"empty server", s.testEmpty},
		{"load refuses a target that is not empty", s.testNotEmpty},
		{"no connection", s.testNoConnection},
		{"dump into a failing sink", s.testFailingSink},
		{"dump cancelled", s.testDumpCancelled},
		{"load from a failing source", s.testFailingSource},
		{"load compares with the report", s.testMismatch},
		{"load cancelled", s.testLoadCancelled},
		{"server dies during a load", s.testKilledLoad},
		{"server dies during a dump", s.testKilledDump}, // last: it ends the filled server
	} {
		t.Run(test.name, test.run)
	}
	t.Run("nothing is left running", func(t *testing.T) { goleak.VerifyNone(t, leaks...) })
}

type suite struct {
	h      Harness
	full   Server // filled
	spare  Server // what loads that fail go into, one after the other
	memory *Memory
	report record.Report
}

// testDump makes the dump that the other tests load.
func (s *suite) testDump(t *testing.T) {
	s.memory = NewMemory()
	var err error
	s.report, err = s.full.Engine(t).Dump(t.Context(), s.memory)
	require.NoError(t, err)
}

func (s *suite) testReport(t *testing.T) {
	require.Empty(t, s.memory.Open(), "streams that were never ended")
	require.NotEmpty(t, s.report.Engine)
	require.NotEmpty(t, s.report.Layout)
	require.False(t, s.report.CapturedAt.IsZero())
	require.Equal(t, s.memory.Total(), s.report.Bytes)
	var rows int64
	var named []string
	for _, o := range s.report.Objects {
		require.NotEmpty(t, o.Kind)
		rows += max(o.Rows, 0)
		if o.DDL != "" {
			named = append(named, o.DDL)
		}
		named = append(named, o.Data...)
	}
	require.Equal(t, rows, s.report.Rows)
	if s.h.Opaque {
		require.Zero(t, rows)
	} else {
		require.Positive(t, rows)
	}
	for _, name := range named {
		require.Contains(t, s.memory.Names(), name, "the report names a stream that was not written")
	}
	for _, o := range s.report.Objects { // an engine may name further streams of its own there
		for _, value := range o.Attributes {
			named = append(named, strings.Fields(value)...)
		}
	}
	for _, name := range s.memory.Names() {
		require.Contains(t, named, name, "a stream that the report does not name")
	}
}

func (s *suite) testRepeatable(t *testing.T) {
	again := NewMemory()
	_, err := s.full.Engine(t).Dump(t.Context(), again)
	require.NoError(t, err)
	require.Equal(t, s.memory.Names(), again.Names())
	for _, name := range s.memory.Names() {
		require.True(t, bytes.Equal(s.memory.Bytes(name), again.Bytes(name)), "stream %s differs between two dumps", name)
	}
}

func (s *suite) testRoundTrip(t *testing.T) {
	target := s.empty(t)
	report, err := target.Engine(t).Load(t.Context(), s.memory.Source(s.report))
	require.NoError(t, err)
	require.Equal(t, s.report.Rows, report.Rows)
	require.Equal(t, s.full.Content(t), target.Content(t))
}

func (s *suite) testEmpty(t *testing.T) {
	memory := NewMemory()
	report, err := s.empty(t).Engine(t).Dump(t.Context(), memory)
	require.NoError(t, err)
	require.Zero(t, report.Rows)
	_, err = s.empty(t).Engine(t).Load(t.Context(), memory.Source(report))
	require.NoError(t, err)
}

func (s *suite) testNotEmpty(t *testing.T) {
	before := s.full.Content(t)
	_, err := s.full.Engine(t).Load(t.Context(), s.memory.Source(s.report))
	s.refused(t, err, dbdump.ErrNotEmpty)
	require.Equal(t, before, s.full.Content(t))
}

func (s *suite) testNoConnection(t *testing.T) {
	for _, c := range []struct {
		engine func() dbdump.Engine
		want   error
	}{
		{func() dbdump.Engine { return s.h.Unreachable(t) }, dbdump.ErrUnreachable},
		{func() dbdump.Engine { return s.h.Refused(t, s.full) }, dbdump.ErrAccess},
	} {
		memory := NewMemory()
		_, err := c.engine().Dump(t.Context(), memory)
		s.refused(t, err, c.want)
		require.Empty(t, memory.Open())
		_, err = c.engine().Load(t.Context(), s.memory.Source(s.report))
		s.refused(t, err, c.want)
	}
}

// refused wants an error, and this one of an engine that can tell.
func (s *suite) refused(t *testing.T, err, want error) {
	t.Helper()
	require.Error(t, err)
	if !s.h.Opaque {
		require.ErrorIs(t, err, want)
	}
}

func (s *suite) testFailingSink(t *testing.T) {
	total := s.report.Bytes
	names := s.memory.Names()
	for name, prepare := range map[string]func(*Memory){
		"first create": func(m *Memory) { m.OnCreate = func(string) error { return errInjected } },
		"one create":   func(m *Memory) { m.OnCreate = failFor(names[len(names)/2]) },
		"last create":  func(m *Memory) { m.OnCreate = failFor(names[len(names)-1]) },
		"first close":  func(m *Memory) { m.OnClose = func(string) error { return errInjected } },
		"one close":    func(m *Memory) { m.OnClose = failFor(names[len(names)/2]) },
		"first write":  func(m *Memory) { m.OnWrite = failAt(0) },
		"some write":   func(m *Memory) { m.OnWrite = failAt(total / 2) },
		"last write":   func(m *Memory) { m.OnWrite = failAt(total) },
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMemory()
			prepare(m)
			_, err := s.full.Engine(t).Dump(t.Context(), m)
			require.ErrorIs(t, err, errInjected)
			require.Empty(t, m.Open(), "streams that neither Close nor Abort ended")
		})
	}
}

func failFor(name string) func(string) error {
	return func(n string) error {
		if n == name {
			return errInjected
		}
		return nil
	}
}

func failAt(limit int64) func(int64) error {
	return func(total int64) error {
		if total >= limit {
			return errInjected
		}
		return nil
	}
}

func (s *suite) testDumpCancelled(t *testing.T) {
	for _, at := range []int64{-1, 0, s.report.Bytes / 2} {
		ctx, cancel := context.WithCancel(t.Context())
		m := NewMemory()
		if at < 0 {
			cancel()
		}
		m.OnWrite = func(total int64) error {
			if total >= at {
				cancel()
			}
			return nil
		}
		_, err := s.full.Engine(t).Dump(ctx, m)
		cancel()
		require.ErrorIs(t, err, context.Canceled, "cancelled at byte %d", at)
		require.Empty(t, m.Open())
	}
}

func (s *suite) testFailingSource(t *testing.T) {
	largest := s.largest()
	wrap := func(fn func(io.Reader) io.Reader) func(*Source) {
		return func(source *Source) {
			source.Wrap = func(name string, r io.Reader) io.Reader {
				if name == largest {
					return fn(r)
				}
				return r
			}
		}
	}
	size := int64(len(s.memory.Bytes(largest)))
	for name, prepare := range map[string]func(*Source){
		"open refused":        func(source *Source) { source.OnOpen = failFor(largest) },
		"close reports error": func(source *Source) { source.CloseError = errInjected },
		"error at the start":  wrap(func(io.Reader) io.Reader { return iotest.ErrReader(errInjected) }),
		"error in the middle": wrap(func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, size/2), iotest.ErrReader(errInjected))
		}),
		"wrong checksum at the end": wrap(func(r io.Reader) io.Reader {
			return io.MultiReader(r, iotest.ErrReader(errInjected))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			source := s.memory.Source(s.report)
			prepare(source)
			_, err := s.empty(t).Engine(t).Load(t.Context(), source)
			require.ErrorIs(t, err, errInjected)
		})
	}
	for name, cut := range map[string]int64{"nothing": 0, "half": size / 2, "all but one byte": size - 1} {
		t.Run("clean end too early/"+name, func(t *testing.T) {
			source := s.memory.Source(s.report)
			wrap(func(r io.Reader) io.Reader { return io.LimitReader(r, cut) })(source)
			_, err := s.empty(t).Engine(t).Load(t.Context(), source)
			require.Error(t, err)
		})
	}
}

// empty returns a server that holds nothing.
func (s *suite) empty(t *testing.T) Server {
	t.Helper()
	s.spare.Reset(t)
	return s.spare
}

// largest is the longest stream of rows.
func (s *suite) largest() string {
	name := ""
	for _, o := range s.report.Objects {
		for _, stream := range o.Data {
			if name == "" || len(s.memory.Bytes(stream)) > len(s.memory.Bytes(name)) {
				name = stream
			}
		}
	}
	return name
}

func (s *suite) testMismatch(t *testing.T) {
	for _, change := range []int64{-1, 1} {
		report := s.report
		report.Objects = slices.Clone(report.Objects)
		for i, o := range report.Objects {
			if slices.Contains(o.Data, s.largest()) {
				report.Objects[i].Rows += change
			}
		}
		if s.h.Opaque {
			report.Bytes += change
		}
		_, err := s.empty(t).Engine(t).Load(t.Context(), s.memory.Source(report))
		require.ErrorIs(t, err, dbdump.ErrMismatch)
	}
}

func (s *suite) testLoadCancelled(t *testing.T) {
	largest := s.largest()
	for name, before := range map[string]bool{"before it starts": true, "in the middle": false} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			source := s.memory.Source(s.report)
			source.OnOpen = func(stream string) error {
				if stream == largest {
					cancel()
				}
				return nil
			}
			if before {
				cancel()
			}
			_, err := s.empty(t).Engine(t).Load(ctx, source)
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

func (s *suite) testKilledLoad(t *testing.T) {
	target := s.empty(t) // nothing is loaded into it after this
	largest := s.largest()
	source := s.memory.Source(s.report)
	source.Wrap = func(name string, r io.Reader) io.Reader {
		if name != largest {
			return r
		}
		half := io.LimitReader(r, int64(len(s.memory.Bytes(largest))/2))
		return io.MultiReader(half, &callReader{fn: target.Kill}, r)
	}
	_, err := target.Engine(t).Load(t.Context(), source)
	require.Error(t, err)
}

func (s *suite) testKilledDump(t *testing.T) {
	m := NewMemory()
	var killed atomic.Bool
	m.OnWrite = func(total int64) error {
		if total > s.report.Bytes/3 && killed.CompareAndSwap(false, true) {
			s.full.Kill()
		}
		return nil
	}
	_, err := s.full.Engine(t).Dump(t.Context(), m)
	require.True(t, killed.Load(), "the dump ended before the server was killed")
	require.Error(t, err)
	require.Empty(t, m.Open())
}

// callReader calls fn when it is read, and is empty.
type callReader struct{ fn func() }

func (r *callReader) Read([]byte) (int, error) {
	r.fn()
	return 0, io.EOF
}
