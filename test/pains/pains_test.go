// Package pains retells, as tests, what users of other backup tools have suffered from: one test for each of the 25
// stories of docs/pains.md, named after it.
//
// A story begins with what was done, goes on with what the tool claimed, and ends with what the user found later. It is
// told here with Keepset in the tool's place, and for a user's means: the programs themselves, run as a shell runs them,
// against real MariaDB and S3 servers and a repository in a directory ([site]). Where it needs Kubernetes, or a clock
// that runs for days, the jobs behind the commands are run on a simulated cluster ([cluster], [cloud]) or on a
// repository in memory ([days]).
//
// The tests say that a story cannot repeat itself. That what they rest on holds at every other point is the
// business of the packages' own tests.
package pains

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/test/programs"
	"keepset/test/servers"
)

// scratch is where this process keeps the shop.
func scratch() string { return filepath.Join(os.TempDir(), "keepset-pains-"+strconv.Itoa(os.Getpid())) }

func TestMain(m *testing.M) {
	code := programs.Main(m)
	closeShop()
	_ = os.RemoveAll(scratch())
	os.Exit(code)
}

// site is where the programs are run: a repository in a directory, and a set of plain servers, named shop.
type site struct {
	t          *testing.T
	repository string // the directory
	sources    []string
	env        []string
}

const setName = "shop"

// newSite makes a repository for backups of the servers, ordinal 0 first.
func newSite(t *testing.T, sources ...string) *site {
	t.Helper()
	s := &site{t: t, repository: filepath.Join(t.TempDir(), "repository"), sources: sources}
	s.set("KEEPSET_REPOSITORY", "file://"+s.repository)
	s.set("KEEPSET_SET", setName)
	for _, side := range []string{"SOURCE", "TARGET", "REPLICATION"} {
		s.set("KEEPSET_"+side+"_PASSWORD", password)
	}
	s.run(0, "backup", "init")
	return s
}

// set sets an environment variable of the programs.
func (s *site) set(name, value string) { s.env = append(s.env, name+"="+value) }

// command is a program that is ready to be started. It ends with this process at the latest.
func (s *site) command(program string, args ...string) *exec.Cmd {
	s.t.Helper()
	bin, err := programs.Build()
	require.NoError(s.t, err)
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(bin, program), args...)
	cmd.Env = append([]string{"HOME=" + s.t.TempDir(), "TMPDIR=" + os.TempDir()}, s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a program, which has to end with that exit code, and returns what it has printed.
func (s *site) run(code int, program string, args ...string) string {
	s.t.Helper()
	out, err := s.command(program, args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		require.Equal(s.t, code, exit.ExitCode(), "%s %v: %s", program, args, out)
	} else {
		require.NoError(s.t, err)
		require.Equal(s.t, code, 0, "%s %v: %s", program, args, out)
	}
	return string(out)
}

// backUp is `backup run` of the site's servers.
func (s *site) backUp(code int, args ...string) string {
	s.t.Helper()
	return s.run(code, "backup", s.runArgs(args...)...)
}

func (s *site) runArgs(args ...string) []string {
	all := []string{"run", "--store-timeout", "5s"}
	for _, address := range s.sources {
		all = append(all, "--source", "mysql://root@"+address)
	}
	return append(all, args...)
}

// load is `restore load` into a server.
func (s *site) load(code int, target *servers.MySQL, args ...string) string {
	s.t.Helper()
	return s.run(code, "restore", append([]string{"load", "--target", "mysql://root@" + target.Addr}, args...)...)
}

// requireNothingToRestore: nobody who asks for the latest backup gets any.
func (s *site) requireNothingToRestore() {
	s.t.Helper()
	require.Contains(s.t, s.run(64, "restore", "load", "--target", "mysql://root@127.0.0.1:1"), "no eligible backup")
}

// listed is what `backup list` says of one backup.
type listed struct{ Backup, Status string }

// list is `backup list`, the newest first.
func (s *site) list() []listed {
	s.t.Helper()
	out, err := s.command("backup", "list", "--json").Output()
	require.NoError(s.t, err)
	var list []listed
	require.NoError(s.t, json.Unmarshal(out, &list), "%s", out)
	return list
}

// statuses are those of all backups, the newest first.
func (s *site) statuses() []string {
	s.t.Helper()
	var all []string
	for _, b := range s.list() {
		all = append(all, b.Status)
	}
	return all
}

// files are the objects of the repository whose keys match.
func (s *site) files(pattern string) []string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.repository, "sets/_", setName, pattern))
	require.NoError(s.t, err)
	return found
}

// stuck starts a backup of a server one of whose tables is locked, and returns once its plan is stored: it has begun,
// and cannot end before release is called.
func (s *site) stuck(server *servers.MySQL) (cmd *exec.Cmd, release func()) {
	s.t.Helper()
	conn, err := server.DB(s.t).Conn(s.t.Context())
	require.NoError(s.t, err)
	_, err = conn.ExecContext(s.t.Context(), "LOCK TABLES shop.orders WRITE")
	require.NoError(s.t, err)
	cmd = s.command("backup", s.runArgs()...)
	require.NoError(s.t, cmd.Start())
	require.Eventually(s.t, func() bool { return len(s.files("backups/*/plan")) == 1 }, time.Minute, 10*time.Millisecond)
	return cmd, func() {
		_, err := conn.ExecContext(s.t.Context(), "UNLOCK TABLES")
		require.NoError(s.t, errors.Join(err, conn.Close()))
	}
}

// row is one of docs/pains.md: number, what Keepset does, and the tests or the word "none".
var row = regexp.MustCompile(`(?m)^\| (\d+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$`)

// TestEveryPain: docs/pains.md has all 25, each with a test of that name, or with a reason that stands at its place
// among the tests as well.
func TestEveryPain(t *testing.T) {
	text, err := os.ReadFile("../../docs/pains.md")
	require.NoError(t, err)
	var source strings.Builder
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		source.Write(content)
	}
	rows := row.FindAllStringSubmatch(string(text), -1)
	require.Len(t, rows, 25)
	for i, r := range rows {
		require.Equal(t, strconv.Itoa(i+1), r[1])
		name := fmt.Sprintf("TestPain%02d", i+1)
		if r[3] == "none" {
			require.Contains(t, r[2], "does not apply")
			require.Contains(t, source.String(), fmt.Sprintf("\n// Pain%02d has no test: ", i+1))
			require.NotContains(t, source.String(), "func "+name)
			continue
		}
		var named []string
		for test := range strings.SplitSeq(r[3], ", ") {
			named = append(named, "\nfunc "+strings.Trim(test, "`")+"(t *testing.T) {\n")
		}
		require.Equal(t, regexp.MustCompile(`\nfunc `+name+`\w+\(t \*testing\.T\) \{\n`).FindAllString(source.String(), -1), named)
	}
}
