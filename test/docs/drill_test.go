package docs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"keepset/test/servers"
)

// TestDrillPage does what docs/drill.md says, in its order.
func TestDrillPage(t *testing.T) {
	db0, spare := servers.MariaDB(t), servers.MariaDB(t)
	db0.Exec(t, heading(t, "Backup account on MariaDB"))
	db0.Exec(t, "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY); INSERT INTO shop.orders VALUES (1), (2)")
	code := read(t, "docs/drill.md").In("sh")
	said := follow(t, map[string]*servers.MySQL{"db0": db0, "db2": spare}, t.TempDir(), code)
	assert.Contains(t, said, "would drill ordinal 0")
	assert.Contains(t, said, "checksums: ok: 1 tables hold what was dumped")
	assert.Contains(t, said, "queries: ok: 2 answered as they should")
	assert.Contains(t, said, "was restored in")
	assert.Regexp(t, `_/shop +drill +ok +the last restore was proven`, said)
	assert.Contains(t, said, "newest drilled")
	assert.Equal(t, "2", spare.Value(t, "SELECT COUNT(*) FROM shop.orders"))
	assert.False(t, strings.Contains(code, "--no-proof"))
}
