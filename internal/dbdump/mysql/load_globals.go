package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A load changes settings of the whole server in three cases only, where nothing else helps. It puts back at its end,
// however it ends: read_only of a follower, and log_bin_trust_function_creators for functions that the source let in.
// What stays is partial_revokes, without which MySQL would forget what accounts may not do.

// globals are the settings that the load has changed and puts back, by their values.
type globals struct{ names, values []string }

// setGlobal changes a setting of the server until the load ends.
func (l *loader) setGlobal(ctx context.Context, s *session, name, value string) error {
	var old string
	if err := s.queryRow(ctx, "SELECT @@GLOBAL."+name, &old); err != nil {
		return err
	}
	if err := s.exec(ctx, "SET GLOBAL "+name+"="+value); err != nil {
		return privilegeError(err, "change "+name+" for the load")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.names, l.changed.values = append(l.changed.names, name), append(l.changed.values, old)
	l.log.Info("server setting changed until the load ends", "name", name, "value", value)
	return nil
}

// restoreGlobals puts back what setGlobal has changed. The load's context may be over by now.
func (l *loader) restoreGlobals(ctx context.Context) error {
	if len(l.changed.names) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.engine.opts.ConnectTimeout)
	defer cancel()
	s, err := l.engine.openSession(ctx)
	if err != nil {
		return fmt.Errorf("put back %s on the server: %w", strings.Join(l.changed.names, ", "), err)
	}
	defer s.Close()
	var errs []error
	for i, name := range slices.Backward(l.changed.names) {
		if err := s.exec(ctx, "SET GLOBAL "+name+"="+l.changed.values[i]); err != nil {
			errs = append(errs, fmt.Errorf("put back %s on the server: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// liftReadOnly makes a follower writable for as long as the load takes.
func (l *loader) liftReadOnly(ctx context.Context, s *session) error {
	variables := []string{"read_only"}
	if !l.server.MariaDB() {
		variables = []string{"super_read_only", "read_only"}
	}
	for _, name := range variables {
		var value string
		if err := s.queryRow(ctx, "SELECT @@GLOBAL."+name, &value); err != nil {
			return err
		}
		if value == "0" || strings.EqualFold(value, "OFF") {
			continue
		}
		if !l.opts.Follower {
			return fmt.Errorf("the target is read-only (%s is on), as followers are: load into the primary, or switch it off", name)
		}
		if err := l.setGlobal(ctx, s, name, "OFF"); err != nil {
			return err
		}
	}
	return nil
}

// trustCreators lets functions and triggers in that the server's own rules for the binary log would refuse: the source
// has them. It reports whether the statement is worth another try.
func (l *loader) trustCreators(ctx context.Context, s *session, err error) (bool, error) {
	if n := errorNumber(err); n != errUnsafeRoutine && n != errNeedsSuperWithLog {
		return false, nil
	}
	l.mu.Lock()
	done := slices.Contains(l.changed.names, trustVariable)
	l.mu.Unlock()
	if done {
		return false, nil
	}
	if err := l.setGlobal(ctx, s, trustVariable, "ON"); err != nil {
		return false, fmt.Errorf("%w (or set it to ON on the server before the load)", err)
	}
	return true, nil
}

// allowPartialRevokes lets rights be taken away from a schema that were given on all of them: MySQL knows such a REVOKE
// only with partial_revokes, and switches that on by itself when it starts with one. It reports whether the statement is
// worth another try.
func (l *loader) allowPartialRevokes(ctx context.Context, s *session) (bool, error) {
	if l.server.MariaDB() || !l.server.AtLeast(8, 0, 16) {
		return false, nil
	}
	var on bool
	if err := s.queryRow(ctx, "SELECT @@GLOBAL.partial_revokes", &on); err != nil || on {
		return false, err
	}
	if err := s.exec(ctx, "SET GLOBAL partial_revokes=ON"); err != nil {
		return false, privilegeError(err, "switch partial_revokes on, which accounts of the backup need (or set it on the server before the load)")
	}
	l.warn("partial_revokes was switched on, as on the source: accounts of the backup are kept from some schemas; set it in the server's configuration too")
	return true, nil
}

const trustVariable = "log_bin_trust_function_creators"

// Error numbers of functions and triggers that the binary log makes the server refuse.
const (
	errUnsafeRoutine     = 1418
	errNeedsSuperWithLog = 1419
)
