package xtrabackup

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	driver "github.com/go-sql-driver/mysql"
)

// status is what performance_schema.log_status says.
type status struct {
	Local struct {
		GTID     string `json:"gtid_executed"`
		File     string `json:"binary_log_file"`
		Position int64  `json:"binary_log_position"`
	}
	Engines struct {
		InnoDB struct {
			LSN        uint64
			Checkpoint uint64 `json:"LSN_checkpoint"`
		}
	}
}

// backup copies the server's files.
func (p *program) backup() (err error) {
	if p.options["stream"] != "xbstream" || p.options["target-dir"] == "" || p.options["datadir"] == "" {
		return errors.New("the stand-in wants --stream=xbstream, --target-dir and --datadir")
	}
	ctx := context.Background()
	db, err := p.connect()
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing is written
	lock, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("Failed to connect to MySQL server: %w", err) //nolint:staticcheck // its words
	}
	defer lock.Close() //nolint:errcheck // its end gives the lock back
	clone, err := os.MkdirTemp(p.options["target-dir"], "clone-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(clone)) }()
	if err := os.Chmod(clone, 0o777); err != nil { //nolint:gosec // the server writes into it
		return err
	}
	if _, err := lock.ExecContext(ctx, "FLUSH TABLES WITH READ LOCK"); err != nil {
		return err
	}
	files := filepath.Join(clone, "data")
	if _, err := db.ExecContext(ctx, "CLONE LOCAL DATA DIRECTORY = '"+files+"'"); err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	s, err := readStatus(ctx, lock)
	if err != nil {
		return err
	}
	out := &bytes.Buffer{} // they are small
	if err := p.send(ctx, &stream{w: out, at: map[string]int64{}}, db, files, s); err != nil {
		return err
	}
	return p.finish(out.Bytes())
}

// finish is the end of the stream, or a lie.
func (p *program) finish(stream []byte) error {
	switch p.lie {
	case "cut":
		stream = stream[:len(stream)/2]
	case "nothing":
		stream = nil
	}
	if _, err := p.stdout.Write(stream); err != nil {
		return err
	}
	switch p.lie {
	case "failed":
		return errors.New("the last of the log could not be copied")
	case "silent":
		return nil
	}
	p.say("Transaction log of lsn was copied.\ncompleted OK!")
	return nil
}

