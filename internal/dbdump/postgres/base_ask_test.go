package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/test/servers"
)

// A server that was started on the files of a base backup says that it is what they
// were restored as, to an account that may replicate and log in and nothing else;
// one on other files, or that has become something else, is found out.
func TestRestored(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := v.start(t)
			s.Exec(t, "postgres", "CREATE ROLE copy LOGIN REPLICATION PASSWORD 'secret'", "CREATE TABLE t (a int)")
			m := copied(t, options(s))
			account := Options{User: "copy", Password: "secret"}
			restored := func(standby bool, options ...servers.PostgresOption) *servers.Postgres {
				o := BaseRestore{Workers: 2, NoOwner: true}
				if standby {
					o.Upstream = &dbdump.Upstream{Host: s.Host, Port: s.Port, User: "copy", Password: "secret"}
				}
				return s.On(t, func(data string) error {
					o.Path = data
					_, err := o.Restore(t.Context(), m)
					return err
				}, options...)
			}
			ask := func(at string, o Options, standby bool) (unasked string, err error) {
				r := &Restored{Options: o, Coordinates: m.report.Coordinates, Standby: standby}
				require.Eventually(t, func() bool { // as a restore does
					unasked, err = r.Ask(t.Context(), at)
					return !errors.Is(err, dbdump.ErrNotFollowing)
				}, time.Minute, 50*time.Millisecond)
				return unasked, err
			}

			primary := restored(false)
			unasked, err := ask(primary.Addr, account, false)
			require.NoError(t, err)
			require.Empty(t, unasked)
			_, err = ask(primary.Addr, account, true)
			require.ErrorIs(t, err, dbdump.ErrMismatch)
			require.ErrorContains(t, err, "follows nobody")

			// The servers of tests have one and the same template.
			stranger := &Restored{Options: account, Coordinates: m.report.Coordinates}
			stranger.Coordinates.Server = "1"
			_, err = stranger.Ask(t.Context(), primary.Addr)
			require.ErrorIs(t, err, dbdump.ErrMismatch)
			require.ErrorContains(t, err, "another system")
			other := v.start(t)
			_, err = ask(other.Addr, account, false)
			require.ErrorIs(t, err, dbdump.ErrAccess, "it may be any server, which is no reason to be content")

			standby := restored(true)
			for _, o := range []Options{account, options(s)} {
				unasked, err = ask(standby.Addr, o, true)
				require.NoError(t, err)
				require.Empty(t, unasked)
			}
			_, err = ask(standby.Addr, account, false)
			require.ErrorContains(t, err, "made it a standby")

			// By the replication protocol alone, and not at all.
			half := restored(true, servers.WithPostgresAccess("host postgres copy all reject"))
			unasked, err = ask(half.Addr, account, true)
			require.NoError(t, err)
			require.Contains(t, unasked, "lets the account replicate")
			_, err = ask(half.Addr, account, false)
			require.ErrorContains(t, err, "made it a standby")
			require.NoError(t, half.StopServer())
			shut := restored(true, servers.WithPostgresAccess("host all copy all reject", "host replication copy all reject"))
			unasked, err = ask(shut.Addr, account, true)
			require.NoError(t, err)
			require.Contains(t, unasked, "its access rules refuse the account")
			require.NoError(t, shut.StopServer())

			// Nobody to follow: the first look and every later one say so.
			require.NoError(t, s.StopServer())
			r := &Restored{Options: account, Coordinates: m.report.Coordinates, Standby: true}
			require.Eventually(t, func() bool {
				_, err := r.Ask(t.Context(), standby.Addr)
				return errors.Is(err, dbdump.ErrNotFollowing)
			}, time.Minute, 50*time.Millisecond)
			_, err = r.Ask(t.Context(), s.Addr)
			require.ErrorIs(t, err, dbdump.ErrUnreachable)
			require.NoError(t, s.Start(t.Context()))
			_, err = ask(standby.Addr, account, true)
			require.NoError(t, err)

			archive := restored(true, servers.WithPostgresConfig("restore_command='false'"))
			archive.Exec(t, "postgres", "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
			require.Eventually(t, func() bool {
				unasked, err := ask(archive.Addr, account, true)
				return err == nil && strings.Contains(unasked, "restore_command")
			}, time.Minute, 50*time.Millisecond)

			// One that answers nobody is none that says nothing yet.
			require.NoError(t, standby.StopServer())
			conf, err := os.OpenFile(filepath.Join(standby.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = conf.WriteString("hot_standby=off\n")
			require.NoError(t, errors.Join(err, conf.Close()))
			ctx, cancel := context.WithCancel(t.Context())
			var start sync.WaitGroup
			start.Go(func() { _ = standby.Start(ctx) }) // which waits for an answer, and so until it is told not to
			require.Eventually(t, func() bool {
				unasked, err := r.Ask(t.Context(), standby.Addr)
				return err == nil && strings.Contains(unasked, "hot_standby is off")
			}, time.Minute, 50*time.Millisecond)
			cancel()
			start.Wait()
		})
	}
}

// What a standby says counts from when it is sure: a receiver of which nothing more
// may be known has to be there twice, and one that is not streaming counts for nothing.
func TestStandingOfStandbys(t *testing.T) {
	t.Parallel()
	c := record.Coordinates{Server: "1", Position: 100}
	at := func(position uint64, receiver, status string) standing {
		return standing{whereabouts: whereabouts{system: "1", position: position}, recovers: true, receiver: receiver, status: status}
	}
	for name, says := range map[string][]standing{ // the last one is the first that will do
		"streaming":            {at(100, "7", "streaming")},
		"not yet":              {at(100, "", ""), at(100, "7", "starting"), at(100, "7", "streaming")},
		"nobody says":          {at(100, "7", ""), at(100, "7", "")},
		"another each time":    {at(100, "7", ""), at(100, "8", ""), at(100, "", ""), at(100, "9", ""), at(100, "9", "")},
		"behind the backup":    {at(99, "7", "streaming"), at(100, "7", "streaming")},
		"known to be starting": {at(100, "7", "waiting"), at(100, "7", "waiting"), at(100, "7", "streaming")},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Restored{Coordinates: c, Standby: true}
			for i, now := range says {
				unasked, err := r.judge(now)
				require.Empty(t, unasked)
				if i < len(says)-1 {
					require.ErrorIs(t, err, dbdump.ErrNotFollowing, "%d", i)
					continue
				}
				require.NoError(t, err)
			}
		})
	}
}

// TestUnknownAccount: a server that does not know the account may be any, in whatever
// language it says so; one whose access rules refuse it cannot be asked.
func TestUnknownAccount(t *testing.T) {
	says := func(routine, message string) error {
		return fmt.Errorf("connect: %w: %w", dbdump.ErrAccess, &pgconn.PgError{Code: "28000", Routine: routine, Message: message})
	}
	unknown, shut := says("InitializeSessionUserId", "Rolle »copy« existiert nicht"), says("ClientAuthentication", "kein Eintrag für Host »::1«")
	require.Empty(t, closed(unknown))
	require.Empty(t, closed(errors.Join(shut, unknown)))
	require.Contains(t, closed(shut), "its access rules refuse the account: kein Eintrag")
}
