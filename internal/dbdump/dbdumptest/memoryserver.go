package dbdumptest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// MemoryServer is a database in memory, and the engine that dumps and loads it: for the tests of what an engine is a part of.
// It dumps its tables in the order of their names, a stream each, and tells of each as a real server would be asked for it.
type MemoryServer struct {
	// Call, if not nil, is given each thing that the engine asks the server, and does it or returns an error in its place.
	Call func(what string, do func() error) error
	// Now is the server's clock.
	Now func() time.Time
	// Upstream makes it a follower.
	Upstream *record.UpstreamCoordinates

	mu     sync.Mutex
	tables map[string][]byte
}

// NewMemoryServer returns one without a table, by that clock.
func NewMemoryServer(now func() time.Time) *MemoryServer {
	return &MemoryServer{Now: now, tables: map[string][]byte{}}
}

// Set replaces a table, whose rows are lines.
func (s *MemoryServer) Set(table string, lines []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables[table] = lines
}

// Tables are those that it has.
func (s *MemoryServer) Tables() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.tables)
}

// Clear drops them.
func (s *MemoryServer) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tables)
}

func (s *MemoryServer) call(what string, do func() error) error {
	if s.Call == nil {
		return do()
	}
	return s.Call(what, do)
}

// Dump implements [dbdump.Engine].
func (s *MemoryServer) Dump(ctx context.Context, w dbdump.Sink) (record.Report, error) {
	r := record.Report{Engine: "memory", Layout: "memory/1"}
	var tables map[string][]byte
	if err := s.call("begin", func() error {
		tables, r.CapturedAt, r.Coordinates.Upstream = s.Tables(), s.Now(), s.Upstream
		return nil
	}); err != nil {
		return r, err
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		stream, err := w.Create(ctx, "data/"+name, dbdump.StreamOptions{})
		if err != nil {
			return r, err
		}
		if err := s.call("select "+name, func() error {
			_, err := stream.Write(tables[name])
			return err
		}); err != nil {
			stream.Abort(err)
			return r, err
		}
		if err := stream.Close(); err != nil {
			return r, err
		}
		rows := rowsOf(tables[name])
		r.Rows, r.Bytes = r.Rows+rows, r.Bytes+int64(len(tables[name]))
		r.Objects = append(r.Objects, record.Object{Kind: "table", Name: name, Data: []string{"data/" + name}, Rows: rows})
	}
	return r, s.call("end", func() error { return nil })
}

func rowsOf(lines []byte) int64 { return int64(bytes.Count(lines, []byte("\n"))) }

// Load implements [dbdump.Engine]. It refuses a server that has tables.
func (s *MemoryServer) Load(ctx context.Context, src dbdump.Source) (record.Report, error) {
	r := src.Report()
	r.Rows = 0
	if err := s.call("look", func() error {
		if len(s.Tables()) > 0 {
			return dbdump.ErrNotEmpty
		}
		return nil
	}); err != nil {
		return r, err
	}
	for _, o := range r.Objects {
		lines, err := read(ctx, src, o.Data[0])
		if err != nil {
			return r, err
		}
		if err := s.call("insert "+o.Name, func() error { s.Set(o.Name, lines); return nil }); err != nil {
			return r, err
		}
		r.Rows += rowsOf(lines)
	}
	return r, nil
}

func read(ctx context.Context, src dbdump.Source, name string) ([]byte, error) {
	body, err := src.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	lines, err := io.ReadAll(body)
	if closed := body.Close(); err == nil {
		err = closed
	}
	return lines, err
}
