package postgres

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// loadDatabase loads one database.
func (l *loader) loadDatabase(ctx context.Context, admin *session, db *loadDatabase) error {
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"database", func(ctx context.Context) error { return l.prepareDatabase(ctx, admin, db) }},
		{"definitions before rows", func(ctx context.Context) error { return l.loadPreData(ctx, db) }},
		{"rows", func(ctx context.Context) error { return l.loadRows(ctx, db) }},
		{"sequences", func(ctx context.Context) error { return l.loadSequences(ctx, db) }},
		{"comparison", func(ctx context.Context) error { return l.compare(ctx, db) }},
		{"definitions after rows", func(ctx context.Context) error { return l.loadPostData(ctx, db) }},
		{"partitions", func(ctx context.Context) error { return l.attachPartitions(ctx, db) }},
	} {
		start := time.Now() //nolint:forbidigo // a duration for the log
		if err := step.run(ctx); err != nil {
			return err
		}
		l.log.Debug("load step done", "database", db.target, "step", step.name, "seconds", time.Since(start).Seconds())
	}
	return nil
}

// in runs fn with a session in the database.
func (l *loader) in(ctx context.Context, db *loadDatabase, fn func(*session) error) error {
	s, err := l.engine.connect(ctx, db.target)
	if err != nil {
		return err
	}
	defer s.abandon()
	return fn(s)
}

// loadPreData creates everything that has to be there before rows.
func (l *loader) loadPreData(ctx context.Context, db *loadDatabase) error {
	stream := db.self.Attributes[AttrPreData]
	if stream == "" {
		return nil
	}
	return l.in(ctx, db, func(s *session) error {
		if db.whole && !db.has("public") {
			// The new database has it, the old one had not.
			if err := s.exec(ctx, "DROP SCHEMA IF EXISTS public"); err != nil {
				return err
			}
		}
		return l.replacing(ctx, s, db, func(run runFunc) error {
			return l.eachStatement(ctx, stream, func(code []byte, st statement) error {
				if !db.whole && !db.chosen.wants(code, st) {
					return nil
				}
				return l.runOfPart(ctx, run, db, l.forTarget(code, st), st, false)
			})
		})
	})
}

// runFunc runs a statement of a script, as session.run does.
type runFunc func(ctx context.Context, code []byte, st statement) error

// runOfPart runs a statement and judges its failure.
func (l *loader) runOfPart(ctx context.Context, run runFunc, db *loadDatabase, code []byte, st statement, postData bool) error {
	err := run(ctx, code, st)
	switch {
	case err == nil || db.whole || !ofPart(err, st, postData):
		return err
	case sqlState(err) != stateSchemaExists: // which is where the part goes
		l.warn("database %s: left out of this part: %v", db.target, err)
	}
	return nil
}

// loadSequences sets the positions of the selected sequences.
func (l *loader) loadSequences(ctx context.Context, db *loadDatabase) error {
	stream := db.self.Attributes[AttrPositions]
	if stream == "" {
		return nil
	}
	var calls []string
	for _, o := range db.of(KindSequence) {
		calls = append(calls, "SELECT pg_catalog.setval("+quoteString(qualifiedName(o))+",")
	}
	return l.in(ctx, db, func(s *session) error {
		set := 0
		err := l.eachStatement(ctx, stream, func(code []byte, st statement) error {
			if st.kind != stmtSession {
				if !hasPrefixOf(code, calls) {
					return nil
				}
				set++
			}
			return s.run(ctx, code, st)
		})
		if err == nil && set != countWithRows(db.of(KindSequence)) {
			err = fmt.Errorf("stream %s holds the positions of %d of %d sequences", stream, set, len(calls))
		}
		return err
	})
}

func hasPrefixOf(code []byte, prefixes []string) bool {
	for _, p := range prefixes {
		if bytes.HasPrefix(code, []byte(p)) {
			return true
		}
	}
	return false
}

// loadPostData creates what comes after rows. Indexes and the constraints that
// are made of one take the time: those that follow each other are built at once.
func (l *loader) loadPostData(ctx context.Context, db *loadDatabase) error {
	stream := db.self.Attributes[AttrPostData]
	if stream == "" {
		return nil
	}
	p := &postData{l: l, db: db}
	defer p.close()
	for range l.engine.opts.Workers {
		s, err := l.engine.connect(ctx, db.target)
		if err != nil {
			return err
		}
		p.sessions = append(p.sessions, s)
	}
	err := l.eachStatement(ctx, stream, func(code []byte, st statement) error {
		if !db.whole && !db.chosen.wants(code, st) {
			return nil
		}
		return p.take(ctx, l.forTarget(code, st), st)
	})
	if err != nil {
		return err
	}
	return p.flush(ctx)
}

// postData runs the statements of a post-data stream.
type postData struct {
	l        *loader
	db       *loadDatabase
	sessions []*session
	builds   []build // independent of each other, not run yet
	bytes    int
}

type build struct {
	code []byte
	st   statement
}

// Bounds on what is kept in memory until it is run.
const (
	mostBuilds     = 10000
	mostBuildBytes = 16 << 20
)

func (p *postData) close() {
	for _, s := range p.sessions {
		s.abandon()
	}
}

// take runs a statement once those before it that it may need are done.
func (p *postData) take(ctx context.Context, code []byte, st statement) error {
	if builds(code, st) {
		p.builds = append(p.builds, build{bytes.Clone(code), st})
		p.bytes += len(code)
		if len(p.builds) < mostBuilds && p.bytes < mostBuildBytes {
			return nil
		}
		return p.flush(ctx)
	}
	if err := p.flush(ctx); err != nil {
		return err
	}
	if st.kind != stmtSession {
		return p.l.runOfPart(ctx, p.sessions[0].run, p.db, code, st, true)
	}
	for _, s := range p.sessions {
		if err := s.run(ctx, code, st); err != nil {
			return err
		}
	}
	return nil
}

// builds tells statements that build an index and need nothing else of this
// stream.
func builds(code []byte, st statement) bool {
	if st.verb == "create" && st.kind == stmtIndex {
		return true
	}
	if st.verb != "alter" || st.kind != "table" || constraintName(code) == "" {
		return false
	}
	tokens := tokensOf(code, 24)
	for i := 1; i+2 < len(tokens); i++ {
		if tokens[i-1].is("add") && tokens[i].is("constraint") {
			what := tokens[i+2]
			return what.is("primary") || what.is("unique") || what.is("exclude")
		}
	}
	return false
}

// flush runs the builds that have gathered.
func (p *postData) flush(ctx context.Context) error {
	list := p.builds
	p.builds, p.bytes = nil, 0
	if len(list) == 0 {
		return nil
	}
	var mu sync.Mutex
	var again []build // what got in each other's way
	queue := make(chan build)
	group, inner := errgroup.WithContext(ctx)
	for _, s := range p.sessions {
		group.Go(func() error {
			for b := range queue {
				err := p.l.runOfPart(inner, s.run, p.db, b.code, b.st, true)
				if sqlState(err) == stateDeadlock {
					mu.Lock()
					again = append(again, b)
					mu.Unlock()
					continue
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(queue)
		for _, b := range list {
			select {
			case queue <- b:
			case <-inner.Done():
				return context.Cause(inner)
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	for _, b := range again {
		if err := p.l.runOfPart(ctx, p.sessions[0].run, p.db, b.code, b.st, true); err != nil {
			return err
		}
	}
	return nil
}

// tableLabel names a table in messages.
func tableLabel(db, schema, name string) string { return strings.Join([]string{db, schema, name}, ".") }
