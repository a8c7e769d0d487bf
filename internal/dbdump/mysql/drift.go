package mysql

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"keepset/internal/dbdump"
)

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

// checkDrift compares what is there with what was there before the lock.
func (d *dump) checkDrift(ctx context.Context) error {
	if err := d.coordinator.exec(ctx, "DO 1"); err != nil {
		return fmt.Errorf("the connection that held the lock was lost: %w", err)
	}
	later, err := d.readCatalog(ctx, d.coordinator)
	if err != nil {
		return err
	}
	diff := d.catalog.differences(later)
	accounts, err := d.accountsFingerprint(ctx, d.coordinator)
	if err != nil {
		return err
	}
	if accounts != d.accounts {
		diff = append(diff, "accounts or grants changed")
	}
	if len(diff) > 0 {
		const most = 10
		more := ""
		if len(diff) > most {
			more = fmt.Sprintf(" and %d more", len(diff)-most)
			diff = diff[:most]
		}
		return fmt.Errorf("%w: definitions changed between its start and its end: %s%s; run it again when no DDL runs", dbdump.ErrDrift, strings.Join(diff, ", "), more)
	}
	return nil
}
