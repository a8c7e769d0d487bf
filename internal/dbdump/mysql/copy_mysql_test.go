package mysql

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql/xbstream"
	"keepset/internal/record"
	"keepset/test/servers"
	standin "keepset/test/standins/xtrabackup"
)

// TestMain is the stand-in for xtrabackup, where the tests run that.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == standin.Name {
		os.Exit(standin.Run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// standIn is a folder with the stand-in for xtrabackup, which may be told to lie.
func standIn(t testing.TB, lie string) Local {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	dir, inner := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(self, filepath.Join(inner, standin.Name)))
	script := fmt.Sprintf("#!/bin/sh\nLIE='%s' exec '%s/%s' \"$@\"\n", lie, inner, standin.Name)
	require.NoError(t, os.WriteFile(filepath.Join(dir, standin.Name), []byte(script), 0o700)) //nolint:gosec // a program
	return Local{Dir: dir}
}

// cloning is MySQL as the stand-in wants it.
var cloning = mysql97.with("gtid_mode=ON", "enforce_gtid_consistency=ON", "plugin_load_add=mysql_clone.so")

// standInOptions are those of a copy by the stand-in.
func standInOptions(t testing.TB, s *servers.MySQL, lie string) Options {
	t.Helper()
	o := options(t, s)
	o.Programs = standIn(t, lie)
	return o
}

// copyAccount is the documented one.
func copyAccount(t testing.TB) []string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/mysql-physical.md")
	require.NoError(t, err)
	_, block, ok := strings.Cut(string(page), "### Account on MySQL 8 and later\n")
	require.True(t, ok)
	_, block, _ = strings.Cut(block, "```sql\n")
	block, _, _ = strings.Cut(block, "```")
	var list []string
	for q := range strings.SplitSeq(block, ";") {
		if q = strings.TrimSpace(q); q != "" {
			list = append(list, q)
		}
	}
	return list
}

// restoredCopy restores a copy of a MySQL and makes it ready for a server.
func restoredCopy(t testing.TB, m *memoryFiles) (volume string) {
	t.Helper()
	volume = t.TempDir()
	o := CopyRestore{Path: volume + "/data", Workers: 2}
	r, err := o.Restore(t.Context(), m)
	require.NoError(t, err)
	require.Contains(t, strings.Join(r.Warnings, "\n"), "run xtrabackup --prepare --target-dir="+o.Path+", of MySQL 9.7,")
	said, err := prepareCopy(t, standIn(t, "").Dir, volume)
	require.NoError(t, err, said)
	require.Contains(t, said, completed)
	require.NoFileExists(t, o.Path+"/xtrabackup_checkpoints")
	require.NoFileExists(t, o.Path+"/xtrabackup_logfile")
	return volume
}

