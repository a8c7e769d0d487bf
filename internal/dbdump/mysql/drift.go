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

// isNew ends a difference that is something new.
const isNew = " is new"

// differences lists what is not the same in two readings of the catalog.
// Estimates do not count, nor does a time of creation that one of them lacks.
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
	created := later.creationTimes()
	for name, was := range c.creationTimes() {
		if is, ok := created[name]; ok && is != was && a[name] == b[name] {
			diff = append(diff, name+" changed")
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			diff = append(diff, name+isNew)
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
			prints["table "+t.String()] = fmt.Sprint(t.kind, "|", t.engine, "|", t.collation, "|", t.comment, "|", t.options, "|",
				t.columns, t.keys, t.partitionNames())
		}
		for _, o := range s.code {
			prints[o.kind+" "+quoteQualified(s.name, o.name)+o.subtype] = o.fingerprint
		}
	}
	return prints
}

// creationTimes are those that the server told, by the names of fingerprints.
func (c *catalog) creationTimes() map[string]string {
	times := map[string]string{}
	for t := range c.tables() {
		if t.created != "" {
			times["table "+t.String()] = t.created
		}
	}
	return times
}

// readCreationTimes asks again for the times that MariaDB did not tell. Its
// purge threads open tables with indexed virtual columns in a way that leaves
// the time out, and such a handle then serves whoever comes next, so that the
// time comes and goes without any DDL. A statement that itself uses the table
// makes the server answer with another handle: more uses than there can be
// purge threads (32) leave it only handles of the ordinary kind. A time that
// stays unknown is not compared.
func (d *dump) readCreationTimes(ctx context.Context, s *session, sc *schema) error {
	if !d.server.MariaDB() {
		return nil
	}
	for _, t := range sc.tables {
		if !t.base() || !strings.EqualFold(t.engine, "InnoDB") || !slices.ContainsFunc(t.columns, column.generated) {
			continue
		}
		for _, uses := range []int{1, 4, 33} {
			if t.created != "" {
				break
			}
			err := s.each(ctx, creationTimeQuery(t, uses), func(r row) error {
				t.created = r.at(0)
				return nil
			})
			if err != nil && errorNumber(err) == 0 {
				return err
			}
			if err != nil {
				d.log.Debug("time of creation could not be read", "table", t.String(), "error", err)
				break
			}
		}
	}
	return nil
}

// creationTimeQuery reads a table's time of creation while the statement holds
// the given number of handles of the table. It reads none of its rows, and does
// not wait for somebody's lock on the table for long.
func creationTimeQuery(t *table, uses int) string {
	var q strings.Builder
	q.WriteString("SET STATEMENT lock_wait_timeout = 1 FOR SELECT CREATE_TIME")
	for range uses {
		fmt.Fprintf(&q, ", (SELECT 1 FROM %s WHERE FALSE)", t)
	}
	fmt.Fprintf(&q, " FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s", quoteString(t.schema.name), quoteString(t.name))
	return q.String()
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
	if d.catalogHeld {
		diff = slices.DeleteFunc(diff, func(s string) bool { return strings.HasSuffix(s, isNew) })
	}
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
