package job_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage/mem"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 20, 13, 17, 30, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fakeServer is a database server in memory: tables of lines.
type fakeServer struct {
	mu     sync.Mutex
	tables map[string][]string
	// upstream makes it a follower.
	upstream *record.UpstreamCoordinates
	others   []record.UpstreamCoordinates
	warnings []string
	// fail is returned by a dump after its streams were opened.
	fail error
	// dumps counts.
	dumps int
	// lose is how many rows of each table a load drops without a word.
	lose int
}

func newServer(rows int) *fakeServer {
	s := &fakeServer{tables: map[string][]string{}}
	for t := range 3 {
		name := fmt.Sprintf("t%d", t)
		for i := range rows {
			s.tables[name] = append(s.tables[name], fmt.Sprintf("%s row %d\n", name, i))
		}
	}
	return s
}

// Dump writes one stream a table.
func (s *fakeServer) Dump(ctx context.Context, w dbdump.Sink) (record.Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dumps++
	r := record.Report{Engine: "fake", Layout: "fake/1", CapturedAt: time.Date(2026, 11, 20, 13, 17, 31, 0, time.UTC)}
	r.Coordinates.Upstream, r.Coordinates.OtherUpstreams, r.Warnings = s.upstream, s.others, s.warnings
	for _, name := range []string{"t0", "t1", "t2"} {
		lines, ok := s.tables[name]
		if !ok {
			continue
		}
		stream, err := w.Create(ctx, "data/"+name, dbdump.StreamOptions{})
		if err != nil {
			return r, err
		}
		for _, l := range lines {
			if _, err := io.WriteString(stream, l); err != nil {
				stream.Abort(err)
				return r, err
			}
			r.Bytes += int64(len(l))
		}
		if s.fail != nil {
			stream.Abort(s.fail)
			return r, s.fail
		}
		if err := stream.Close(); err != nil {
			return r, err
		}
		r.Rows += int64(len(lines))
		r.Objects = append(r.Objects, record.Object{Kind: "table", Name: name, Data: []string{"data/" + name}, Rows: int64(len(lines))})
	}
	return r, nil
}

// Load brings the streams back.
func (s *fakeServer) Load(ctx context.Context, src dbdump.Source) (record.Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := src.Report()
	if len(s.tables) > 0 {
		return r, dbdump.ErrNotEmpty
	}
	r.Rows = 0
	for _, o := range r.Objects {
		body, err := src.Open(ctx, o.Data[0])
		if err != nil {
			return r, err
		}
		content, err := io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil {
			return r, err
		}
		lines := splitLines(string(content))
		s.tables[o.Name] = lines[:max(0, len(lines)-s.lose)]
		r.Rows += int64(len(s.tables[o.Name]))
	}
	return r, nil
}

func splitLines(s string) []string {
	var lines []string
	for len(s) > 0 {
		i := 0
		for i < len(s) && s[i] != '\n' {
			i++
		}
		lines = append(lines, s[:min(i+1, len(s))])
		s = s[min(i+1, len(s)):]
	}
	return lines
}

// world is a repository in memory and servers by address.
type world struct {
	t       *testing.T
	clock   *clock
	store   *mem.Store
	repo    *repository.Repository
	servers map[string]*fakeServer
	order   []string
}

func newWorld(t *testing.T, rows ...int) *world {
	t.Helper()
	w := &world{t: t, clock: newClock(), servers: map[string]*fakeServer{}}
	w.store = mem.New(mem.Options{Now: w.clock.Now})
	_, err := repository.Init(t.Context(), w.store, repository.InitOptions{Clock: w.clock.Now})
	require.NoError(t, err)
	w.repo, err = repository.Open(t.Context(), w.store, repository.Keys{}, repository.Options{Clock: w.clock.Now})
	require.NoError(t, err)
	for i, n := range rows {
		address := fmt.Sprintf("db%d:3306", i)
		w.order = append(w.order, address)
		w.servers[address] = newServer(n)
	}
	return w
}

var testSet = record.SetID{Namespace: record.NoNamespace, Name: "shop"}

// backup returns a job over all servers, with an ID of its own.
func (w *world) backup() *job.Backup {
	w.clock.Add(time.Minute)
	return &job.Backup{
		Repository: w.repo, Set: testSet, ID: record.NewBackupID(w.clock.Now(), ""), Attempt: record.NewAttemptID(),
		Plan:     record.Plan{Method: record.MethodDump, Engine: "fake"},
		Discover: job.Sources(w.order),
		Open: func(m job.Member) (dbdump.Engine, error) {
			s, ok := w.servers[m.Address]
			if !ok {
				return nil, fmt.Errorf("connect to %s: %w", m.Address, dbdump.ErrUnreachable)
			}
			return s, nil
		},
		Rules:    job.SuspectRules{ShrinkPercent: 50, MaxLag: time.Minute},
		Parallel: 2, Clock: w.clock.Now, Log: slog.New(slog.DiscardHandler),
	}
}

// list returns the backups, newest first.
func (w *world) list() []repository.BackupInfo { return w.listOf(testSet) }

func (w *world) listOf(set record.SetID) []repository.BackupInfo {
	w.t.Helper()
	infos, err := w.repo.Backups(w.t.Context(), set)
	require.NoError(w.t, err)
	return infos
}