// prepareCopy runs the script of PrepareCopy.
func prepareCopy(t testing.TB, programs, volume string) (string, error) {
	t.Helper()
	script, _ := PrepareCopy()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script, "keepset", volume)
	cmd.Env = []string{"PATH=" + programs + ":/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A MySQL that is written to is copied by the stand-in, and the copy, prepared, follows it from the recorded position.
func TestXtrabackup(t *testing.T) {
	t.Parallel()
	p, up := primary(t, cloning)
	p.Exec(t, "USE d", "CREATE DATABASE `a-b ü`", "CREATE TABLE `a-b ü`.`c.d/é` (a INT)", "INSERT INTO `a-b ü`.`c.d/é` VALUES (7)",
		"CREATE TABLE d.big (id INT AUTO_INCREMENT PRIMARY KEY, v TEXT)",
		"INSERT INTO d.big (v) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT REPEAT(SHA2(i, 256), 30) FROM n",
		"CREATE TABLE d.parts (a INT) PARTITION BY HASH (a) PARTITIONS 3", "INSERT INTO d.parts VALUES (1), (2), (3)",
		"CREATE TABLE d.m (a INT, KEY (a)) ENGINE=MyISAM", "INSERT INTO d.m VALUES (1), (2)", "CREATE TABLE d.csv (a INT NOT NULL) ENGINE=CSV", "INSERT INTO d.csv VALUES (3)",
		"CREATE TABLESPACE shared ADD DATAFILE 'shared.ibd'", "CREATE TABLE d.inside (a INT) TABLESPACE shared", "INSERT INTO d.inside VALUES (4)")
	p.Exec(t, copyAccount(t)...)
	ctx, stop := context.WithCancel(t.Context())
	writing := make(chan error, 1)
	db := p.DB(t)
	go func() {
		for ctx.Err() == nil {
			if _, err := db.ExecContext(context.WithoutCancel(ctx), "INSERT INTO d.t (v) VALUES (LEFT(UUID(), 20))"); err != nil {
				writing <- err
				return
			}
		}
		writing <- nil
	}()
	o := standInOptions(t, p, "")
	o.User, o.Password = "keepset_copy", "change-me"
	m := copied(t, o)
	again := copied(t, o)
	stop()
	require.NoError(t, <-writing)

	at := m.report.Coordinates
	require.Nil(t, at.Upstream)
	require.Equal(t, p.Value(t, "SELECT @@server_uuid"), at.Server)
	require.Contains(t, at.GTID, at.Server)
	require.NotZero(t, at.Position)
	require.Equal(t, "xtrabackup", m.report.Consistency)
	require.Equal(t, FlavorMySQL, m.report.Flavor)
	require.Greater(t, len(m.report.Objects), 1, "large files have streams of their own")
	require.Contains(t, m.raw.String(), "XBSTCK01\x00S", "nothing was sent with gaps")

	p.Exec(t, "INSERT INTO d.t (v) VALUES ('after')")
	for _, m := range []*memoryFiles{m, again} {
		follower := seedFrom(t, cloning, restoredCopy(t, m))
		e := copyAdopter(t, follower)
		require.NoError(t, e.CheckFiles(t.Context(), m.report))
		c, err := e.Adopt(t.Context(), m.report.Coordinates)
		require.NoError(t, err)
		require.Equal(t, m.report.Coordinates.GTID, c.GTID)
		follow(t, copyAdopter(t, follower), c, up)
		sameRows(t, p, follower)
		d, other := &describer{t: t, db: db}, &describer{t: t, db: follower.DB(t)}
		const tables = "CHECKSUM TABLE d.t, d.big, d.parts, d.m, d.csv, d.inside, `a-b ü`.`c.d/é`"
		require.Equal(t, d.lines(tables), other.lines(tables))
		require.NotEqual(t, at.Server, follower.Value(t, "SELECT @@server_uuid"))
		follower.Stop(t)
	}
}

// The copy of a follower knows where that was in its upstream, and follows the same one, or the follower.
func TestXtrabackupOfFollower(t *testing.T) {
	t.Parallel()
	p, up := primary(t, cloning)
	p.Exec(t, "GRANT REPLICATION CLIENT ON *.* TO repl@'%'")
	m, report := dumpMemory(t, options(t, p))
	s := seed(t, cloning, m.Source(report), up)
	p.Exec(t, "INSERT INTO d.t (v) VALUES ('followed')")
	sameRows(t, p, s)
	c := copied(t, standInOptions(t, s, ""))
	at := c.report.Coordinates
	require.Equal(t, s.Value(t, "SELECT @@server_uuid"), at.Server)
	require.NotNil(t, at.Upstream)
	require.Equal(t, up.Port, at.Upstream.Port)
	require.True(t, at.Upstream.Running)
	require.Contains(t, at.Upstream.GTID, p.Value(t, "SELECT @@server_uuid"))
	p.Exec(t, "INSERT INTO d.t (v) VALUES ('after')")
	volume := restoredCopy(t, c)
	for _, whom := range []dbdump.Upstream{up, upstreamAt(s)} {
		twin := seedFrom(t, cloning, volume)
		adopted, err := copyAdopter(t, twin).Adopt(t.Context(), at)
		require.NoError(t, err)
		follow(t, copyAdopter(t, twin), adopted, whom)
		p.Exec(t, "INSERT INTO d.t (v) VALUES ('later')")
		sameRows(t, p, twin)
		require.Equal(t, "REPLICA_SIDE_DISABLED", twin.Value(t, "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='tick'"))
		twin.Stop(t)
	}
}

// Without GTIDs a copy follows from its place in the binary log, and a follower, whose place is not exact, is not copied.
func TestXtrabackupWithoutGTIDs(t *testing.T) {
	t.Parallel()
	f := cloning.with("gtid_mode=OFF", "plugin_load_add=mysql_clone.so")
	p, up := primary(t, f)
	p.Exec(t, "GRANT REPLICATION CLIENT ON *.* TO repl@'%'")
	m := copied(t, standInOptions(t, p, ""))
	at := m.report.Coordinates
	require.Empty(t, at.GTID)
	require.NotZero(t, at.Position)
	p.Exec(t, "INSERT INTO d.t (v) VALUES ('after')")
	follower := seedFrom(t, f, restoredCopy(t, m))
	adopted, err := copyAdopter(t, follower).Adopt(t.Context(), at)
	require.NoError(t, err)
	follow(t, copyAdopter(t, follower), adopted, up)
	sameRows(t, p, follower)

	_, err = newEngine(t, standInOptions(t, follower, "")).Copy(t.Context(), &memoryFiles{})
	require.ErrorContains(t, err, "turn GTIDs on")
}

// A program for MySQL 8.0 of before the files' last change is not for a newer server, and a later one is.
func TestXtrabackupVersions(t *testing.T) {
	t.Parallel()
	server := func(version string) Server {
		v, n, err := parseVersion(version)
		require.NoError(t, err)
		return Server{Flavor: FlavorMySQL, Version: v, number: n}
	}
	for _, c := range []struct {
		program, server string
		fits            bool
	}{
		{"5.7.44", "5.7.20", true},
		{"5.7.13", "5.7.44", true},
		{"8.0.33", "8.0.33", true},
		{"8.0.32", "8.0.33", false},
		{"8.0.35", "8.0.44", true},
		{"8.0.35", "8.4.0", false},
		{"8.4.0", "8.0.44", false},
		{"5.7.44", "8.0.20", false},
		{"8.4.0", "8.4.7", true},
	} {
		e := &Engine{opts: Options{Programs: programsFunc(func(_ context.Context, p Program) error {
			_, err := fmt.Fprintf(p.Stderr, "xtrabackup: recognized server arguments: --datadir=/var/lib/mysql\nxtrabackup version 1.2.3-4 based on MySQL server %s Linux (x86_64) (revision id: abc)\n", c.program)
			return err
		})}}
		err := e.checkProgram(t.Context(), xtrabackup, server(c.server))
		require.Equal(t, c.fits, err == nil, "%s on %s: %v", c.program, c.server, err)
		if !c.fits {
			require.ErrorContains(t, err, "Percona XtraBackup 2.4 is for MySQL 5.7")
		}
	}
}

// Positions as the versions of xtrabackup write them.
func TestXtrabackupInfo(t *testing.T) {
	t.Parallel()
	const a, b = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", "4e11fa47-71ca-11e1-9e33-c80aa9429562:1-2:7"
	for text, want := range map[string]record.Coordinates{
		"mysql-bin.000002\t1232":                   {File: "mysql-bin.000002", Position: 1232},
		"mysql-bin.000002\t1232\t" + a:             {File: "mysql-bin.000002", Position: 1232, GTID: a},
		"mysql-bin.000002\t1232\t" + a + ",\n" + b: {File: "mysql-bin.000002", Position: 1232, GTID: a + "," + b},
		"\t0\t" + a: {GTID: a},
		"binlog.000009\t4\tabc:tag:1-3,def:1-2:tag_2:3-4": {File: "binlog.000009", Position: 4, GTID: "abc:tag:1-3,def:1-2:tag_2:3-4"},
	} {
		c, err := parseMySQLBinlogInfo(text)
		require.NoError(t, err, text)
		require.Equal(t, want, c)
	}
	for _, text := range []string{"", "x", "\t5", "a\t0", "a\tb", "\t0\t", "a\t4\t'; DROP"} {
		_, err := parseMySQLBinlogInfo(text)
		require.ErrorIs(t, err, xbstream.ErrStream, text)
	}
	for text, want := range map[string]map[string]record.UpstreamCoordinates{
		"CHANGE MASTER TO MASTER_LOG_FILE='m.000001', MASTER_LOG_POS=154\n":                         {"": {File: "m.000001", Position: 154}},
		"SET GLOBAL gtid_purged='" + a + ", " + b + "';\nCHANGE MASTER TO MASTER_AUTO_POSITION=1\n": {"": {GTID: a + "," + b}},
		"SET GLOBAL gtid_purged='" + a + "';\nCHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=1 FOR CHANNEL 'o''ne';\nCHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='s.000001', SOURCE_LOG_POS=7 FOR CHANNEL 'two';\n": {
			"o'ne": {Channel: "o'ne", GTID: a}, "two": {Channel: "two", GTID: a, File: "s.000001", Position: 7},
		},
	} {
		_, found, err := parseMySQLSlaveInfo(text)
		require.NoError(t, err)
		require.Equal(t, want, found)
	}
}

// What is prepared by the wrong program, or by none, is refused before a server starts on it.
func TestPrepareCopyOfMySQL(t *testing.T) {
	t.Parallel()
	made := func(version string) (volume string) {
		volume = t.TempDir()
		touch(t, volume+"/data", "ibdata1", "mysql.ibd", "xtrabackup_logfile")
		require.NoError(t, os.WriteFile(volume+"/data/xtrabackup_info", []byte("tool_name = xtrabackup\nserver_version = "+version+"\nstart_time = 2026\n"), 0o600))
		require.NoError(t, os.WriteFile(volume+"/data/xtrabackup_checkpoints", []byte("backup_type = full-backuped\n"), 0o600))
		return volume
	}
	for name, c := range map[string]struct{ version, lie, want string }{
		"another series":  {"8.4.5", "", "the files are those of a MySQL 8.4, and xtrabackup is made for MySQL 9.7"},
		"an older one":    {"5.7.44-log", "", "those of a MySQL 5.7"},
		"nothing is said": {"9.7.1", "unprepared", "xtrabackup did not say that it completed"},
		"it fails":        {"9.7.1", "prepare-failed", "xtrabackup did not say that it completed"},
	} {
		volume := made(c.version)
		said, err := prepareCopy(t, standIn(t, c.lie).Dir, volume)
		require.Error(t, err, name)
		require.Contains(t, said, c.want, name)
		require.FileExists(t, volume+"/data/xtrabackup_checkpoints")
	}
	said, err := prepareCopy(t, "/nowhere", made("9.7.1"))
	require.Error(t, err)
	require.Contains(t, said, "this image has no xtrabackup")
	require.Contains(t, said, "--copy-container")
}

// A file with the password is there for as long as the program is, for nobody else, and holds any password.
func TestPasswordInAFile(t *testing.T) {
	t.Parallel()
	dir, places := t.TempDir(), t.TempDir()
	script := "#!/bin/sh\nfile=${1#--defaults-file=}; stat -c %a \"$file\"; echo \"$file\" >\"" + places + "/$$\"; cat \"$file\"; shift; printf '%s\\n' \"$*\"; cat\n[ \"$2\" != --fail ] || exit 3\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, xtrabackupProgram), []byte(script), 0o700)) //nolint:gosec // a program
	const password = "p'a\"s $x\\n#;"
	var words string
	container := Container{Exec: func(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error {
		words = strings.Join(command, " ")
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = []string{"PATH=" + dir + ":/usr/bin:/bin"}, stdin, stdout, stderr
		return cmd.Run()
	}}
	for _, programs := range []Programs{container, Local{Dir: dir}} {
		var out bytes.Buffer
		p := Program{Name: xtrabackupProgram, Args: []string{"--backup", "--user=a b"}, Password: password, ByFile: true, Stdout: &out, Stderr: io.Discard}
		require.NoError(t, programs.Run(t.Context(), p))
		require.Equal(t, "600\n[xtrabackup]\npassword=\"p'a\\\"s $x\\\\n#;\"\n--backup --user=a b\n", out.String())
		p.Args = []string{"--backup", "--fail"}
		require.ErrorContains(t, programs.Run(t.Context(), p), "exit status 3")
	}
	require.NotContains(t, words, "p'a")
	entries, err := os.ReadDir(places)
	require.NoError(t, err)
	require.Len(t, entries, 4)
	for _, e := range entries {
		file, err := os.ReadFile(filepath.Join(places, e.Name()))
		require.NoError(t, err)
		require.NoFileExists(t, strings.TrimSpace(string(file)))
	}
}

// Files that a server of another series was started on are not adopted.
func TestCopyOfAnotherSeries(t *testing.T) {
	t.Parallel()
	s := servers.MySQL97(t)
	e := copyAdopter(t, s)
	r := record.Report{Layout: CopyLayout, Flavor: FlavorMySQL, Version: s.Value(t, "SELECT @@version")}
	require.NoError(t, e.CheckFiles(t.Context(), r))
	r.Version = "8.4.5"
	require.ErrorIs(t, e.CheckFiles(t.Context(), r), dbdump.ErrMismatch)
	r.Flavor, r.Version = FlavorMariaDB, "9.7.0"
	require.ErrorIs(t, e.CheckFiles(t.Context(), r), dbdump.ErrMismatch)
	require.NoError(t, e.CheckFiles(t.Context(), record.Report{Layout: "another"}))
}

// The position of a copy is the recorded one, or what its files say beyond it; where neither has all of the other's, they
// are not of one server.
func TestAdoptedPositionOfACopy(t *testing.T) {
	t.Parallel()
	const a, b = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
	s := cloning.server(t, "event_scheduler=OFF")
	s.Exec(t, "RESET BINARY LOGS AND GTIDS", "SET GLOBAL gtid_purged='"+a+":1-5'")
	for recorded, want := range map[string]string{a + ":1-5": a + ":1-5", a + ":1-7": a + ":1-7", a + ":1-3": a + ":1-5"} {
		c, err := copyAdopter(t, s).Adopt(t.Context(), record.Coordinates{Server: a, GTID: recorded, File: "binlog.000007", Position: 4})
		require.NoError(t, err, recorded)
		require.Equal(t, want, c.GTID)
		require.Equal(t, recorded == want, c.File != "", "the file is that of the record")
	}
	_, err := copyAdopter(t, s).Adopt(t.Context(), record.Coordinates{Server: b, GTID: b + ":1-9"})
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, b+":1-9")
	_, err = copyAdopter(t, s).Adopt(t.Context(), record.Coordinates{})
	require.ErrorContains(t, err, "no record of where the server was")
}
