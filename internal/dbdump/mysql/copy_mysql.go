package mysql

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"keepset/internal/record"
)

// What is particular to the copy of a MySQL, by Percona's xtrabackup.

// mysqlState is what a MySQL says of itself before and after it is copied.
type mysqlState struct {
	at record.Coordinates
	// files of tables, relative to the data directory.
	files map[string]bool
}

// mysqlSettings refuses what no restore could put right, and remembers how the server is.
func (c *copying) mysqlSettings(ctx context.Context) (err error) {
	if err := c.refuseEncryption(ctx); err != nil {
		return err
	}
	parallel, err := c.appliers(ctx, c.s)
	if err != nil {
		return err
	}
	if parallel > 0 && slices.ContainsFunc(c.follows, func(f channel) bool { return !f.gtid }) {
		return fmt.Errorf("the server follows its upstream without GTIDs and with %d parallel appliers, so that its position is not exact, and xtrabackup does not take it: turn GTIDs on, or take --method dump", parallel)
	}
	c.before, err = c.mysqlState(ctx)
	return err
}

func (c *copying) mysqlState(ctx context.Context) (m mysqlState, err error) {
	if m.at, _, err = c.logCoordinates(ctx, c.s); err != nil {
		return m, err
	}
	var outside []string
	if m.files, outside, err = c.tableFiles(ctx); err == nil && len(outside) > 0 {
		err = fmt.Errorf("%d files of tables lie outside of the data directory (%s), where no restore would put them: take another --method, or move the tables", len(outside), shorten(outside))
	}
	return m, err
}

// tableFiles are the files of tables that the server has, relative to its data directory, and those that are elsewhere.
func (c *copying) tableFiles(ctx context.Context) (files map[string]bool, outside []string, err error) {
	files = map[string]bool{}
	const innodb = "SELECT FILE_NAME FROM information_schema.FILES WHERE ENGINE = 'InnoDB' AND FILE_TYPE IN ('TABLESPACE', 'UNDO LOG')"
	err = c.s.each(ctx, innodb, func(r row) error {
		name := path.Clean(r.at(0))
		if path.IsAbs(name) {
			below, ok := strings.CutPrefix(name, path.Clean(c.dataDir)+"/")
			if ok {
				name = below
			}
		}
		if !filepath.IsLocal(name) {
			outside = append(outside, name)
		}
		files[name] = true
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	// Other engines do not say how their files are called; names of other characters are written in them in a way of their own.
	const others = `SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES
		WHERE ENGINE IN ('MyISAM', 'CSV', 'ARCHIVE') AND TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema')
		AND CREATE_OPTIONS NOT LIKE '%partitioned%' AND CONCAT(TABLE_SCHEMA, TABLE_NAME) REGEXP '^[0-9A-Za-z_]+$'`
	err = c.s.each(ctx, others, func(r row) error {
		for _, end := range map[string][]string{"MyISAM": {".MYD", ".MYI"}, "CSV": {".CSV"}, "ARCHIVE": {".ARZ"}}[r.at(2)] {
			files[r.at(0)+"/"+r.at(1)+end] = true
		}
		return nil
	})
	return files, outside, err
}

// mysqlMissing looks for files that the server had before and has afterwards, and that have not come. What is younger or
// gone does not count: the program keeps changes of tables away where it can.
func (c *copying) mysqlMissing(ctx context.Context) error {
	now, err := c.mysqlState(ctx)
	if err != nil {
		return err
	}
	var lost []string
	for name := range now.files {
		if _, came := c.files.files[name]; !came && c.before.files[name] {
			lost = append(lost, name)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	slices.Sort(lost)
	return fmt.Errorf("%d files of tables have not come: %s: %s", len(lost), shorten(lost), c.program.loss)
}

// refuseEncryption: the keys are in no copy, and --prepare wants them.
func (c *copying) refuseEncryption(ctx context.Context) error {
	var on []string
	const variables = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('innodb_redo_log_encrypt', 'innodb_undo_log_encrypt', 'binlog_encryption') AND Value IN ('ON', 'MASTER_KEY')"
	if err := c.s.each(ctx, variables, func(r row) error { on = append(on, r.at(0)+"=ON"); return nil }); err != nil {
		return err
	}
	table := "INNODB_TABLESPACES"
	if !c.server.AtLeast(8, 0, 0) {
		table = "INNODB_SYS_TABLESPACES"
	}
	// Bit 13 of a tablespace's flags says that it is encrypted, in all versions; a column does so in later ones.
	err := c.s.each(ctx, "SELECT NAME FROM information_schema."+table+" WHERE FLAG & 8192", func(r row) error {
		on = append(on, "tablespace "+r.at(0))
		return nil
	})
	if err != nil {
		return err
	}
	if len(on) > 0 {
		return fmt.Errorf("the server encrypts its files (%s), and the keys would be neither in the backup nor where it is prepared: take --method dump or snapshot", shorten(on))
	}
	return nil
}

var logSequence = regexp.MustCompile(`(?m)^Log sequence number\s+([0-9]+)`)

// mysqlLogPosition is how far InnoDB's log is written, which all versions say here and nowhere else.
func (c *copying) mysqlLogPosition(ctx context.Context) (at uint64, err error) {
	err = c.s.each(ctx, "SHOW ENGINE INNODB STATUS", func(r row) error {
		if m := logSequence.FindStringSubmatch(r.get("Status")); m != nil {
			at = unsigned(m[1])
		}
		return nil
	})
	if err == nil && at == 0 {
		err = errors.New("SHOW ENGINE INNODB STATUS does not say how far the log is written")
	}
	return at, err
}

// mysqlArguments are those that are xtrabackup's alone.
func (c *copying) mysqlArguments() []string {
	args := []string{
		"--datadir=" + c.dataDir,
		// It would ask its makers' server whether there is a newer one.
		"--no-version-check",
	}
	if c.server.AtLeast(8, 0, 0) {
		// Changes of tables wait. With 5.7 there is no such lock but in Percona Server.
		args = append(args, "--lock-ddl=ON")
	}
	return args
}

// between makes sure that the position of the copy is one that the server had meanwhile.
func (c *copying) between(ctx context.Context, at *record.Coordinates) error {
	after, _, err := c.logCoordinates(ctx, c.s)
	if err != nil {
		return err
	}
	before := c.before.at
	foreign := func(what, was, is, now string) error {
		return fmt.Errorf("the %s of the copied files is %s, and the server's went from %s to %s meanwhile: the files are not those of the server at %s", what, is, was, now, c.opts.Address)
	}
	place := func(c record.Coordinates) string { return fmt.Sprintf("%s:%d", c.File, c.Position) }
	if at.File != "" && (laterPosition(before.File, before.Position, at.File, at.Position) || laterPosition(at.File, at.Position, after.File, after.Position)) {
		return foreign("position in the binary log", place(before), place(*at), place(after))
	}
	var mode string
	if err := c.s.queryRow(ctx, "SELECT @@GLOBAL.gtid_mode", &mode); err != nil || mode != "ON" {
		return err
	}
	var within bool
	query := "SELECT GTID_SUBSET(" + quoteString(before.GTID) + ", " + quoteString(at.GTID) + ") AND GTID_SUBSET(" + quoteString(at.GTID) + ", " + quoteString(after.GTID) + ")"
	if err := c.s.queryRow(ctx, query, &within); err != nil {
		return err
	}
	if !within {
		return foreign("set of GTIDs", before.GTID, at.GTID, after.GTID)
	}
	return nil
}
