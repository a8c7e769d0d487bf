package cli

import (
	"io"
	"log/slog"
	"sync"
)

// setLogger builds the logger that the flags ask for. Logs go to standard
// error, so that standard output stays the command's result. On a terminal a
// line is the message and its attributes; elsewhere it also carries time and
// level, because somebody will read it later.
func (a *App) setLogger() error {
	level := slog.LevelInfo
	if a.global.verbose {
		level = slog.LevelDebug
	}
	a.logs = &switchWriter{w: a.Err}
	handler, err := newHandler(a.global.logFormat, a.logs, level, isTerminal(a.Err))
	if err != nil {
		return err
	}
	a.Log = slog.New(handler)
	return nil
}

// switchWriter writes to a writer that can be exchanged.
type switchWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (s *switchWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func (s *switchWriter) to(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = w
}

func newHandler(format string, w io.Writer, level slog.Level, terminal bool) (slog.Handler, error) {
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "json":
		return slog.NewJSONHandler(w, opts), nil
	case "text":
		return slog.NewTextHandler(w, opts), nil
	case "auto":
		if terminal {
			opts.ReplaceAttr = terseAttr
		}
		return slog.NewTextHandler(w, opts), nil
	default:
		return nil, Usage("--log-format %q is not one of auto, text, json", format)
	}
}

// terseAttr drops what a person at a terminal does not need.
func terseAttr(groups []string, attr slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return attr
	}
	if attr.Key == slog.TimeKey {
		return slog.Attr{}
	}
	if attr.Key == slog.LevelKey && attr.Value.String() == slog.LevelInfo.String() {
		return slog.Attr{}
	}
	return attr
}