func (p *program) connect() (*sql.DB, error) {
	c := driver.NewConfig()
	c.User, c.Passwd = p.options["user"], p.options["password"]
	c.Net, c.Addr = "unix", p.options["socket"]
	if host := p.options["host"]; host != "" {
		c.Net, c.Addr = "tcp", net.JoinHostPort(host, cmp.Or(p.options["port"], "3306"))
	}
	connector, err := driver.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

func readStatus(ctx context.Context, conn *sql.Conn) (s status, err error) {
	var local, engines []byte
	if err := conn.QueryRowContext(ctx, "SELECT LOCAL, STORAGE_ENGINES FROM performance_schema.log_status").Scan(&local, &engines); err != nil {
		return s, err
	}
	err = errors.Join(json.Unmarshal(local, &s.Local), json.Unmarshal(engines, &s.Engines))
	s.Local.GTID = strings.ReplaceAll(s.Local.GTID, "\n", "")
	return s, err
}

// copiedAsTheyAre are the ends of files that are no engine's with a log.
var copiedAsTheyAre = []string{".MYD", ".MYI", ".CSV", ".CSM", ".ARZ", ".sdi"}

// send writes all files: the clone's, those of tables without a log, the current binary log, and what it says itself.
func (p *program) send(ctx context.Context, out *stream, db *sql.DB, clone string, s status) error {
	log, err := packed(clone)
	if err != nil {
		return err
	}
	half := len(log) / 2
	out.data(logFile, log[:half])
	for _, from := range []struct {
		dir  string
		want func(name string) bool
	}{
		{clone, func(name string) bool {
			return !strings.HasPrefix(name, "#") && !slices.Contains(copiedAsTheyAre, filepath.Ext(name))
		}},
		{p.options["datadir"], func(name string) bool { return slices.Contains(copiedAsTheyAre, filepath.Ext(name)) }},
	} {
		root := os.DirFS(from.dir)
		err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !from.want(name) {
				return err
			}
			return out.file(name, filepath.Join(from.dir, name), -1)
		})
		if err != nil {
			return err
		}
	}
	if err := p.binaryLog(ctx, out, db, s); err != nil {
		return err
	}
	if p.has("slave-info") {
		if err := p.slaveInfo(ctx, out, db, s); err != nil {
			return err
		}
	}
	out.data(logFile, log[half:])
	out.end(logFile)
	lsn := s.Engines.InnoDB
	out.text(checkpoints, fmt.Sprintf("backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = %d\nlast_lsn = %d\nflushed_lsn = %d\nredo_memory = 0\nredo_frames = 0\n", lsn.Checkpoint, lsn.LSN, lsn.LSN))
	var version string
	if err := db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return err
	}
	out.text("xtrabackup_info", fmt.Sprintf("uuid = 00000000-0000-0000-0000-000000000000\nname = \ntool_name = xtrabackup\ntool_command = \ntool_version = %s-1\nserver_version = %s\n"+
		"lock_time = 1\ninnodb_from_lsn = 0\ninnodb_to_lsn = %d\npartial = N\nincremental = N\nformat = xbstream\ncompressed = N\nencrypted = N\n", series, version, lsn.Checkpoint))
	out.text("xtrabackup_tablespaces", "{}\n")
	out.text("backup-my.cnf", "# This MySQL options file was generated by a stand-in.\n\n[mysqld]\ninnodb_page_size=16384\n")
	return out.err
}

// binaryLog is the current one, up to the position, and what it says of it.
func (p *program) binaryLog(ctx context.Context, out *stream, db *sql.DB, s status) error {
	at := s.Local
	if at.File == "" {
		return nil
	}
	var base, index, mode string
	if err := db.QueryRowContext(ctx, "SELECT @@log_bin_basename, @@log_bin_index, @@gtid_mode").Scan(&base, &index, &mode); err != nil {
		return err
	}
	if err := out.file(at.File, filepath.Join(filepath.Dir(base), at.File), at.Position); err != nil {
		return err
	}
	out.text(filepath.Base(index), "./"+at.File+"\n")
	if p.lie == "late" {
		at.Position += 1 << 20
	}
	text := fmt.Sprintf("%s\t%d", at.File, at.Position)
	if mode == "ON" && at.GTID != "" {
		text += "\t" + at.GTID
	}
	out.text("xtrabackup_binlog_info", text+"\n")
	return out.err
}

// slaveInfo is where the server was in its upstreams, as statements.
func (p *program) slaveInfo(ctx context.Context, out *stream, db *sql.DB, s status) error {
	rows, err := db.QueryContext(ctx, "SHOW REPLICA STATUS")
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // read to its end
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	var text strings.Builder
	for rows.Next() {
		values, dest := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		get := func(name string) string { return values[slices.Index(names, name)].String }
		channel := ""
		if name := get("Channel_Name"); name != "" {
			channel = " FOR CHANNEL '" + name + "'"
		}
		if get("Auto_Position") == "1" {
			if text.Len() == 0 {
				fmt.Fprintf(&text, "SET GLOBAL gtid_purged='%s';\n", s.Local.GTID)
			}
			fmt.Fprintf(&text, "CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=1%s;\n", channel)
			continue
		}
		fmt.Fprintf(&text, "CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='%s', SOURCE_LOG_POS=%s%s;\n", get("Relay_Source_Log_File"), get("Exec_Source_Log_Pos"), channel)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	out.text("xtrabackup_slave_info", text.String())
	return out.err
}
