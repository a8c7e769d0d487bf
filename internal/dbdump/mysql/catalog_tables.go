package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

func (d *dump) readColumns(ctx context.Context, s *session, sc *schema, tables map[string]*table) error {
	srid := "''"
	if !d.server.MariaDB() && d.server.AtLeast(8, 0, 3) {
		srid = "SRS_ID"
	}
	err := d.list(ctx, s, `SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE,
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
	return d.list(ctx, s, `SELECT G_TABLE_NAME, G_GEOMETRY_COLUMN, SRID FROM information_schema.GEOMETRY_COLUMNS
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
	err := d.list(ctx, s, `SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE, INDEX_TYPE, `+expression+`, `+ignored+`
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
	return d.list(ctx, s, `SELECT TABLE_NAME, COALESCE(SUBPARTITION_NAME, PARTITION_NAME), TABLE_ROWS FROM information_schema.PARTITIONS
		WHERE PARTITION_NAME IS NOT NULL AND TABLE_SCHEMA = `+quoteString(sc.name)+`
		ORDER BY TABLE_NAME, PARTITION_ORDINAL_POSITION, SUBPARTITION_ORDINAL_POSITION`, func(r row) error {
		if t := tables[r.at(0)]; t != nil {
			t.partitions = append(t.partitions, partition{name: r.at(1), rows: number(r.at(2))})
		}
		return nil
	})
}
