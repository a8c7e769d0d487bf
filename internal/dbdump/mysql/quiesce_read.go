package mysql

import (
	"context"
	"fmt"
	"strings"
	"time"

	"keepset/internal/record"
)

// settle has the server write out what it may keep in memory after a commit: InnoDB's log, where
// innodb_flush_log_at_trx_commit is not 1, and the end of the binary log, where sync_binlog is not. A new binary log is
// begun for that, since the server then brings the old one to the disk.
func (q *quiesce) settle(ctx context.Context) error {
	s := q.coordinator
	if err := s.exec(ctx, "FLUSH LOCAL ENGINE LOGS"); err != nil {
		return err
	}
	var log bool
	var every int
	if err := s.queryRow(ctx, "SELECT @@GLOBAL.log_bin, @@GLOBAL.sync_binlog", &log, &every); err != nil {
		return err
	}
	if log && every != 1 {
		if err := s.exec(ctx, "FLUSH LOCAL BINARY LOGS"); err != nil {
			return err
		}
	}
	return q.waitFlushed(ctx)
}

// waitFlushed returns once InnoDB's log is on the disk as far as it is written now. MariaDB does not do that on demand
// where innodb_flush_log_at_trx_commit is 0, but every second by itself. Older versions do not tell; they flush on demand.
func (q *quiesce) waitFlushed(ctx context.Context) error {
	_, goal, err := q.logPositions(ctx)
	if err != nil {
		return err
	}
	for {
		flushed, _, err := q.logPositions(ctx)
		if err != nil || flushed >= goal {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait until InnoDB's log is on the disk (innodb_flush_log_at_trx_commit is not 1, see innodb_flush_log_at_timeout): %w", context.Cause(ctx))
		}
	}
}

// logPositions are how far InnoDB's log is on the disk and how far it is written; zeros where the server does not tell.
func (q *quiesce) logPositions(ctx context.Context) (flushed, written uint64, err error) {
	err = q.coordinator.each(ctx, `SHOW GLOBAL STATUS WHERE Variable_name IN
		('Innodb_lsn_flushed', 'Innodb_lsn_current', 'Innodb_redo_log_flushed_to_disk_lsn', 'Innodb_redo_log_current_lsn')`, func(r row) error {
		if strings.Contains(strings.ToLower(r.at(0)), "flushed") {
			flushed = unsigned(r.at(1))
		} else {
			written = unsigned(r.at(1))
		}
		return nil
	})
	return flushed, written, err
}

// readNames lists schemas and tables.
func (q *quiesce) readNames(ctx context.Context) error {
	var objects []record.Object
	err := q.coordinator.each(ctx, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA ORDER BY SCHEMA_NAME", func(r row) error {
		if name := r.at(0); !systemSchema(name) {
			objects = append(objects, record.Object{Kind: KindSchema, Schema: name, Name: name, Rows: -1})
		}
		return nil
	})
	if err != nil {
		return err
	}
	q.memory, q.unsynced = nil, nil
	err = q.coordinator.each(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES
		ORDER BY TABLE_SCHEMA, TABLE_NAME`, func(r row) error {
		if systemSchema(r.at(0)) || r.at(2) == "VIEW" || strings.HasPrefix(r.at(2), "TEMPORARY") {
			return nil
		}
		object := record.Object{Kind: KindTable, Schema: r.at(0), Name: r.at(1), Rows: -1}
		if r.at(2) == "SEQUENCE" {
			object.Kind = KindSequence
		}
		objects = append(objects, object)
		name, engine := quoteQualified(r.at(0), r.at(1)), r.at(3)
		transactional, elsewhere := engineTraits(engine)
		switch {
		case strings.EqualFold(engine, "MEMORY"):
			q.memory = append(q.memory, name)
		case !transactional && elsewhere == "":
			q.unsynced = append(q.unsynced, name)
		}
		return nil
	})
	q.report.Objects = objects
	return err
}

// warnOfTables names those whose rows a cut may lack.
func (q *quiesce) warnOfTables() {
	q.warnOfMemory()
	if len(q.unsynced) > 0 {
		q.warn("tables that are not InnoDB's are closed for the cut, but nothing in SQL brings their files from the node's memory to the volume: " +
			"a volume snapshot that does not freeze the file system may lack their changes of the last half minute, or part of them; convert them to InnoDB, or check them after a restore: " + shorten(q.unsynced))
	}
}
