package mysql

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// position is where replication continues, as the files say. Whom the server followed is taken from the record where
// there is one: an earlier attempt may have got as far as following somebody else.
func (a *adoption) position(ctx context.Context) (at record.Coordinates, err error) {
	files, err := a.readCoordinates(ctx, a.s)
	if err != nil {
		return at, err
	}
	at = a.c
	if a.c.Server == "" {
		at = files
		if at.Server, err = a.origin(ctx); err != nil {
			return at, err
		}
	} else if at.OtherUpstreams = slices.Clone(at.OtherUpstreams); at.Upstream != nil {
		first := *at.Upstream
		at.Upstream = &first
	}
	if a.opts.Load.Copied {
		return at, a.copiedPosition(ctx, &at)
	}
	at.GTID = files.GTID
	if at.File, at.Position, err = a.endOfLogs(ctx); err != nil {
		return at, err
	}
	if a.server.MariaDB() {
		err = a.mariaDBPosition(ctx, &at)
	} else {
		err = a.mySQLPosition(ctx, &at, upstreamsOf(&files))
	}
	if err == nil && (at.GTID != a.c.GTID || at.GTID == "" && (at.File != a.c.File || at.Position != a.c.Position)) {
		err = a.checkDurable(ctx)
	}
	return at, err
}

// checkDurable looks at a copy that is not where its record is, so that nobody need have held the server still. What a
// power cut may take from InnoDB, while the binary log keeps it, nobody would miss.
func (a *adoption) checkDurable(ctx context.Context) error {
	if len(a.logs) < 2 {
		return nil
	}
	var commits, every int
	if err := a.s.queryRow(ctx, "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.sync_binlog", &commits, &every); err != nil {
		return err
	}
	if commits == 1 && every == 1 || commits == 3 && every == 1 { // MariaDB's 3 is a more careful 1
		return nil
	}
	last := a.logs[len(a.logs)-2]
	switch clean, err := shutDown(ctx, a.s, last); {
	case err != nil || clean:
		return err
	case commits != 1 && commits != 3:
		return fmt.Errorf("%w: nobody held the server still that these files come from, nor was it shut down, and with innodb_flush_log_at_trx_commit=%d they may lack commits that its binary log has: "+
			"hold it still for the next volume snapshot, or set it to 1; where it was 1 there, set it to 1 here", dbdump.ErrCoordinates, commits)
	}
	a.log.Warn("nobody held the server still that these files come from, and with sync_binlog other than 1 they may lack the end of its binary log: replication then stops at the first change that is there already", "sync_binlog", every)
	return nil
}

// upstreamsOf are the upstreams of the coordinates, the first one first, to be changed.
func upstreamsOf(c *record.Coordinates) []*record.UpstreamCoordinates {
	if c.Upstream == nil {
		return nil
	}
	list := []*record.UpstreamCoordinates{c.Upstream}
	for i := range c.OtherUpstreams {
		list = append(list, &c.OtherUpstreams[i])
	}
	return list
}

// origin is the identity of the server that wrote the binary logs, where nobody recorded it. MySQL's stood in auto.cnf
// alone, which is gone.
func (a *adoption) origin(ctx context.Context) (server string, err error) {
	if !a.server.MariaDB() || len(a.logs) < 2 {
		return "", nil
	}
	err = a.s.each(ctx, "SHOW BINLOG EVENTS IN "+quoteString(a.logs[len(a.logs)-2].name)+" LIMIT 1", func(r row) error {
		server = r.get("Server_id")
		return nil
	})
	return server, err
}

