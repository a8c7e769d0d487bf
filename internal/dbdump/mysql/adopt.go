package mysql

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// A server that comes up on a copy of another one's files has everything of it: rows, accounts, events that are enabled,
// its binary logs, and whom it followed. Its position stands in these files, on both families where a commit puts it:
// MySQL's gtid_executed, MariaDB's gtid_binlog_pos and the rows of mysql.gtid_slave_pos. So a copy that nobody held still
// for, which the server recovers as after a power cut, knows its own position; a copy of a server that was held still
// has to be where that server was. Only what the copy has done itself since it came up must not count: it would be taken
// for history of the other one. See seedfiles.go for what keeps it from doing anything.

// adoption is one run of Adopt.
type adoption struct {
	*dump
	s *session
	// c are the coordinates as recorded; zero where there are none.
	c record.Coordinates
	// logs are the binary logs, oldest first; the last one was begun when the server came up.
	logs []binaryLog
	// local tells that the server has written something into the last one by itself.
	local bool
}

// Adopt implements dbdump.Adopter. With Load.Follower it prepares a server that will follow another one.
func (e *Engine) Adopt(ctx context.Context, c record.Coordinates) (record.Coordinates, error) {
	adopted, err := e.adopt(ctx, c)
	if err != nil {
		return record.Coordinates{}, fmt.Errorf("adopt the files of %s: %w", e.opts.Address, err)
	}
	return adopted, nil
}

// CheckFiles implements dbdump.FileChecker. Files that were copied are those of one series of versions: a newer server makes
// them its own when it starts, and nobody has tried whether it may with files that were prepared by another one's program.
func (e *Engine) CheckFiles(ctx context.Context, r record.Report) error {
	if !IsCopy(r) {
		return nil
	}
	server, err := e.server(ctx)
	if err != nil {
		return err
	}
	if server.Flavor != r.Flavor || majorMinor(server.Version) != majorMinor(r.Version) {
		return fmt.Errorf("%w: the files are those of %s %s, and the server that was started on them is %s %s: start one of the same series on new files, or restore a dump",
			dbdump.ErrMismatch, Server{Flavor: r.Flavor}.family(), r.Version, server.family(), server.Version)
	}
	return nil
}

func (e *Engine) adopt(ctx context.Context, c record.Coordinates) (adopted record.Coordinates, err error) {
	server, err := e.server(ctx)
	if err != nil {
		return adopted, err
	}
	s, err := e.openSession(ctx, slices.Concat(activateRoles(server), dumpSetup(server))...)
	if err != nil {
		return adopted, err
	}
	defer s.Close()
	a := &adoption{dump: &dump{opts: e.opts, log: e.opts.Logger, server: server}, s: s, c: c}
	if err := a.checkPlace(ctx); err != nil {
		return adopted, err
	}
	if err := a.checkUntouched(ctx); err != nil {
		return adopted, err
	}
	if adopted, err = a.position(ctx); err != nil {
		return adopted, err
	}
	// What is read above is gone after this; before it, another attempt finds everything again.
	if err := e.adoptEvents(ctx, a, adopted.Upstream != nil); err != nil {
		return adopted, err
	}
	return adopted, a.resetReplicas(ctx)
}

// movedOn is the error of a server that did something since it came up.
func movedOn(what string) error {
	return fmt.Errorf("%w: since it came up on these files %s: start over from the volume snapshot, with the arguments of PrepareFiles (--skip-slave-start, --event-scheduler=OFF), "+
		"and with --persisted-globals-load=OFF in addition where SET PERSIST holds against them",
		dbdump.ErrCoordinates, what)
}

// checkPlace makes sure that the server runs on the files that were brought, and not
// on new ones that its image has made elsewhere.
func (a *adoption) checkPlace(ctx context.Context) error {
	want := a.opts.Load.DataDirectory
	if want == "" {
		return nil
	}
	var has string
	if err := a.s.queryRow(ctx, "SELECT @@GLOBAL.datadir", &has); err != nil {
		return err
	}
	if path.Clean(has) != path.Clean(want) {
		return fmt.Errorf("%w: the server has its files in %s, and those of the backup are in %s: say so by --data-directory", dbdump.ErrMismatch, has, want)
	}
	return nil
}

// checkUntouched makes sure that the server has done nothing but recover.
func (a *adoption) checkUntouched(ctx context.Context) (err error) {
	list, err := readReplicas(ctx, a.s, a.server)
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.io != "No" || r.sql != "No" {
			return movedOn("it follows " + r.host + " again")
		}
	}
	if err := checkIsolated(ctx, a.s, a.server); err != nil {
		return err
	}
	ran, err := a.replicated(ctx)
	if err == nil && ran {
		err = movedOn("it has applied changes of its upstream")
	}
	if err != nil {
		return err
	}
	var scheduler string
	if err := a.s.queryRow(ctx, "SELECT @@GLOBAL.event_scheduler", &scheduler); err != nil {
		return err
	}
	if strings.EqualFold(scheduler, "ON") {
		return movedOn("its event scheduler has been on, and events may have run")
	}
	if a.logs, err = readBinaryLogs(ctx, a.s); err != nil || len(a.logs) == 0 {
		return err
	}
	last := a.logs[len(a.logs)-1].name
	content, err := readContent(ctx, a.s, last, 0)
	if err == nil && content.change != "" {
		err = movedOn(fmt.Sprintf("something was written on it (%s, in %s)", content.change, last))
	}
	a.local = content.emptied
	return err
}

// replicated tells whether an applier has been at work since the server came up, though it stands still now.
func (a *adoption) replicated(ctx context.Context) (ran bool, err error) {
	if a.server.MariaDB() {
		err = a.s.each(ctx, "SHOW ALL SLAVES STATUS", func(r row) error {
			ran = ran || number(r.get("Executed_log_entries")) > 0
			return nil
		})
		return ran, err
	}
	if !a.server.AtLeast(8, 0, 0) {
		return false, nil // 5.7 does not tell
	}
	err = a.s.queryRow(ctx, "SELECT COUNT(*) > 0 FROM performance_schema.replication_applier_status_by_worker WHERE LAST_APPLIED_TRANSACTION <> ''", &ran)
	return ran, err
}

// resetReplicas takes off whom the server followed, and its relay logs.
func (a *adoption) resetReplicas(ctx context.Context) error {
	statements := []string{wordsOf(a.server).resetReplica}
	if a.server.MariaDB() {
		channels, err := a.channels(ctx, a.s)
		if err != nil {
			return err
		}
		for _, c := range channels {
			if c.Channel != "" {
				statements = append(statements, "RESET SLAVE "+quoteString(c.Channel)+" ALL")
			}
		}
	}
	for _, statement := range statements {
		err := a.s.exec(ctx, statement)
		if n := errorNumber(err); err != nil && n != errReplicaNotConfigured && n != errReplicaNotRunning {
			return privilegeError(err, "take off whom the server followed")
		}
	}
	return nil
}
