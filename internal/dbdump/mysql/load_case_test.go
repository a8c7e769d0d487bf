package mysql

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// TestNamesOfOtherCase: a target that does not tell names apart by case holds what the load would create though it
// calls it otherwise, and what it holds is not dropped unasked.
func TestNamesOfOtherCase(t *testing.T) {
	t.Parallel()
	source, target := mariadb1011.start(t), mariadb1011.start(t, servers.WithConfig("lower_case_table_names=1"))
	source.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.Orders (id INT PRIMARY KEY)", "INSERT INTO app.Orders VALUES (1)",
		"CREATE DATABASE Shop", "CREATE TABLE Shop.Items (id INT PRIMARY KEY)")
	m, report := dumpMemory(t, options(t, source))
	target.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.orders (id INT PRIMARY KEY)", "INSERT INTO app.orders VALUES (7)",
		"CREATE DATABASE shop", "CREATE TABLE shop.other (id INT PRIMARY KEY)", "INSERT INTO shop.other VALUES (8)")
	o := options(t, target)
	for _, include := range []string{"app.Orders", "app", "Shop"} {
		o.Load = LoadOptions{Filter: Filter{Include: []string{include}}}
		_, err := loadWith(t, o, m, report)
		require.ErrorIs(t, err, dbdump.ErrNotEmpty, include)
		require.Equal(t, "7", target.Value(t, "SELECT id FROM app.orders"))
		require.Equal(t, "8", target.Value(t, "SELECT id FROM shop.other"))
	}
	for _, include := range []string{"app.Orders", "Shop"} {
		o.Load = LoadOptions{Filter: Filter{Include: []string{include}}, Replace: true}
		_, err := loadWith(t, o, m, report)
		require.NoError(t, err)
	}
	require.Equal(t, "1", target.Value(t, "SELECT id FROM app.orders"))
	require.Equal(t, "items", target.Value(t, "SELECT GROUP_CONCAT(TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'shop'"))
}