// endOfLogs is the end of the last binary log of the other server that holds a change, or the recorded position where
// that comes after it: in a log that was just begun.
func (a *adoption) endOfLogs(ctx context.Context) (file string, position uint64, err error) {
	if len(a.logs) == 0 {
		return "", 0, nil
	}
	for _, log := range slices.Backward(a.logs[:len(a.logs)-1]) { // the last one was begun by this server
		content, err := readContent(ctx, a.s, log.name, mostHeaders)
		if err != nil {
			return "", 0, err
		}
		file, position = log.name, log.size
		if !content.empty() {
			break
		}
	}
	recorded := slices.IndexFunc(a.logs, func(l binaryLog) bool { return l.name == a.c.File })
	switch {
	case a.c.File == "" || recorded < 0 && a.c.GTID != "":
		// Not recorded; or the logs of the other server are gone since an earlier attempt, and GTIDs will tell.
	case recorded < 0 || a.logs[recorded].size < a.c.Position:
		if a.c.GTID == "" {
			return "", 0, older("binary log "+a.c.File, fmt.Sprintf("%s:%d", a.c.File, a.c.Position), fmt.Sprintf("%s:%d", file, position))
		}
	case !laterPosition(file, position, a.c.File, a.c.Position):
		file, position = a.c.File, a.c.Position
	}
	return file, position, nil
}

// laterPosition tells whether a position comes after another one in the same server's logs.
func laterPosition(file string, position uint64, other string, at uint64) bool {
	return laterLog(file, other) || file == other && position > at
}

// mySQLPosition is gtid_executed, but for what this server may have written itself; without GTIDs, what the tables of
// the replica say.
func (a *adoption) mySQLPosition(ctx context.Context, at *record.Coordinates, files []*record.UpstreamCoordinates) error {
	if a.local {
		own, err := readIdentity(ctx, a.s, a.server)
		if err != nil {
			return err
		}
		if own.uuid != a.c.Server {
			at.GTID = withoutServer(at.GTID, own.uuid)
		}
	}
	if a.c.GTID != "" {
		var missing string
		query := "SELECT GTID_SUBTRACT(" + quoteString(a.c.GTID) + ", " + quoteString(at.GTID) + ")"
		if err := a.s.queryRow(ctx, query, &missing); err != nil {
			return err
		}
		if missing != "" {
			return older("transactions "+oneLine(missing), oneLine(a.c.GTID), at.GTID)
		}
	}
	for _, u := range upstreamsOf(at) {
		if at.GTID != "" {
			u.GTID = at.GTID
		} else if err := a.applied(ctx, u, files); err != nil {
			return err
		}
	}
	return nil
}

// applied completes a position in an upstream without GTIDs from what the files say of it.
func (a *adoption) applied(ctx context.Context, u *record.UpstreamCoordinates, files []*record.UpstreamCoordinates) error {
	i := slices.IndexFunc(files, func(f *record.UpstreamCoordinates) bool {
		return f.Channel == u.Channel && f.Host == u.Host && f.Port == u.Port
	})
	if i < 0 {
		return nil // adopted before, as recorded
	}
	f := files[i]
	recorded := a.c.Upstream != nil
	switch {
	case recorded && f.File == u.File && f.Position == u.Position:
		return nil
	case recorded && laterPosition(u.File, u.Position, f.File, f.Position):
		return older("what was applied of "+u.Host, fmt.Sprintf("%s:%d", u.File, u.Position), fmt.Sprintf("%s:%d", f.File, f.Position))
	}
	// Nobody had the appliers stop: with several of them, each has a position of its own.
	var appliers int
	if err := a.s.queryRow(ctx, "SELECT COUNT(*) FROM mysql.slave_worker_info WHERE Channel_name="+quoteString(u.Channel), &appliers); err != nil {
		return privilegeError(err, "see how many appliers the files know")
	}
	if appliers > 0 || !a.server.AtLeast(8, 0, 0) {
		return fmt.Errorf("%w: the server that the files come from followed %s without GTIDs, and its appliers went on while they were copied, so that they hold no exact position: "+
			"turn GTIDs on, or hold the server still for the copy and allow its appliers to be stopped (--allow-stopping-replica)", dbdump.ErrCoordinates, u.Host)
	}
	u.File, u.Position = f.File, f.Position
	return nil
}

