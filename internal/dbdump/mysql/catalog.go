package mysql

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/internal/dbdump"
)

// catalog is what a dump is going to contain: read before the lock, again while
// MariaDB holds up DDL, and compared with what is there at the end.
type catalog struct {
	schemas []*schema
	// identities are InnoDB's own numbers of its tables, by their file names.
	// A table that takes another's name brings its number along.
	identities map[string]string
}

type schema struct {
	name      string
	collation string
	tables    []*table
	code      []*codeObject
	// whole is false when a filter names single tables: routines and events
	// are then left out.
	whole bool
}

// table is a base table, a sequence or a view.
type table struct {
	schema *schema
	name   string
	kind   string // as in information_schema: "BASE TABLE", "VIEW", "SEQUENCE", "SYSTEM VERSIONED"
	engine string
	// collation is the table's default.
	collation string
	comment   string
	options   string
	// created is empty where the server does not tell.
	created string
	// rows and size are estimates.
	rows, size int64
	columns    []column
	// keys are the unique keys, the primary key first.
	keys       []key
	partitions []partition
	// transactional tells whether the engine has consistent reads.
	transactional bool
	// structureOnly says why the rows are not dumped; empty when they are.
	structureOnly string

	// done tells that definition and rows were written while the lock was held.
	done bool
	// Found out when the definition is read.
	autoIncrement string
	// position are the statements that bring a sequence to where it was.
	position string
}

func (t *table) view() bool     { return t.kind == "VIEW" }
func (t *table) sequence() bool { return t.kind == "SEQUENCE" }

// base tells a table that has rows of its own.
func (t *table) base() bool { return !t.view() && !t.sequence() }

func (t *table) versioned() bool { return t.kind == "SYSTEM VERSIONED" }

// String is the quoted name.
func (t *table) String() string { return quoteQualified(t.schema.name, t.name) }

// column is one column of a table, in its order.
type column struct {
	name, dataType, columnType string
	charset, collation         string
	nullable                   bool
	extra, generation          string
	srid                       string
}

// generated columns have no data of their own. The period columns of a
// system-versioned table count as generated, but their values are history.
func (c column) generated() bool { return c.generation != "" && !c.period() }

func (c column) period() bool {
	return strings.EqualFold(c.generation, "ROW START") || strings.EqualFold(c.generation, "ROW END")
}

// key is a unique key.
type key struct {
	name    string
	columns []string
	// usable: no part is a prefix, an expression, or may be NULL, and the
	// optimizer may be told to use it.
	usable bool
}

// partition is a partition, or a subpartition where there are some.
type partition struct {
	name string
	rows int64
}

// systemSchema tells what belongs to the server itself. MariaDB shows the
// lost+found of a volume's root as a database.
func systemSchema(name string) bool {
	return isSystemSchema(name) || name == "#mysql50#lost+found" || strings.EqualFold(name, "ndbinfo")
}

// errBusy: definitions that were to be read are being changed by somebody.
var errBusy = fmt.Errorf("%w: another connection is changing definitions; run it again when no DDL runs", dbdump.ErrDrift)

// Warnings of MariaDB's information_schema about what it could not look at.
const errDefinitionSkipped = 1684

// list reads from information_schema. While the session itself holds a lock, MariaDB does not wait for a table whose
// definition somebody is changing: it leaves it out or shows it as broken, and says so in a warning only.
func (d *dump) list(ctx context.Context, s *session, query string, fn func(r row) error) error {
	if err := s.each(ctx, query, fn); err != nil || !d.server.MariaDB() {
		return err
	}
	return s.each(ctx, "SHOW WARNINGS", func(r row) error {
		if code := number(r.at(1)); code == errDefinitionSkipped || code == errLockWaitTimeout {
			d.log.Debug("definitions are being changed", "warning", r.at(2))
			return errBusy
		}
		return nil
	})
}

