package mysql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	mysqldriver "github.com/go-sql-driver/mysql"
)

// placeholders stand for what broken views miss while these are created: the server checks a view when it is created,
// and never again until it is used.
type placeholders struct {
	loader  *loader
	session *session
	schemas []string
	tables  []placeholder
	// functions by name, with their number of arguments in the list.
	functions []function
	// moved are tables of the dump that lack a column which a view wants: aside as long as a placeholder has their name.
	moved []placeholder
	// views of the dump that cannot be opened because of their definer: until the end the load's own account is it.
	views []loadObject
}

type placeholder struct{ schema, name, aside string }

type function struct{ schema, name string }

// mostTries bounds how many things a single view may miss: as many as it can have columns, and some.
const mostTries = 5000

// create creates the view, providing whatever the server says is missing, one thing at a time. It returns the first
// complaint.
func (p *placeholders) create(ctx context.Context, o loadObject) (why, err error) {
	statements, err := p.loader.statements(ctx, o.DDL)
	if err != nil {
		return nil, err
	}
	refs, err := viewReferences(statements)
	if err != nil {
		return nil, err
	}
	for range mostTries {
		err = p.loader.createView(ctx, p.session, o)
		if err == nil {
			return why, nil
		}
		if why == nil {
			why = err
		}
		if provided, provideErr := p.provide(ctx, o, refs, err); provideErr != nil {
			return why, fmt.Errorf("%w: %w", err, provideErr)
		} else if !provided {
			return why, err
		}
	}
	return why, err
}

var (
	quotedName     = regexp.MustCompile(`'([^']+)'`)
	functionName   = regexp.MustCompile(`FUNCTION ([^ ;]+)`)
	argumentsGiven = regexp.MustCompile(`expected \d+, got (\d+)`)
)

// provide makes what the error says is missing; false when that is not possible.
func (p *placeholders) provide(ctx context.Context, o loadObject, refs references, err error) (bool, error) {
	var server *mysqldriver.MySQLError
	if !errors.As(err, &server) {
		return false, nil
	}
	named := ""
	if m := quotedName.FindStringSubmatch(server.Message); m != nil {
		named = m[1]
	}
	switch server.Number {
	case errUnknownDatabase:
		p.schemas = append(p.schemas, named)
		return true, p.session.exec(ctx, "CREATE DATABASE "+quoteIdentifier(named))
	case errNoSuchTable:
		ref, ok := refs.table(p.loader, o, named)
		return ok, p.table(ctx, ref, ok)
	case errBadField:
		return p.column(ctx, o, refs, named)
	case errInvalidView:
		ref, ok := refs.table(p.loader, o, named)
		if !ok {
			return p.setAsideAll(ctx, o, refs)
		}
		return p.setAside(ctx, ref)
	case errNoSuchUser, errTableAccessDenied, errColumnAccessDenied, errProcAccessDenied:
		return p.setAsideAll(ctx, o, refs)
	case errNoSuchRoutine, errWrongArguments:
		return p.function(ctx, o, server.Message)
	}
	return false, nil
}

// table creates a placeholder for a table.
func (p *placeholders) table(ctx context.Context, ref placeholder, ok bool) error {
	if !ok {
		return nil
	}
	p.tables = append(p.tables, ref)
	return p.session.exec(ctx, "CREATE TABLE "+quoteQualified(ref.schema, ref.name)+" (keepset_placeholder INT)")
}

// column adds a column to a placeholder; a table of the dump that lacks it is set aside for one.
func (p *placeholders) column(ctx context.Context, o loadObject, refs references, named string) (bool, error) {
	ref, column, ok := refs.column(p.loader, o, named)
	if !ok {
		return false, nil
	}
	if !slices.Contains(p.tables, ref) {
		if ok, err := p.setAside(ctx, ref); !ok || err != nil {
			return ok, err
		}
	}
	return true, p.session.exec(ctx, "ALTER TABLE "+quoteQualified(ref.schema, ref.name)+" ADD COLUMN "+quoteIdentifier(column)+" INT")
}

// setAsideAll sets aside every view that o reads.
func (p *placeholders) setAsideAll(ctx context.Context, o loadObject, refs references) (bool, error) {
	provided := false
	for _, ref := range refs.all(p.loader, o) {
		if !p.isView(ref) || slices.Contains(p.tables, ref) {
			continue
		}
		ok, err := p.setAside(ctx, ref)
		if err != nil {
			return false, err
		}
		provided = provided || ok
	}
	return provided, nil
}

func (p *placeholders) isView(ref placeholder) bool { return find(p.loader.plan.views, ref) != nil }

