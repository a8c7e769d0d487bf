package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// onceHandler hands on a warning only the first time that it comes with the
// same attributes: a restore opens several engines, one after the other, and
// each asks the same servers the same questions.
type onceHandler struct {
	slog.Handler
	// scope are the attributes of With, which are part of what is the same.
	scope string
	seen  *sync.Map
}

// onceLogger gives each warning of log once.
func onceLogger(log *slog.Logger) *slog.Logger {
	return slog.New(onceHandler{Handler: log.Handler(), seen: &sync.Map{}})
}

// Handle implements slog.Handler.
func (h onceHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		var key strings.Builder
		key.WriteString(h.scope + r.Message)
		r.Attrs(func(a slog.Attr) bool {
			fmt.Fprintf(&key, " %s", a)
			return true
		})
		if _, again := h.seen.LoadOrStore(key.String(), true); again {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h onceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return onceHandler{h.Handler.WithAttrs(attrs), h.scope + fmt.Sprint(attrs) + " ", h.seen}
}

// WithGroup implements slog.Handler.
func (h onceHandler) WithGroup(name string) slog.Handler {
	return onceHandler{h.Handler.WithGroup(name), h.scope + name + ".", h.seen}
}
