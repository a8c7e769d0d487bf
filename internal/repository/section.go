package repository

import (
	"bytes"
	"errors"
	"fmt"
)

// Section begins a part of the stream that is remembered by itself, or with nil
// by nobody, and ends the part before it. One stream can so hold thousands of
// small files of which each is recalled under a key of its own: a stream for
// each would make the map, which readers hold whole, as long as the tree. A
// chunk ends here, so that the part can be taken over without its neighbours.
// A part into which nothing is written is not remembered.
func (s *StreamWriter) Section(r *Remember) error {
	if err := s.begin("begin a section of"); err != nil {
		return err
	}
	if err := r.check(s.options.Secret); err != nil {
		return fmt.Errorf("begin a section of stream %q: %w", s.name, err)
	}
	if s.err = s.nextSection(r); s.err != nil {
		return fmt.Errorf("begin a section of stream %q: %w", s.name, s.err)
	}
	return nil
}

func (s *StreamWriter) nextSection(r *Remember) error {
	if err := s.interrupt(); err != nil {
		return err
	}
	if len(s.pending) > s.noted || s.memo.offset > 0 {
		if err := s.note(true); err != nil {
			return err
		}
	}
	s.noted, s.memo, s.options.Remember = len(s.pending), memoAt{}, nil
	if r == nil {
		return nil
	}
	s.options.Remember = &Remember{Key: r.Key, Fingerprint: bytes.Clone(r.Fingerprint)}
	var err error
	s.memo, err = s.w.memos.begin(r.Key)
	return err
}

// Cut ends the current chunk: what follows is cut into the same chunks whatever
// stands before it.
func (s *StreamWriter) Cut() error {
	if err := s.begin("cut"); err != nil {
		return err
	}
	if s.err = s.interrupt(); s.err != nil {
		return fmt.Errorf("cut stream %q: %w", s.name, s.err)
	}
	return nil
}

// ReuseAll appends all bytes of a remembered stream or section as Reuse does,
// or, where it returns ErrNotReusable, none of them.
func (s *StreamWriter) ReuseAll(e *Remembered) error {
	if err := s.begin("reuse for"); err != nil {
		return err
	}
	err := e.covers(s, 0, e.size)
	if err == nil {
		err = s.look(e)
	}
	if err != nil {
		if !errors.Is(err, ErrNotReusable) {
			s.err = err
		}
		return fmt.Errorf("reuse for stream %q: %w", s.name, err)
	}
	n, err := s.Reuse(e, 0, e.size)
	if err != nil && errors.Is(err, ErrNotReusable) {
		// Nobody could tell any more what the stream holds.
		s.err = fmt.Errorf("reuse for stream %q: after %d of %d bytes: %v", s.name, n, e.size, err) //nolint:errorlint // this end is not that one
		return s.err
	}
	return err
}

// look finds out whether every chunk is where it may be used.
func (s *StreamWriter) look(e *Remembered) error {
	for at := int64(0); at < e.size; {
		segments, begins, err := e.from(s.ctx, at)
		if err != nil {
			return err
		}
		chunks, err := s.w.pipeline.index.findRun(s.ctx, segments, len(segments))
		if err != nil {
			return err
		}
		if len(chunks) < len(segments) {
			return fmt.Errorf("%w: chunk %s is in no pack that may be used", ErrNotReusable, segments[len(chunks)].id)
		}
		at = begins
		for i := range segments {
			at += segments[i].size()
		}
	}
	return nil
}

// begin says why the stream takes nothing more, if so.
func (s *StreamWriter) begin(verb string) error {
	if s.ended {
		return fmt.Errorf("%s stream %q: %w", verb, s.name, ErrClosed)
	}
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err != nil {
		return fmt.Errorf("%s stream %q: %w", verb, s.name, s.err)
	}
	return nil
}
