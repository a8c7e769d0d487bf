package mysql

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"keepset/internal/record"
)

// catalog is what a dump is going to contain: read before the lock, compared
// with what is there at the end.
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
	created   string
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

// readCatalog reads everything that passes the filter, a few queries per
// schema, however many tables it has.
func (d *dump) readCatalog(ctx context.Context, s *session) (*catalog, error) {
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
	return c, c.checkFilter(d.opts.Filter)
}

// readIdentities reads InnoDB's numbers of the tables. Definitions alone do
// not show that two tables of the same shape changed places.
func (d *dump) readIdentities(ctx context.Context, s *session, c *catalog) error {
	c.identities = map[string]string{}
	source := "INNODB_SYS_TABLES"
	if !d.server.MariaDB() && d.server.AtLeast(8, 0, 0) {
		source = "INNODB_TABLES"
	}
	return s.each(ctx, "SELECT NAME, TABLE_ID FROM information_schema."+source, func(r row) error {
		db, file, _ := strings.Cut(r.at(0), "/")
		// Partitions end in #P#..., temporary tables of ALTER begin with #sql,
		// and full-text indexes keep tables of their own.
		name, _, _ := strings.Cut(file, "#")
		db, name = fromFileName(db), fromFileName(name)
		if name != "" && !strings.HasPrefix(name, "FTS_") && !systemSchema(db) && d.opts.Filter.Table(db, name) {
			c.identities[r.at(0)] = r.at(1)
		}
		return nil
	})
}

var escapedRune = regexp.MustCompile("@[0-9a-f]{4}")

// fromFileName undoes the server's encoding of names as file names, as far as
// filters are likely to need it.
func fromFileName(name string) string {
	return escapedRune.ReplaceAllStringFunc(name, func(s string) string {
		n, err := strconv.ParseUint(s[1:], 16, 16)
		if err != nil {
			return s
		}
		return string(rune(n))
	})
}

// checkFilter refuses a filter that asks for something that is not there: a
// backup of nothing must not look like one.
func (c *catalog) checkFilter(f Filter) error {
	for _, pattern := range f.Include {
		only := Filter{Include: []string{pattern}}
		found := slices.ContainsFunc(c.schemas, func(s *schema) bool {
			return only.Whole(s.name) || slices.ContainsFunc(s.tables, func(t *table) bool { return only.Table(s.name, t.name) })
		})
		if !found {
			return fmt.Errorf("nothing on the server is selected by %q: a database or table of that name does not exist, is a system schema, or is excluded", pattern)
		}
	}
	return nil
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
	}
	return d.readCode(ctx, s, sc)
}

