package mysql

import (
	"context"
	"database/sql"

	mysqldriver "github.com/go-sql-driver/mysql"
)

// Engine dumps or loads one server. A value serves one Dump or one Load, or one
// Quiesce, or one Adopt.
type Engine struct {
	opts     Options
	db       *sql.DB
	patience patience
	holding  holding
}

// New checks the options. It does not connect.
func New(opts Options) (*Engine, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	config, err := opts.driverConfig()
	if err != nil {
		return nil, err
	}
	connector, err := mysqldriver.NewConnector(config)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	// Connections are never shared between uses: a session carries locks,
	// transactions and settings.
	db.SetMaxIdleConns(-1)
	return &Engine{opts: opts, db: db, patience: defaultPatience, holding: defaultHolding}, nil
}

// Close releases what the engine holds. Safe to call more than once.
func (e *Engine) Close() error { return e.db.Close() }

// server asks what the engine talks to, over a connection of its own.
func (e *Engine) server(ctx context.Context) (Server, error) {
	s, err := e.openSession(ctx)
	if err != nil {
		return Server{}, err
	}
	defer s.Close()
	return detect(ctx, s)
}
