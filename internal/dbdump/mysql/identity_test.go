package mysql

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// A new server under the ID of one that is still connected is refused before it is loaded and when it shall follow;
// once the other's connection is gone, it is admitted.
func TestAnotherWithTheSameID(t *testing.T) {
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
			e.patience.gone = 2 * time.Second
			begin := time.Now()
			err := e.Admits(t.Context(), up)
			require.ErrorIs(t, err, errTaken)
			require.ErrorContains(t, err, "KILL")
			require.GreaterOrEqual(t, time.Since(begin), 2*time.Second, "it might have gone")
			require.ErrorIs(t, e.Follow(t.Context(), report.Coordinates, up), errTaken)

			e.patience.gone = time.Minute
			admitted := make(chan error, 1)
			go func() { admitted <- e.Admits(t.Context(), up) }()
			time.Sleep(time.Second)
			select {
			case err := <-admitted:
				t.Fatalf("it did not wait: %v", err)
			default:
			}
			old.Exec(t, map[string]string{"mariadb": "STOP SLAVE", "mysql": "STOP REPLICA"}[f.name])
			// A dump thread sees that its follower is gone when it next sends something.
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('x')")
			require.NoError(t, <-admitted)
		})
	}
}