// setAside puts a placeholder where the load has created a table, and gives a view that it has created another
// definer. What the load has not created is not touched.
func (p *placeholders) setAside(ctx context.Context, ref placeholder) (bool, error) {
	if slices.Contains(p.tables, ref) {
		return false, nil // it is one already, and no help
	}
	name := quoteQualified(ref.schema, ref.name)
	if view := find(p.loader.plan.views, ref); view != nil {
		if find(p.views, ref) != nil {
			return false, nil
		}
		if err := p.session.exec(ctx, "DROP VIEW IF EXISTS "+name); err != nil {
			return false, err
		}
		p.views = append(p.views, *view)
		return true, p.loader.loadScript(ctx, p.session, *view, withOwnDefiner)
	}
	if find(p.loader.plan.tables, ref) == nil {
		return false, nil
	}
	moved := placeholder{schema: ref.schema, name: ref.name, aside: "keepset_aside_" + strconv.Itoa(len(p.moved))}
	if err := p.session.exec(ctx, "RENAME TABLE "+name+" TO "+quoteQualified(ref.schema, moved.aside)); err != nil {
		return false, err
	}
	p.moved = append(p.moved, moved)
	return true, p.table(ctx, ref, true)
}

// function creates a placeholder for a function with as many arguments as the view gives it.
func (p *placeholders) function(ctx context.Context, o loadObject, message string) (bool, error) {
	m := functionName.FindStringSubmatch(message)
	if m == nil {
		return false, nil
	}
	schema, name, dotted := strings.Cut(m[1], ".")
	if !dotted {
		schema, name = o.Target, m[1]
	}
	f := function{schema: schema, name: name}
	arguments := 0
	if m := argumentsGiven.FindStringSubmatch(message); m != nil {
		arguments, _ = strconv.Atoi(m[1])
		if !slices.Contains(p.functions, f) {
			return false, nil // the function is the dump's own
		}
		if err := p.session.exec(ctx, "DROP FUNCTION "+quoteQualified(schema, name)); err != nil {
			return false, err
		}
	} else {
		p.functions = append(p.functions, f)
	}
	list := make([]string, arguments)
	for i := range list {
		list[i] = "a" + strconv.Itoa(i) + " INT"
	}
	return true, p.session.exec(ctx, "CREATE FUNCTION "+quoteQualified(schema, name)+"("+strings.Join(list, ", ")+") RETURNS INT DETERMINISTIC RETURN 1")
}

// withOwnDefiner takes the definer out of a statement that creates a view, so that it is the load's account.
func withOwnDefiner(statement string, quote quoting) (string, error) {
	tokens, err := tokenize(statement, quote)
	if err != nil {
		return "", err
	}
	for i, tok := range tokens {
		// DEFINER = user @ host, and what may follow
		if tok.is(statement, "DEFINER") && i+6 < len(tokens) && tokens[i+1].is(statement, "=") && tokens[i+3].is(statement, "@") {
			return statement[:tok.start] + statement[tokens[i+4].end:], nil
		}
	}
	return statement, nil
}

// remove brings back what was set aside and drops the placeholders. Views come back in the reverse order of the dump:
// one that reads another that cannot be opened is created while that one can be.
func (p *placeholders) remove(ctx context.Context) error {
	exec := func(statement string) error { return p.session.exec(ctx, statement) }
	for _, o := range slices.Backward(p.loader.plan.views) {
		ref := placeholder{schema: o.Target, name: o.Name}
		if find(p.views, ref) == nil {
			continue
		}
		if err := exec("DROP VIEW " + quoteQualified(ref.schema, ref.name)); err != nil {
			return fmt.Errorf("remove placeholder: %w", err)
		}
		if err := p.loader.createView(ctx, p.session, o); err != nil {
			return err
		}
	}
	var statements []string
	for _, t := range p.tables {
		statements = append(statements, "DROP TABLE "+quoteQualified(t.schema, t.name))
	}
	for _, t := range p.moved {
		statements = append(statements, "RENAME TABLE "+quoteQualified(t.schema, t.aside)+" TO "+quoteQualified(t.schema, t.name))
	}
	for _, f := range p.functions {
		statements = append(statements, "DROP FUNCTION "+quoteQualified(f.schema, f.name))
	}
	for _, schema := range p.schemas {
		statements = append(statements, "DROP DATABASE "+quoteIdentifier(schema))
	}
	for _, statement := range statements {
		if err := exec(statement); err != nil {
			return fmt.Errorf("remove placeholder: %w", err)
		}
	}
	return nil
}

// find returns the object of that name.
func find(list []loadObject, ref placeholder) *loadObject {
	for i := range list {
		if list[i].Target == ref.schema && list[i].Name == ref.name {
			return &list[i]
		}
	}
	return nil
}
