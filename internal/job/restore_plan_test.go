package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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

// A plan is stored where there is little room: what a thousand broken views and
// a restore of many ordinals have to say does not make it impossible.
func TestNotesAreFew(t *testing.T) {
	members := backedUp{member(0, nil, 1), member(1, nil, 2)}
	for i := range 2000 {
		members[0].report.Warnings = append(members[0].report.Warnings, fmt.Sprintf("view v%d is broken", i))
	}
	plan := &RestorePlan{Backup: "20261120T131730Z-1a2b3c4d", Items: []RestoreItem{{Ordinal: 0}, {Ordinal: 1}}}
	plan.noteWarnings(members)
	require.Len(t, plan.Notes, 11)
	require.Equal(t, "the backup of ordinal 0 says: view v9 is broken", plan.Notes[9])
	require.Equal(t, "the backup of ordinal 0 says 1990 things more; backup show 20261120T131730Z-1a2b3c4d lists them", plan.Notes[10])

	for i := range 1000 {
		plan.note("%d %s", i, strings.Repeat("<\xc3\xa9>", 300))
	}
	require.Len(t, plan.Notes, mostNotes+1)
	require.Contains(t, plan.Notes[mostNotes], "more to know")
	data, err := json.Marshal(plan)
	require.NoError(t, err)
	require.Less(t, len(data), 150<<10)
	require.NotContains(t, string(data), "\ufffd")
}

// followedServers are servers that can be reached, and may themselves follow.
type followedServers struct {
	awayServers
	follows bool
	err     error
}

type followedEngine struct {
	awayEngine
	s followedServers
}

func (followedEngine) Check(context.Context, record.Coordinates, dbdump.Upstream) error { return nil }

func (followedEngine) Ping(context.Context) error { return nil }

func (e followedEngine) Replicates(context.Context) (bool, error) { return e.s.follows, e.s.err }

func (s followedServers) Target(string, bool) (dbdump.Engine, error) {
	return followedEngine{s: s}, nil
}

// The primary of the time of the backup may follow another by now. Whether it
// does is asked where the account may ask.
func TestUpstreamThatFollowsByNowIsNoted(t *testing.T) {
	for name, c := range map[string]struct {
		servers followedServers
		named   string
		notes   int
	}{
		"follows":           {followedServers{follows: true}, "", 1},
		"does not":          {followedServers{}, "", 0},
		"may not be asked":  {followedServers{err: dbdump.ErrPrivilege}, "", 0},
		"named by the user": {followedServers{follows: true}, "db-1:3306", 0},
	} {
		t.Run(name, func(t *testing.T) {
			c.servers.account = true
			r := &Restore{Servers: c.servers, Log: slog.New(slog.DiscardHandler), Request: Request{Follow: c.named}}
			plan := &RestorePlan{Items: []RestoreItem{{Ordinal: 2, Follow: "db-1:3306"}}}
			require.NoError(t, r.checkUpstreams(t.Context(), statefulset.Set{}, plan, nil, false))
			require.Len(t, plan.Notes, c.notes)
			if c.notes > 0 {
				require.Contains(t, plan.Notes[0], "ordinal 2 will follow db-1:3306, which is set up to follow another server by now")
			}
		})
	}
}
