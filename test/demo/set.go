package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"keepset/test/servers"
)

// The accounts of the set beside its administrator, and their password.
const (
	backupUser      = "keepset"
	replicationUser = "replication"
	password        = "demo-password"
)

// catchUpTimeout is how long a follower may take to have what the primary has.
const catchUpTimeout = 2 * time.Minute

// startSet starts the servers, lets 1 and 2 follow 0, and fills 0.
func (d *demo) startSet(ctx context.Context) error {
	for ordinal := range 3 {
		s, err := servers.StartMariaDB(ctx, filepath.Join(d.dir, "replica-"+strconv.Itoa(ordinal)),
			servers.WithServerID(uint32(100+ordinal)), servers.WithConfig("log_slave_updates", "gtid_strict_mode=ON"))
		if err != nil {
			return err
		}
		d.replicas = append(d.replicas, s)
		fmt.Printf("replica %d: MariaDB at %s\n", ordinal, s.Addr)
	}
	primary := d.replicas[0]
	if err := execute(ctx, primary,
		"CREATE USER "+replicationUser+"@'%' IDENTIFIED BY '"+password+"'",
		"GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO "+replicationUser+"@'%'",
		"CREATE USER "+backupUser+"@'%' IDENTIFIED BY '"+password+"'",
		"GRANT SELECT, RELOAD, PROCESS, LOCK TABLES, SHOW VIEW, EVENT, TRIGGER, BINLOG MONITOR, REPLICA MONITOR ON *.* TO "+
			backupUser+"@'%'",
	); err != nil {
		return err
	}
	for _, s := range d.replicas[1:] {
		if err := execute(ctx, s, fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%d, MASTER_USER='%s', "+
			"MASTER_PASSWORD='%s', MASTER_USE_GTID=slave_pos", primary.Host, primary.Port, replicationUser, password),
			"START SLAVE"); err != nil {
			return err
		}
	}
	if err := execute(ctx, primary,
		"CREATE DATABASE shop CHARACTER SET utf8mb4",
		"CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(80) NOT NULL, joined DATETIME(6) NOT NULL, KEY (name))",
		"CREATE TABLE shop.orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer INT NOT NULL, cents INT NOT NULL, "+
			"note VARBINARY(200), FOREIGN KEY (customer) REFERENCES shop.customers (id))",
		"CREATE VIEW shop.turnover AS SELECT customer, SUM(cents) AS cents FROM shop.orders GROUP BY customer",
		fmt.Sprintf("INSERT INTO shop.customers SELECT seq, CONCAT('Zoë ', MD5(seq)), '2026-01-01' + INTERVAL seq SECOND FROM shop.seq_1_to_%d", d.rows/10),
		fmt.Sprintf("INSERT INTO shop.orders SELECT seq, 1 + seq %% %d, seq, RANDOM_BYTES(50) FROM shop.seq_1_to_%d", d.rows/10, d.rows),
	); err != nil {
		return err
	}
	for ordinal := 1; ordinal < len(d.replicas); ordinal++ {
		if err := d.caughtUp(ctx, ordinal); err != nil {
			return err
		}
	}
	fmt.Printf("database shop: %d customers, %d orders, on all three\n", d.rows/10, d.rows)
	return nil
}

// writeMore changes the primary in every way that replication knows: new rows, changed rows, a new table.
func (d *demo) writeMore(ctx context.Context) error {
	statements := []string{
		"INSERT INTO shop.orders (customer, cents, note) SELECT 1 + seq % 100, seq, 'after the backup' FROM shop.seq_1_to_1000",
		"UPDATE shop.customers SET name = 'renamed after the backup' WHERE id = 42",
		"CREATE TABLE shop.returns (id INT PRIMARY KEY)",
		"INSERT INTO shop.returns VALUES (1), (2), (3)",
	}
	for _, statement := range statements {
		fmt.Println("mariadb>", statement+";")
	}
	return execute(ctx, d.replicas[0], statements...)
}

