package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/test/programs"
	"keepset/test/servers"
)

func TestMain(m *testing.M) { os.Exit(programs.Main(m)) }

// plain runs the product's programs against servers of this machine.
type plain struct {
	t   *testing.T
	dir string
	env []string
}

// result is how a program ended.
type result struct {
	code           int
	stdout, stderr string
}

func newPlain(t *testing.T, env ...string) *plain {
	t.Helper()
	dir, err := programs.Build()
	require.NoError(t, err, "build the programs")
	return &plain{t: t, dir: dir, env: append([]string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}, env...)}
}

// with returns the same with more environment.
func (p *plain) with(env ...string) *plain {
	q := *p
	q.env = append(append([]string{}, p.env...), env...)
	return &q
}

// command prepares "backup run ..." or "restore load ...".
func (p *plain) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(p.dir, args[0]), args[1:]...)
	cmd.Env = p.env
	return cmd
}

// run runs a program to its end.
func (p *plain) run(args ...string) result {
	p.t.Helper()
	var out, errs bytes.Buffer
	cmd := p.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(p.t, err)
	}
	return result{code: cmd.ProcessState.ExitCode(), stdout: out.String(), stderr: errs.String()}
}

// ok runs a program that must succeed and returns its standard output.
func (p *plain) ok(args ...string) string {
	p.t.Helper()
	r := p.run(args...)
	require.Zero(p.t, r.code, "%s\nstdout: %s\nstderr: %s", strings.Join(args, " "), r.stdout, r.stderr)
	return r.stdout
}

// fails runs a program that must end with code and one clear line, which it
// returns.
func (p *plain) fails(code int, args ...string) string {
	p.t.Helper()
	r := p.run(args...)
	require.Equal(p.t, code, r.code, "%s\nstdout: %s\nstderr: %s", strings.Join(args, " "), r.stdout, r.stderr)
	var own []string
	for line := range strings.Lines(r.stderr) {
		if strings.HasPrefix(line, args[0]+": ") {
			own = append(own, strings.TrimSpace(line))
		}
	}
	require.Len(p.t, own, 1, "one line says why: %s", r.stderr)
	require.NotContains(p.t, r.stderr, "panic")
	require.NotContains(p.t, r.stderr, "goroutine ")
	return own[0]
}

// list returns the backups of a set, newest first.
func (p *plain) list(repository, set string) []cli.BackupSummary {
	p.t.Helper()
	var all []cli.BackupSummary
	out := p.ok("backup", "list", "--json", "--repository", repository, "--set", set)
	require.NoError(p.t, json.Unmarshal([]byte(out), &all), out)
	return all
}

// backup takes a backup of servers and returns its report.
func (p *plain) backup(repository string, sources ...*servers.MySQL) job.BackupReport {
	p.t.Helper()
	out := p.with("KEEPSET_SOURCE_PASSWORD=" + sources[0].Password).ok(runArgs(repository, sources...)...)
	var r job.BackupReport
	require.NoError(p.t, json.Unmarshal([]byte(out), &r), out)
	return r
}

func runArgs(repository string, sources ...*servers.MySQL) []string {
	args := []string{"backup", "run", "--json", "--repository", repository, "--set", "shop"}
	for _, s := range sources {
		args = append(args, "--source", "mysql://"+s.User+"@"+s.Addr)
	}
	return args
}

// shop fills a server with a small database.
func shop(t *testing.T, s *servers.MySQL, rows int) {
	t.Helper()
	s.Exec(t,
		"CREATE DATABASE shop CHARACTER SET utf8mb4",
		"CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, customer VARCHAR(40), amount DECIMAL(10,2), note TEXT, KEY (customer))",
		"CREATE TABLE shop.empty (id INT PRIMARY KEY)",
		"CREATE VIEW shop.big AS SELECT * FROM shop.orders WHERE amount > 500",
	)
	addOrders(t, s, rows)
}

// addOrders appends rows whose bytes do not compress to nothing.
func addOrders(t *testing.T, s *servers.MySQL, rows int) {
	t.Helper()
	const batch = 1000
	for done := 0; done < rows; done += batch {
		var b strings.Builder
		b.WriteString("INSERT INTO shop.orders (customer, amount, note) VALUES ")
		for i := range min(batch, rows-done) {
			if i > 0 {
				b.WriteByte(',')
			}
			n := done + i
			fmt.Fprintf(&b, "('customer %d', %d.25, '%x%x')", n%997, n%1000, sha256.Sum256([]byte(strconv.Itoa(n))), sha256.Sum256([]byte(strconv.Itoa(-n))))
		}
		s.Exec(t, b.String())
	}
}
