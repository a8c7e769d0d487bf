package postgres

import (
	"context"

	"keepset/internal/dbdump"
)

// Engine dumps or loads one server. A value serves one Dump or one Load.
type Engine struct {
	opts Options
}

var (
	_ dbdump.Engine = (*Engine)(nil)
	_ dbdump.Prober = (*Engine)(nil)
)

// New checks the options and reads the files that they name. It does not connect.
func New(opts Options) (*Engine, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if _, err := opts.TLS.config(opts.Address); err != nil {
		return nil, err
	}
	return &Engine{opts: opts}, nil
}

// Close releases what the engine holds, which is nothing between two calls.
func (e *Engine) Close() error { return nil }

// Ping implements dbdump.Prober.
func (e *Engine) Ping(ctx context.Context) error {
	s, err := e.admin(ctx)
	if err != nil {
		return err
	}
	return s.Close()
}

// Replicates implements dbdump.Prober: a server in recovery follows another one.
func (e *Engine) Replicates(ctx context.Context) (bool, error) {
	s, err := e.admin(ctx)
	if err != nil {
		return false, err
	}
	defer s.Close() //nolint:errcheck // only read
	standby, err := s.value(ctx, "SELECT pg_catalog.pg_is_in_recovery()")
	return standby == "t", err
}