// copiedPosition leaves the server's own position as it was recorded: the binary logs are not among the files. What was
// applied of an upstream stands in the tables, and may be more than the variable said that the record comes from.
func (a *adoption) copiedPosition(ctx context.Context, at *record.Coordinates) error {
	if a.c.Server == "" {
		return fmt.Errorf("%w: the files have no binary log, and there is no record of where the server was in it", dbdump.ErrCoordinates)
	}
	if !a.server.MariaDB() {
		return a.copiedMySQL(ctx, at)
	}
	list := upstreamsOf(at)
	if len(list) == 0 {
		return nil
	}
	var variable string
	if err := a.s.queryRow(ctx, "SELECT @@GLOBAL.gtid_slave_pos", &variable); err != nil {
		return err
	}
	applied, err := a.appliedMariaDB(ctx, a.s, variable)
	if err != nil {
		return err
	}
	for _, u := range list {
		done, err := includesMariaDB(applied, u.GTID)
		if err != nil || !done {
			return cmp.Or(err, older("transactions of "+u.Host, u.GTID, applied))
		}
		if u.GTID != "" && u.GTID != applied {
			u.GTID, u.File, u.Position = applied, "", 0
		}
	}
	return nil
}

// copiedMySQL compares the record with gtid_executed of the files, less what the server has written itself. The files may
// lack what was in binary logs alone, as in 5.7, and may have more than the log that the record comes from; but neither
// has what the other lacks where they are of one server and one moment.
func (a *adoption) copiedMySQL(ctx context.Context, at *record.Coordinates) error {
	if a.c.GTID == "" {
		return nil
	}
	own, err := readIdentity(ctx, a.s, a.server)
	if err != nil {
		return err
	}
	var executed string
	if err := a.s.queryRow(ctx, "SELECT @@GLOBAL.gtid_executed", &executed); err != nil {
		return err
	}
	files := withoutServer(executed, own.uuid)
	var missing, more string
	r, f := quoteString(a.c.GTID), quoteString(files)
	if err := a.s.queryRow(ctx, "SELECT GTID_SUBTRACT("+r+", "+f+"), GTID_SUBTRACT("+f+", "+r+")", &missing, &more); err != nil {
		return err
	}
	switch {
	case more == "":
		return nil
	case missing != "":
		return older("transactions "+oneLine(missing), oneLine(a.c.GTID), files)
	}
	at.GTID, at.File, at.Position = files, "", 0
	for _, u := range upstreamsOf(at) {
		u.GTID, u.File, u.Position = files, "", 0
	}
	return nil
}

// mariaDBPosition is what stands in the binary log, and what was applied of an upstream.
func (a *adoption) mariaDBPosition(ctx context.Context, at *record.Coordinates) error {
	if a.local {
		// The log that this server began starts with the position of the files.
		began, err := startOfLog(ctx, a.s, a.logs[len(a.logs)-1].name)
		if err != nil {
			return err
		}
		at.GTID = formatMariaDB(lastOfDomains(began))
	}
	var variable string
	if err := a.s.queryRow(ctx, "SELECT @@GLOBAL.gtid_slave_pos", &variable); err != nil {
		return err
	}
	applied, err := a.appliedMariaDB(ctx, a.s, variable)
	if err != nil {
		return err
	}
	list, err := parseMariaDB(at.GTID + "," + applied)
	if err != nil {
		return err
	}
	all := formatMariaDB(furthest(list))
	parts := []string{a.c.GTID}
	for _, u := range upstreamsOf(&a.c) {
		parts = append(parts, u.GTID)
	}
	recorded := strings.Join(parts, ",")
	if done, err := includesMariaDB(all, recorded); err != nil || !done {
		return cmp.Or(err, older("transactions", recorded, all))
	}
	done, err := includesMariaDB(at.GTID, a.c.GTID)
	if err != nil {
		return err
	}
	if !done || at.GTID == "" && at.Upstream == nil {
		at.GTID = all // the log is gone since an earlier attempt, and what it held is counted as applied
	}
	for _, u := range upstreamsOf(at) {
		if u.GTID != applied {
			u.GTID, u.File, u.Position = applied, "", 0
		}
	}
	return nil
}

// older is the error of files that lack something of the record.
func older(what, recorded, files string) error {
	return fmt.Errorf("%w: the files lack %s: recorded is %s, in the files is %s: they are of an earlier moment or of another server, or the binary logs are on a volume that was not copied",
		dbdump.ErrCoordinates, what, recorded, cmp.Or(files, "nothing"))
}
