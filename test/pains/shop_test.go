package pains

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// password is the administrator's on every server, and the replication account's.
const password = "keepset-root"

// fill makes the database shop, which every story is about: orders, and not one too few.
var fill = []string{
	"CREATE DATABASE shop",
	"CREATE TABLE shop.orders (id INT PRIMARY KEY, cents INT NOT NULL, note VARBINARY(200) NOT NULL)",
	"INSERT INTO shop.orders SELECT seq, seq * 7 % 1000, RANDOM_BYTES(200) FROM shop.seq_1_to_3000",
	"CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL)",
	"INSERT INTO shop.customers SELECT seq, CONCAT('Zoë ', seq) FROM shop.seq_1_to_300",
}

// orders is the content of the table, for comparing two servers.
const orders = "SELECT CONCAT(COUNT(*), ' orders, ', MD5(GROUP_CONCAT(id, ':', cents, ':', HEX(note) ORDER BY id))) FROM shop.orders"

// whole lets a server compare all of the rows.
const whole = "group_concat_max_len=100000000"

// newShop starts a server of the test's own that has a shop.
func newShop(t *testing.T) *servers.MySQL {
	t.Helper()
	s := newServer(t)
	s.Exec(t, fill...)
	return s
}

// newServer starts an empty server.
func newServer(t *testing.T) *servers.MySQL {
	t.Helper()
	s := servers.MariaDB(t, servers.WithConfig(whole))
	require.Equal(t, password, s.Password)
	return s
}

// theShop is the server of the stories that only read it.
var theShop struct {
	once   sync.Once
	server *servers.MySQL
	err    error
}

// shop returns it.
func shop(t *testing.T) *servers.MySQL {
	t.Helper()
	theShop.once.Do(func() {
		theShop.server, theShop.err = servers.StartMariaDB(t.Context(), filepath.Join(scratch(), "shop"), servers.WithConfig(whole))
		if theShop.err == nil {
			theShop.server.Exec(t, fill...)
		}
	})
	require.NoError(t, theShop.err)
	return theShop.server
}

// closeShop ends it, if a test has started it.
func closeShop() {
	if theShop.server != nil {
		_ = theShop.server.Close() // its data go with the scratch directory
	}
}
