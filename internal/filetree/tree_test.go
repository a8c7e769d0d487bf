package filetree

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/filetree/filetreetest"
)

// What the tests of other packages need as well.
var (
	grow        = filetreetest.Grow
	lines       = filetreetest.Lines
	sortedNames = filetreetest.SortedNames
	requireSame = filetreetest.RequireSame
	acl         = filetreetest.ACL
)

// write makes a file with its directories.
func write(t testing.TB, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}