// compare waits for both followers and fails unless all three servers hold the same.
func (d *demo) compare(ctx context.Context) error {
	queries := []string{
		"SELECT COUNT(*) FROM shop.orders WHERE note = 'after the backup'",
		"SELECT name FROM shop.customers WHERE id = 42",
		"SELECT COUNT(*) FROM shop.returns",
		"SELECT COUNT(*) FROM shop.orders",
		"SELECT MD5(GROUP_CONCAT(x ORDER BY x)) FROM (SELECT MD5(GROUP_CONCAT(id, customer, cents, HEX(note) ORDER BY id)) AS x " +
			"FROM shop.orders GROUP BY id DIV 1000) AS o",
		"SELECT MD5(GROUP_CONCAT(x ORDER BY x)) FROM (SELECT MD5(GROUP_CONCAT(id, name, joined ORDER BY id)) AS x " +
			"FROM shop.customers GROUP BY id DIV 1000) AS c",
		"SELECT SUM(cents) FROM shop.turnover",
	}
	for ordinal := 1; ordinal < len(d.replicas); ordinal++ {
		if err := d.caughtUp(ctx, ordinal); err != nil {
			return err
		}
	}
	for _, query := range queries {
		want, err := value(ctx, d.replicas[0], query)
		if err != nil {
			return err
		}
		for ordinal, s := range d.replicas[1:] {
			got, err := value(ctx, s, query)
			if err != nil {
				return err
			}
			if got != want {
				return fmt.Errorf("compare replica %d with the primary: %s: %s, want %s", ordinal+1, query, got, want)
			}
		}
		fmt.Printf("%.100s\n    the same on all three: %s\n", query, want)
	}
	return nil
}

// caughtUp waits until a follower has applied all that the primary has written, and fails if replication stops.
func (d *demo) caughtUp(ctx context.Context, ordinal int) error {
	position, err := value(ctx, d.replicas[0], "SELECT @@gtid_binlog_pos")
	if err != nil {
		return err
	}
	s := d.replicas[ordinal]
	threads, err := value(ctx, s, "SELECT COUNT(*) FROM information_schema.processlist WHERE command IN ('Slave_IO', 'Slave_SQL')")
	if err != nil {
		return err
	}
	if threads != "2" {
		return fmt.Errorf("wait for replica %d at %s: it does not follow the primary", ordinal, s.Addr)
	}
	got, err := value(ctx, s, fmt.Sprintf("SELECT MASTER_GTID_WAIT('%s', %.0f)", position, catchUpTimeout.Seconds()))
	if err != nil {
		return err
	}
	if got != "0" {
		return fmt.Errorf("wait for replica %d at %s: it has not reached %s in %v", ordinal, s.Addr, position, catchUpTimeout)
	}
	fmt.Printf("replica %d has reached GTID %s\n", ordinal, position)
	return nil
}

// execute runs statements as the administrator.
func execute(ctx context.Context, s *servers.MySQL, statements ...string) error {
	db, err := s.Open()
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // every statement's own result is checked
	for _, statement := range statements {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("run %.100q at %s: %w", statement, s.Addr, err)
		}
	}
	return nil
}

// value returns the one value of a query.
func value(ctx context.Context, s *servers.MySQL, query string) (string, error) {
	db, err := s.Open()
	if err != nil {
		return "", err
	}
	defer db.Close() //nolint:errcheck // only read
	var text string
	if err := db.QueryRowContext(ctx, "SET SESSION group_concat_max_len = 1000000000; "+query).Scan(&text); err != nil {
		return "", fmt.Errorf("run %.100q at %s: %w", query, s.Addr, err)
	}
	return text, nil
}

// close ends the servers.
func (d *demo) close() error {
	var err error
	for _, s := range d.replicas {
		err = errors.Join(err, s.Close())
	}
	return err
}
