package mysql

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// What the program says of its success, and what it does not say, decides.
func TestXtrabackupLies(t *testing.T) {
	t.Parallel()
	s := cloning.server(t)
	s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (a INT)")
	for lie, want := range map[string]string{
		"silent":  "run xtrabackup: it ended without saying",
		"cut":     "cut off at byte",
		"nothing": "without the file in which xtrabackup says",
		"failed":  "could not be copied",
		"late":    "position in the binary log",
		"version": "the server is MySQL 9.7",
	} {
		t.Run(lie, func(t *testing.T) {
			m := &memoryFiles{}
			_, err := newEngine(t, standInOptions(t, s, lie)).Copy(t.Context(), m)
			require.ErrorContains(t, err, want)
			for name, stream := range m.streams {
				require.False(t, stream.closed && strings.HasPrefix(name, "tree/"), "the archive was ended")
			}
			require.NotContains(t, err.Error(), s.Password)
		})
	}
	// A stream that lacks something, and says nothing of it.
	m := copied(t, standInOptions(t, s, ""))
	for file, want := range map[string]string{
		"d/t.ibd": "1 files of tables have not come: d/t.ibd", "mysql.ibd": "have not come: mysql.ibd", "mysql/general_log.CSV": "have not come: mysql/general_log.CSV",
		"xtrabackup_logfile": "no file xtrabackup_logfile", "xtrabackup_info": "in which xtrabackup says", "xtrabackup_checkpoints": "in which xtrabackup says",
		// Or, where the server's log has moved on since: the files are not those of the server.
		"xtrabackup_binlog_info": "(where in its binary log|are not those of)",
	} {
		o := standInOptions(t, s, "")
		programs := o.Programs
		o.Programs = programsFunc(func(ctx context.Context, p Program) error {
			if p.ByFile {
				_, err := p.Stdout.Write(withoutFile(t, m.raw.Bytes(), file))
				_, _ = io.WriteString(p.Stderr, completed)
				return err
			}
			return programs.Run(ctx, p)
		})
		_, err := newEngine(t, o).Copy(t.Context(), &memoryFiles{})
		require.Error(t, err, file)
		require.Regexp(t, want, err.Error(), file)
	}
	t.Run("the files of another server", func(t *testing.T) {
		other := cloning.server(t)
		other.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (a INT)")
		o := standInOptions(t, other, "")
		programs := o.Programs
		o.Programs = programsFunc(func(ctx context.Context, p Program) error {
			if !p.ByFile {
				return programs.Run(ctx, p)
			}
			_, err := p.Stdout.Write(m.raw.Bytes())
			_, _ = io.WriteString(p.Stderr, completed)
			return err
		})
		_, err := newEngine(t, o).Copy(t.Context(), &memoryFiles{})
		require.ErrorContains(t, err, "the files are not those of the server")
	})
}

// withoutFile is a stream without one of its files.
func withoutFile(t testing.TB, stream []byte, name string) []byte {
	t.Helper()
	var kept []byte
	for len(stream) > 0 {
		next := bytes.Index(stream[1:], []byte("XBSTCK01\x00"))
		chunk := stream
		if next >= 0 {
			chunk = stream[:next+1]
		}
		stream = stream[len(chunk):]
		if !bytes.HasPrefix(chunk[14:], []byte(name)) {
			kept = append(kept, chunk...)
		}
	}
	return kept
}

// What keeps a copy from beginning is said with its remedy.
func TestXtrabackupRefused(t *testing.T) {
	t.Parallel()
	away := t.TempDir()
	s := cloning.server(t, "innodb_directories="+away)
	s.Exec(t, "CREATE USER poor@'%' IDENTIFIED BY 'x'", "GRANT RELOAD, PROCESS, SHOW VIEW, LOCK TABLES, REPLICATION CLIENT ON *.* TO poor@'%'")
	for name, c := range map[string]struct {
		change func(o *Options)
		want   string
		is     error
	}{
		"no program":     {func(o *Options) { o.Programs = Local{Dir: t.TempDir()} }, "--copy-container", os.ErrNotExist},
		"privilege":      {func(o *Options) { o.User, o.Password = "poor", "x" }, "GRANT BACKUP_ADMIN ON *.* TO", dbdump.ErrPrivilege},
		"wrong password": {func(o *Options) { o.Password = "wrong" }, "Access denied", dbdump.ErrAccess},
		"wrong password of the program": {func(o *Options) {
			genuine := o.Programs
			o.Programs = programsFunc(func(ctx context.Context, p Program) error { p.Password = "wrong"; return genuine.Run(ctx, p) })
		}, "using password: YES", nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := standInOptions(t, s, "")
			c.change(&o)
			_, err := newEngine(t, o).Copy(t.Context(), &memoryFiles{})
			require.ErrorContains(t, err, c.want)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
	s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.away (a INT) DATA DIRECTORY='"+away+"'")
	_, err := newEngine(t, standInOptions(t, s, "")).Copy(t.Context(), &memoryFiles{})
	require.ErrorContains(t, err, "lie outside of the data directory ("+away+"/d/away.ibd)")
}

// withKeyring starts a stopped server again with a keyring: the manifest that says so lies beside the program, which is
// asked under another name, and the keyring's configuration beside the plugins, whose folder is another one, too.
func withKeyring(t testing.TB, s *servers.MySQL, dir string) {
	t.Helper()
	wrapper, err := os.ReadFile(servers.Tool(t, "mysqld"))
	require.NoError(t, err)
	program := filepath.Join(dir, "mysqld")
	script := strings.Replace(string(wrapper), "--argv0 'mysqld'", "--argv0 '"+program+"'", 1)
	require.NotEqual(t, string(wrapper), script)
	for name, text := range map[string]string{
		program:                             script,
		program + ".my":                     `{"components": "file://component_keyring_file"}`,
		dir + "/component_keyring_file.cnf": `{"path": "` + dir + `/keyring", "read_only": false}`,
	} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o700)) //nolint:gosec // one is a program
	}
	cmd := exec.CommandContext(t.Context(), program, "--defaults-file="+filepath.Join(filepath.Dir(s.DataDir), "my.cnf"))
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	db := s.DB(t)
	require.Eventually(t, func() bool { return db.PingContext(t.Context()) == nil }, 2*time.Minute, 100*time.Millisecond)
}

// A server that encrypts anything is refused before it is copied.
func TestXtrabackupOfAnEncryptedServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plugins := filepath.Join(filepath.Dir(filepath.Dir(servers.Tool(t, "mysqld"))), "usr/lib/mysql/plugin")
	for _, name := range []string{"mysql_clone.so", "component_keyring_file.so"} {
		require.NoError(t, os.Symlink(filepath.Join(plugins, name), filepath.Join(dir, name)))
	}
	s := cloning.server(t, "plugin_dir="+dir)
	s.Stop(t)
	withKeyring(t, s, dir)
	s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.plain (a INT)")
	copied(t, standInOptions(t, s, ""))
	s.Exec(t, "CREATE TABLE d.secret (a INT) ENCRYPTION='Y'")
	_, err := newEngine(t, standInOptions(t, s, "")).Copy(t.Context(), &memoryFiles{})
	require.ErrorContains(t, err, "the server encrypts its files (tablespace d/secret)")
	s.Exec(t, "DROP TABLE d.secret", "SET GLOBAL innodb_redo_log_encrypt=ON")
	_, err = newEngine(t, standInOptions(t, s, "")).Copy(t.Context(), &memoryFiles{})
	require.ErrorContains(t, err, "innodb_redo_log_encrypt=ON")
}
