package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every trial that make test chooses from is a test, and stands in one line: a
// name that is no test's would make nothing of its line run.
func TestTrialsExist(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{"test/e2e", "internal/dbdump/mysql", "internal/dbdump/postgres"} {
		files, err := filepath.Glob(root + dir + "/*_test.go")
		require.NoError(t, err)
		for _, f := range files {
			text, err := os.ReadFile(f)
			require.NoError(t, err)
			code.Write(text)
		}
	}
	trials, err := os.ReadFile("../../hack/trials.txt")
	require.NoError(t, err)
	seen := map[string]bool{}
	for line := range strings.Lines(string(trials)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for name := range strings.FieldsSeq(strings.TrimPrefix(line, "soak ")) {
			assert.Contains(t, code.String(), "\nfunc "+name+"(t *testing.T)")
			assert.False(t, seen[name], name)
			seen[name] = true
		}
	}
	require.NotEmpty(t, seen)
}
