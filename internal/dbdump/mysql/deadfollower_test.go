package mysql

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// A follower that has vanished without a word leaves a connection that its upstream takes for a living one. The server
// that takes its place is admitted all the same; the connections of those that live are left alone.
func TestDeadFollowerIsCutOff(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			p.Exec(t, map[string]string{"mariadb": "GRANT REPLICATION MASTER ADMIN ON *.* TO repl@'%'", "mysql": "DO 1"}[f.name])
			m, report := dumpMemory(t, options(t, p))
			old := seed(t, f, m.Source(report), up)
			anew := f.start(t, servers.WithServerID(old.ServerID), servers.WithConfig(f.config...))
			o := options(t, anew)
			o.Load = LoadOptions{Follower: true}
			e := newEngine(t, o)
			connection := "SELECT GROUP_CONCAT(ID) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
			alive := p.Value(t, connection)
			e.patience.gone = time.Second
			require.ErrorIs(t, e.Admits(t.Context(), up), errTaken)
			require.Equal(t, alive, p.Value(t, connection))

			freeze(t, old)
			e.patience.gone = defaultPatience.gone / 3
			require.NoError(t, e.Admits(t.Context(), up))
		})
	}
}

// freeze stops a server's process where it stands, until the test has ended.
func freeze(t *testing.T, s *servers.MySQL) {
	t.Helper()
	text, err := os.ReadFile(s.Value(t, "SELECT @@pid_file"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
}
