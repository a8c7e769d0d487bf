package mysql

import (
	"context"
	"database/sql"
	"errors"
)

// Ask implements dbdump.Asker. The query runs in a transaction that may only
// read: a check must not make what it looks for.
func (e *Engine) Ask(ctx context.Context, query string) (answer string, null bool, err error) {
	s, err := e.openSession(ctx)
	if err != nil {
		return "", false, err
	}
	defer s.Close()
	if err := s.exec(ctx, "START TRANSACTION READ ONLY"); err != nil {
		return "", false, err
	}
	rows, err := s.QueryContext(ctx, query)
	if err != nil {
		return "", false, s.queryError(query, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return "", false, err
	}
	if !rows.Next() {
		return "", true, rows.Err()
	}
	var first sql.NullString
	values := make([]any, len(columns))
	for i := range values {
		values[i] = new(sql.RawBytes)
	}
	if len(values) > 0 {
		values[0] = &first
	}
	if err := rows.Scan(values...); err != nil {
		return "", false, err
	}
	return first.String, !first.Valid, nil
}