// readCatalog reads everything that passes the filter, a few queries per
// schema, however many tables it has.
func (d *dump) readCatalog(ctx context.Context, s *session) (*catalog, error) {
	begin := time.Now() //nolint:forbidigo // elapsed time
	c := &catalog{}
	err := s.each(ctx, "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA", func(r row) error {
		name := r.at(0)
		if !systemSchema(name) && d.opts.Filter.Schema(name) {
			c.schemas = append(c.schemas, &schema{name: name, collation: r.at(1), whole: d.opts.Filter.Whole(name)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(c.schemas, func(a, b *schema) int { return strings.Compare(a.name, b.name) })
	for _, sc := range c.schemas {
		if err := d.readSchema(ctx, s, sc); err != nil {
			return nil, fmt.Errorf("read the catalog of schema %s: %w", sc.name, err)
		}
	}
	if err := d.readIdentities(ctx, s, c); err != nil {
		return nil, err
	}
	d.catalogTook = time.Since(begin)
	return c, c.checkFilter(d.opts.Filter)
}

func (d *dump) readSchema(ctx context.Context, s *session, sc *schema) error {
	tables, err := d.readTables(ctx, s, sc)
	if err != nil {
		return err
	}
	if len(tables) > 0 {
		if err := d.readColumns(ctx, s, sc, tables); err != nil {
			return err
		}
		if err := d.readKeys(ctx, s, sc, tables); err != nil {
			return err
		}
		if err := d.readPartitions(ctx, s, sc, tables); err != nil {
			return err
		}
		if err := d.readCreationTimes(ctx, s, sc); err != nil {
			return err
		}
	}
	return d.readCode(ctx, s, sc)
}

func (d *dump) readTables(ctx context.Context, s *session, sc *schema) (map[string]*table, error) {
	tables := map[string]*table{}
	var broken error // unless the table is only being changed
	err := d.list(ctx, s, `SELECT TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_COLLATION, TABLE_COMMENT, CREATE_OPTIONS, CREATE_TIME,
		TABLE_ROWS, DATA_LENGTH FROM information_schema.TABLES WHERE TABLE_SCHEMA = `+quoteString(sc.name), func(r row) error {
		name := r.at(0)
		if !d.opts.Filter.Table(sc.name, name) || strings.HasPrefix(r.at(1), "TEMPORARY") {
			return nil
		}
		t := &table{
			schema: sc, name: name, kind: r.at(1), engine: r.at(2), collation: r.at(3), comment: r.at(4),
			options: r.at(5), created: r.at(6), rows: number(r.at(7)), size: number(r.at(8)),
		}
		if t.engine == "" && t.base() && strings.Contains(t.comment, "command denied") {
			return fmt.Errorf("table %s cannot be opened: %w: %s; grant the account what is denied to it, or exclude the table", t, dbdump.ErrPrivilege, t.comment)
		}
		if t.engine == "" && t.base() && broken == nil {
			broken = fmt.Errorf("table %s cannot be opened: %s; repair it, drop it, or exclude it", t, t.comment)
		}
		t.transactional, t.structureOnly = engineTraits(t.engine)
		tables[name] = t
		sc.tables = append(sc.tables, t)
		return nil
	})
	if err == nil {
		err = broken
	}
	slices.SortFunc(sc.tables, func(a, b *table) int { return strings.Compare(a.name, b.name) })
	return tables, err
}

// engineTraits tells engines with consistent reads from others, and those
// whose rows are not the server's own.
func engineTraits(engine string) (transactional bool, structureOnly string) {
	switch strings.ToUpper(engine) {
	case "INNODB", "ROCKSDB":
		return true, ""
	case "FEDERATED", "CONNECT", "SPIDER", "S3", "SPHINX", "OQGRAPH", "NDBCLUSTER", "COLUMNSTORE":
		return false, "its rows are kept outside the server by engine " + engine
	case "MRG_MYISAM":
		return false, "its rows belong to the tables that it merges"
	case "BLACKHOLE", "EXAMPLE", "SEQUENCE", "PERFORMANCE_SCHEMA":
		return false, "engine " + engine + " keeps no rows"
	}
	return false, ""
}

// number reads a count; NULL and nonsense are 0.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
