package mysql

import (
	"context"
	"errors"
	"fmt"
)

// loadViews creates the views. The dump orders them by what they read; one that still misses something waits until
// the others are there. What is left then cannot be created as it is: on the source, too, it reads a table, column or
// function that is no longer there, or with the rights of an account that does not have them. Such views are created
// over placeholders, which go away again.
func (l *loader) loadViews(ctx context.Context) error {
	return l.session(ctx, func(s *session) error {
		waiting := l.plan.views
		for len(waiting) > 0 {
			var still []loadObject
			for _, o := range waiting {
				err := l.createView(ctx, s, o)
				if missesSomething(err) {
					still = append(still, o)
				} else if err != nil {
					return err
				}
			}
			if len(still) == len(waiting) {
				return l.loadBrokenViews(ctx, s, still)
			}
			waiting = still
		}
		return nil
	})
}

// createView creates a view, or leaves nothing of it behind: MySQL may keep one that it has complained of.
func (l *loader) createView(ctx context.Context, s *session, o loadObject) error {
	err := l.loadScript(ctx, s, o, nil)
	if missesSomething(err) {
		if dropErr := s.exec(ctx, "DROP VIEW IF EXISTS "+quoteQualified(o.Target, o.Name)); dropErr != nil {
			return fmt.Errorf("%w: %w", dropErr, err)
		}
	}
	return err
}

// missesSomething reports whether a view could not be created because of what it reads.
func missesSomething(err error) bool {
	switch errorNumber(err) {
	case errUnknownDatabase, errNoSuchTable, errBadField, errNoSuchRoutine, errInvalidView, errNoSuchUser,
		errTableAccessDenied, errColumnAccessDenied, errProcAccessDenied:
		return true
	}
	return false
}

// loadBrokenViews creates views over placeholders, and removes those again.
func (l *loader) loadBrokenViews(ctx context.Context, s *session, views []loadObject) (err error) {
	p := &placeholders{loader: l, session: s}
	defer func() { err = errors.Join(err, p.remove(ctx)) }()
	for _, o := range views {
		why, err := p.create(ctx, o)
		if err != nil {
			return fmt.Errorf("%w (it could not be created over placeholders either)", err)
		}
		l.warn("%s was created but cannot be used, as on the source: %s", o, brokenReason(o, why))
	}
	return nil
}

// brokenReason is the source's message, or that of the target.
func brokenReason(o loadObject, why error) string {
	if reason := o.Attributes[AttrBroken]; reason != "" {
		return reason
	}
	return errors.Unwrap(why).Error()
}
