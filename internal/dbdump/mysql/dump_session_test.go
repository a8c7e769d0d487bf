package mysql

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// After a failover or a restart, the numbers of the own sessions are those of somebody else, who may even have the same
// account: strangers are left alone.
func TestOnlyTheOwnSessionsAreKilled(t *testing.T) {
	t.Parallel()
	eachServer(t, families(), func(t *testing.T, s *servers.MySQL) {
		ctx := t.Context()
		p := &sessions{engine: newEngine(t, options(t, s))}
		own, err := p.engine.openSession(ctx)
		require.NoError(t, err)
		defer own.Close()
		stranger, err := p.engine.openSession(ctx)
		require.NoError(t, err)
		defer stranger.Close()
		require.NotEmpty(t, own.client)
		require.NotEqual(t, own.client, stranger.client)
		p.kill(ctx, []*session{
			{ID: stranger.ID, host: own.host, client: own.client}, // the number of ours before a restart
			{ID: stranger.ID, host: "another server", client: stranger.client},
			own,
		})
		require.NoError(t, stranger.exec(ctx, "DO 1"))
		require.Error(t, own.exec(ctx, "DO 1"))
		require.Equal(t, "0", s.Value(t, fmt.Sprintf("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = %d AND COMMAND <> 'Killed'", own.ID)))
	})
}
