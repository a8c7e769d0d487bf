package e2e

import (
	"database/sql"
	"fmt"
	"strings"
	"time"

	_ "github.com/go-sql-driver/mysql" // the driver of database/sql
	"github.com/stretchr/testify/require"
)

// db opens an ordinal's server as root over its pod's address.
func (s *shopSet) db(ordinal int) *sql.DB {
	s.t.Helper()
	pod := s.pod(fmt.Sprintf("mysql-%d", ordinal))
	require.NotNil(s.t, pod, "pod of ordinal %d", ordinal)
	db := s.open(pod.Status.PodIP)
	s.t.Cleanup(func() { _ = db.Close() })
	return db
}

// open is a connection pool to a server as root.
func (s *shopSet) open(ip string) *sql.DB {
	s.t.Helper()
	db, err := sql.Open("mysql", fmt.Sprintf("root:%s@tcp(%s:3306)/?multiStatements=true&timeout=5s", s.password, ip))
	require.NoError(s.t, err)
	return db
}

// exec runs statements on an ordinal.
func (s *shopSet) exec(ordinal int, statements ...string) {
	s.t.Helper()
	db := s.db(ordinal)
	for _, q := range statements {
		_, err := db.ExecContext(s.t.Context(), q)
		require.NoError(s.t, err, "ordinal %d: %.200s", ordinal, q)
	}
}

// value is the first column of the first row.
func (s *shopSet) value(ordinal int, query string) string {
	s.t.Helper()
	var v sql.NullString
	require.NoError(s.t, s.db(ordinal).QueryRowContext(s.t.Context(), query).Scan(&v), "ordinal %d: %s", ordinal, query)
	return v.String
}

const shopTables = "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, customer VARCHAR(40), note TEXT, KEY (customer))"

// replicate makes the accounts and has every ordinal follow the first.
func (s *shopSet) replicate(replicas int) {
	s.t.Helper()
	s.exec(0,
		"CREATE USER "+replAccount+"@'%' IDENTIFIED BY 'repl-secret'; GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO "+replAccount+"@'%'",
		"CREATE USER "+backupAccount+"@'%' IDENTIFIED BY 'backup-secret'",
		"GRANT SELECT, RELOAD, PROCESS, LOCK TABLES, SHOW VIEW, EVENT, TRIGGER, BINLOG MONITOR, REPLICA MONITOR ON *.* TO "+backupAccount+"@'%'",
		shopTables,
	)
	for i := 1; i < replicas; i++ {
		s.exec(i, "CHANGE MASTER TO MASTER_HOST='mysql-0.mysql', MASTER_USER='"+replAccount+"', MASTER_PASSWORD='repl-secret', MASTER_USE_GTID=slave_pos", "RESET MASTER; SET GLOBAL gtid_slave_pos=''; START SLAVE")
	}
	s.order("first", 2000)
	for i := 1; i < replicas; i++ {
		s.caughtUp(i)
	}
}

// order writes rows on the primary.
func (s *shopSet) order(customer string, rows int) {
	s.t.Helper()
	const batch = 500
	for done := 0; done < rows; done += batch {
		var b strings.Builder
		b.WriteString("INSERT INTO shop.orders (customer, note) VALUES ")
		for i := range min(batch, rows-done) {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "('%s', SHA2('%s %d', 512))", customer, customer, done+i)
		}
		s.exec(0, b.String())
	}
}

const sumQuery = "SELECT CONCAT(COUNT(*), ' ', COALESCE(SUM(CRC32(CONCAT_WS('|', id, customer, note))), 0)) FROM shop.orders"

// sum is a checksum of an ordinal's orders.
func (s *shopSet) sum(ordinal int) string {
	s.t.Helper()
	return s.value(ordinal, sumQuery)
}

// caughtUp waits until an ordinal has all that the primary has.
func (s *shopSet) caughtUp(ordinal int) {
	s.t.Helper()
	var last string
	s.until(3*time.Minute, fmt.Sprintf("ordinal %d catches up", ordinal), func() bool {
		var sum sql.NullString
		err := s.db(ordinal).QueryRowContext(s.t.Context(), sumQuery).Scan(&sum)
		last = sum.String
		return err == nil && last == s.sum(0)
	})
}
