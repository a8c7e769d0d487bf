package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"keepset/test/servers"
)

// database is the one that sysbench fills.
const database = "bench"

// bench is one run of the comparison.
type bench struct {
	settings
	source *servers.MySQL
	sums   map[string]string // CHECKSUM TABLE of every table of the source
}

// serverConfig is how the servers of the comparison differ from those of the tests: as durable as MariaDB is by
// default, and with enough memory to hold the data.
func serverConfig() servers.MySQLOption {
	return servers.WithConfig("innodb_buffer_pool_size=2G", "innodb_log_file_size=512M", "innodb_doublewrite=ON",
		"innodb_flush_method=O_DIRECT", "innodb_flush_log_at_trx_commit=1", "max_allowed_packet=64M")
}

// start starts the source, fills it and reads it once.
func (b *bench) start(ctx context.Context) error {
	var err error
	if b.source, err = servers.StartMariaDB(ctx, filepath.Join(b.dir, "source"), serverConfig(),
		servers.WithConfig("innodb_flush_log_at_trx_commit=0")); err != nil {
		return err
	}
	fmt.Printf("filling MariaDB 10.11 with sysbench: %d tables of %d rows\n", b.tables, b.rows)
	if err := b.fill(ctx); err != nil {
		return errors.Join(err, b.source.Close())
	}
	return nil
}

func (b *bench) fill(ctx context.Context) error {
	db, err := b.source.Open()
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // every statement's own result is checked
	if _, err := db.ExecContext(ctx, "CREATE DATABASE "+database); err != nil {
		return fmt.Errorf("create database %s: %w", database, err)
	}
	sysbench, err := servers.FindTool("sysbench")
	if err != nil {
		return err
	}
	m, err := measure(ctx, pipeline{{
		program: sysbench,
		args: []string{
			"oltp_read_only", "--db-driver=mysql", "--mysql-socket=" + b.source.Socket, "--mysql-user=" + b.source.User,
			"--mysql-password=" + b.source.Password, "--mysql-db=" + database, "--tables=" + strconv.Itoa(b.tables),
			"--table-size=" + strconv.Itoa(b.rows), "--threads=" + strconv.Itoa(b.threads), "prepare",
		},
	}})
	if err != nil {
		return err
	}
	if b.sums, err = checksums(ctx, b.source, b.tables); err != nil {
		return err
	}
	var size int64
	if err := db.QueryRowContext(ctx, "SELECT SUM(data_length) FROM information_schema.tables WHERE table_schema = ?",
		database).Scan(&size); err != nil {
		return fmt.Errorf("measure the source: %w", err)
	}
	fmt.Printf("filled in %.0f s, %d MB of table data; every contender uses %d connections, %d runs each\n",
		m.seconds, size/1e6, b.threads, b.runs)
	return nil
}

// dumps compares the dumps.
func (b *bench) dumps(ctx context.Context) error {
	contenders, err := b.dumpContenders()
	if err != nil {
		return err
	}
	return b.compare(ctx, "dump", contenders)
}

// loads compares the loads. Each contender dumps the source once with the tool of its own; each run loads into a
// server that was just made.
func (b *bench) loads(ctx context.Context) error {
	contenders, err := b.loadContenders(ctx)
	if err != nil {
		return err
	}
	return b.compare(ctx, "load", contenders)
}

// compare runs the contenders in turns and prints what they took.
func (b *bench) compare(ctx context.Context, job string, contenders []contender) error {
	results := make([][]measurement, len(contenders))
	for range b.runs {
		for i, c := range contenders {
			syscall.Sync()
			m, err := c.run(ctx)
			if err != nil {
				return fmt.Errorf("%s with %s: %w", job, c.name, err)
			}
			fmt.Printf("  %s, %s: %.1f s\n", job, c.name, m.seconds)
			results[i] = append(results[i], m)
		}
	}
	return printTable(job, contenders, results)
}

// checksums returns CHECKSUM TABLE of sysbench's tables. It reads every row, and so fills the server's memory.
func checksums(ctx context.Context, s *servers.MySQL, tables int) (map[string]string, error) {
	db, err := s.Open()
	if err != nil {
		return nil, err
	}
	defer db.Close() //nolint:errcheck // only read
	sums := map[string]string{}
	for i := range tables {
		var name, sum string
		query := fmt.Sprintf("CHECKSUM TABLE %s.sbtest%d EXTENDED", database, i+1)
		if err := db.QueryRowContext(ctx, query).Scan(&name, &sum); err != nil {
			return nil, fmt.Errorf("run %s: %w", query, err)
		}
		sums[name] = sum
	}
	return sums, nil
}

// compareWithSource fails unless the server holds what the source holds.
func (b *bench) compareWithSource(ctx context.Context, s *servers.MySQL) error {
	sums, err := checksums(ctx, s, b.tables)
	if err != nil {
		return err
	}
	for name, sum := range b.sums {
		if sums[name] != sum {
			return fmt.Errorf("compare %s: checksum %s, the source has %s", name, sums[name], sum)
		}
	}
	return nil
}

// sizeOf returns the bytes of all files in a folder.
func sizeOf(dir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		return nil
	})
	return size, err
}
