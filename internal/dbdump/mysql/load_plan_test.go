package mysql

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// TestForeignBackup: what another engine wrote is refused by its name.
func TestForeignBackup(t *testing.T) {
	for _, r := range []record.Report{{Engine: "postgres", Layout: "postgres/1"}, {Engine: "command", Layout: "command/1"}} {
		_, err := planLoad(r, LoadOptions{})
		require.ErrorIs(t, err, dbdump.ErrForeign)
		require.ErrorContains(t, err, r.Engine+" wrote it")
	}
}