func (d *dump) readTables(ctx context.Context, s *session, sc *schema) (map[string]*table, error) {
	tables := map[string]*table{}
	err := s.each(ctx, `SELECT TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_COLLATION, TABLE_COMMENT, CREATE_OPTIONS, CREATE_TIME,
		TABLE_ROWS, DATA_LENGTH FROM information_schema.TABLES WHERE TABLE_SCHEMA = `+quoteString(sc.name), func(r row) error {
		name := r.at(0)
		if !d.opts.Filter.Table(sc.name, name) || strings.HasPrefix(r.at(1), "TEMPORARY") {
			return nil
		}
		t := &table{
			schema: sc, name: name, kind: r.at(1), engine: r.at(2), collation: r.at(3), comment: r.at(4),
			options: r.at(5), created: r.at(6), rows: number(r.at(7)), size: number(r.at(8)),
		}
		if t.engine == "" && t.base() {
			return fmt.Errorf("table %s cannot be opened: %s; repair it, drop it, or exclude it", t, t.comment)
		}
		t.transactional, t.structureOnly = engineTraits(t.engine)
		tables[name] = t
		sc.tables = append(sc.tables, t)
		return nil
	})
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

func (d *dump) readColumns(ctx context.Context, s *session, sc *schema, tables map[string]*table) error {
	srid := "''"
	if !d.server.MariaDB() && d.server.AtLeast(8, 0, 3) {
		srid = "SRS_ID"
	}
	err := s.each(ctx, `SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE,
		EXTRA, GENERATION_EXPRESSION, `+srid+` FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = `+quoteString(sc.name)+`
		ORDER BY TABLE_NAME, ORDINAL_POSITION`, func(r row) error {
		t := tables[r.at(0)]
		if t == nil || t.view() {
			return nil
		}
		t.columns = append(t.columns, column{
			name: r.at(1), dataType: strings.ToLower(r.at(2)), columnType: r.at(3), charset: r.at(4), collation: r.at(5),
			nullable: r.at(6) == "YES", extra: r.at(7), generation: r.at(8), srid: r.at(9),
		})
		return nil
	})
	if err != nil {
		return err
	}
	for _, t := range sc.tables {
		if t.base() && len(t.columns) == 0 {
			return fmt.Errorf("the columns of table %s are not shown: it was dropped just now, or the account lacks SELECT on it", t)
		}
	}
	return d.readReferenceSystems(ctx, s, sc, tables)
}

// readReferenceSystems fetches MariaDB's REF_SYSTEM_ID, which SHOW CREATE
// TABLE does not show.
func (d *dump) readReferenceSystems(ctx context.Context, s *session, sc *schema, tables map[string]*table) error {
	if !d.server.MariaDB() || !slices.ContainsFunc(sc.tables, (*table).geometry) {
		return nil
	}
	return s.each(ctx, `SELECT G_TABLE_NAME, G_GEOMETRY_COLUMN, SRID FROM information_schema.GEOMETRY_COLUMNS
		WHERE SRID <> 0 AND G_TABLE_SCHEMA = `+quoteString(sc.name), func(r row) error {
		if t := tables[r.at(0)]; t != nil {
			for i := range t.columns {
				if t.columns[i].name == r.at(1) {
					t.columns[i].srid = r.at(2)
				}
			}
		}
		return nil
	})
}

func (t *table) geometry() bool {
	return slices.ContainsFunc(t.columns, func(c column) bool { return spatialTypes[c.dataType] })
}

func (d *dump) readKeys(ctx context.Context, s *session, sc *schema, tables map[string]*table) error {
	expression := "NULL"
	if !d.server.MariaDB() && d.server.AtLeast(8, 0, 13) {
		expression = "EXPRESSION"
	}
	ignored := "'NO'"
	switch {
	case d.server.MariaDB() && d.server.AtLeast(10, 6, 0):
		ignored = "IGNORED"
	case !d.server.MariaDB() && d.server.AtLeast(8, 0, 0):
		ignored = "IF(IS_VISIBLE = 'YES', 'NO', 'YES')"
	}
	err := s.each(ctx, `SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE, INDEX_TYPE, `+expression+`, `+ignored+`
		FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND TABLE_SCHEMA = `+quoteString(sc.name)+`
		ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX`, func(r row) error {
		t := tables[r.at(0)]
		if t == nil {
			return nil
		}
		if n := len(t.keys); n == 0 || t.keys[n-1].name != r.at(1) {
			t.keys = append(t.keys, key{name: r.at(1), usable: true})
		}
		k := &t.keys[len(t.keys)-1]
		k.columns = append(k.columns, r.at(2))
		if !r.null(3) || r.at(4) == "YES" || !r.null(6) || r.at(7) != "NO" || r.at(5) != "BTREE" {
			k.usable = false
		}
		return nil
	})
	for _, t := range sc.tables {
		slices.SortStableFunc(t.keys, func(a, b key) int {
			switch {
			case a.name == "PRIMARY" && b.name != "PRIMARY":
				return -1
			case b.name == "PRIMARY" && a.name != "PRIMARY":
				return 1
			}
			return 0
		})
	}
	return err
}

func (d *dump) readPartitions(ctx context.Context, s *session, sc *schema, tables map[string]*table) error {
	if !slices.ContainsFunc(sc.tables, func(t *table) bool { return strings.Contains(t.options, "partitioned") }) {
		return nil
	}
	return s.each(ctx, `SELECT TABLE_NAME, COALESCE(SUBPARTITION_NAME, PARTITION_NAME), TABLE_ROWS FROM information_schema.PARTITIONS
		WHERE PARTITION_NAME IS NOT NULL AND TABLE_SCHEMA = `+quoteString(sc.name)+`
		ORDER BY TABLE_NAME, PARTITION_ORDINAL_POSITION, SUBPARTITION_ORDINAL_POSITION`, func(r row) error {
		if t := tables[r.at(0)]; t != nil {
			t.partitions = append(t.partitions, partition{name: r.at(1), rows: number(r.at(2))})
		}
		return nil
	})
}

// number reads a count; NULL and nonsense are 0.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// differences lists what is not the same in two readings of the catalog.
// Estimates do not count.
func (c *catalog) differences(later *catalog) []string {
	a, b := c.fingerprints(), later.fingerprints()
	var diff []string
	for name, was := range a {
		if is, ok := b[name]; !ok {
			diff = append(diff, name+" is gone")
		} else if is != was {
			diff = append(diff, name+" changed")
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			diff = append(diff, name+" is new")
		}
	}
	slices.Sort(diff)
	return diff
}

func (c *catalog) fingerprints() map[string]string {
	prints := map[string]string{}
	for name, id := range c.identities {
		prints["file "+name] = id
	}
	for _, s := range c.schemas {
		prints["schema "+quoteIdentifier(s.name)] = s.collation
		for _, t := range s.tables {
			prints["table "+t.String()] = fmt.Sprint(t.kind, "|", t.engine, "|", t.collation, "|", t.comment, "|", t.options, "|", t.created, "|",
				t.columns, t.keys, t.partitionNames())
		}
		for _, o := range s.code {
			prints[o.kind+" "+quoteQualified(s.name, o.name)+o.subtype] = o.fingerprint
		}
	}
	return prints
}

func (t *table) partitionNames() []string {
	names := make([]string, len(t.partitions))
	for i, p := range t.partitions {
		names[i] = p.name
	}
	return names
}

// spatialTypes hold geometries.
var spatialTypes = map[string]bool{
	"geometry": true, "point": true, "linestring": true, "polygon": true, "multipoint": true,
	"multilinestring": true, "multipolygon": true, "geometrycollection": true, "geomcollection": true,
}

// dataColumns are the columns of a table's data streams, and the expressions
// that read them.
func (d *dump) dataColumns(t *table) (columns []record.Column, expressions []string) {
	for _, c := range t.columns {
		if c.generated() || (c.period() && !d.keepsHistory(t)) {
			continue
		}
		encoding, expression := d.encoding(c)
		columns = append(columns, record.Column{Name: c.name, Type: c.columnType, Encoding: encoding})
		expressions = append(expressions, expression)
	}
	if d.keepsHistory(t) && !slices.ContainsFunc(t.columns, column.period) {
		for _, name := range []string{"row_start", "row_end"} {
			columns = append(columns, record.Column{Name: name, Type: "timestamp(6)"})
			expressions = append(expressions, quoteIdentifier(name))
		}
	}
	return columns, expressions
}

// keepsHistory tells whether the rows of the past are dumped with their times.
// History by transaction number means nothing in another server.
func (d *dump) keepsHistory(t *table) bool {
	if !t.versioned() {
		return false
	}
	return !slices.ContainsFunc(t.columns, func(c column) bool { return c.period() && c.dataType != "timestamp" })
}

// encoding says how a column is written and read.
func (d *dump) encoding(c column) (encoding, expression string) {
	name := quoteIdentifier(c.name)
	switch {
	case c.dataType == "bit", c.dataType == "vector", spatialTypes[c.dataType]:
		return EncodingHex, name
	case c.dataType == "float", c.dataType == "double":
		// As a column, FLOAT is sent with six digits and FLOAT(M,D) with D.
		// Multiplied, it is a double with all of them, and keeps its sign.
		return EncodingDouble, name + " * 1e0"
	case integerTypes[c.dataType] && strings.Contains(c.columnType, "zerofill"):
		return EncodingRaw, name + " + 0"
	case c.dataType == "json" && !d.server.MariaDB():
		return EncodingJSON, name
	case c.dataType == "uuid", c.dataType == "inet4", c.dataType == "inet6":
		// Their text is no text of a character set: sent as bytes the server
		// takes it for the stored form.
		return EncodingJSON, name
	}
	return EncodingRaw, name
}
