package job

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// awayServers are servers that cannot be reached. Without an account nobody
// can be followed.
type awayServers struct{ account bool }

type awayEngine struct{ dbdump.Engine }

func (awayEngine) Check(context.Context, record.Coordinates, dbdump.Upstream) error {
	return fmt.Errorf("no route: %w", dbdump.ErrUnreachable)
}
func (awayEngine) Admits(context.Context, dbdump.Upstream) error                     { return nil }
func (awayEngine) Follow(context.Context, record.Coordinates, dbdump.Upstream) error { return nil }
func (awayEngine) Shutdown(context.Context) error                                    { return nil }

func (awayServers) Target(string, bool) (dbdump.Engine, error) { return awayEngine{}, nil }
func (awayServers) Ready(context.Context, string) error        { return nil }

var errNoAccount = errors.New("no replication account")

func (s awayServers) Upstream(string) (dbdump.Upstream, error) {
	if !s.account {
		return dbdump.Upstream{}, errNoAccount
	}
	return dbdump.Upstream{Host: "db-0", Port: 3306}, nil
}

// A plan that is only printed may leave to the Job what cannot be asked from
// here; one that is about to delete a claim may not.
func TestUnreachableUpstream(t *testing.T) {
	r := &Restore{Servers: awayServers{account: true}}
	plan := &RestorePlan{Items: []RestoreItem{{Ordinal: 1, Follow: "db-0:3306", Replace: true}}}
	require.NoError(t, r.checkUpstreams(t.Context(), statefulset.Set{}, plan, nil, true))
	require.Len(t, plan.Notes, 1)
	require.ErrorIs(t, r.checkUpstreams(t.Context(), statefulset.Set{}, plan, nil, false), dbdump.ErrUnreachable)
}

// A whole set without a replication account is refused before its first
// ordinal is filled, not at its second.
func TestAccountOfLaterFollowers(t *testing.T) {
	r := &Restore{Servers: awayServers{}}
	plan := &RestorePlan{Items: []RestoreItem{{Ordinal: 0}, {Ordinal: 1, Follow: "db-0:3306", Beginning: true}}}
	require.ErrorIs(t, r.checkUpstreams(t.Context(), statefulset.Set{}, plan, nil, false), errNoAccount)
}

// What was warned of when a member was backed up is said again before it is
// restored, once, and of no other member.
func TestWarningsOfTheBackupAreNoted(t *testing.T) {
	members := backedUp{member(0, nil, 1), member(1, nil, 2)}
	members[0].report.Warnings = []string{"not of interest"}
	members[1].report.Warnings = []string{"MEMORY tables lose their rows"}
	plan := &RestorePlan{Items: []RestoreItem{{Ordinal: 2, Base: 1}, {Ordinal: 3, Base: 1}}}
	plan.noteWarnings(members)
	require.Equal(t, []string{"the backup of ordinal 1 says: MEMORY tables lose their rows"}, plan.Notes)
}
