package clitest_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/internal/cli/clitest"
	"keepset/internal/repository"
	"keepset/internal/statefulset/exectest"
	"keepset/internal/storage/dir"
)

// place is a repository, and a cluster whose containers are this machine.
type place struct {
	t      *testing.T
	root   string
	server exectest.Server
	here   exectest.Here
	env    []string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, root: t.TempDir()}
	store, err := dir.Create(dir.Options{Path: p.root})
	require.NoError(t, err)
	_, err = repository.Init(t.Context(), store, repository.InitOptions{})
	require.NoError(t, err)
	p.here.Env, p.server.Run = os.Environ(), p.here.Run
	cluster := clitest.NewCluster(t)
	cluster.Run(&p.server)
	t.Cleanup(p.here.Wait)
	p.env = []string{"PATH=" + os.Getenv("PATH"), "KEEPSET_REPOSITORY=file://" + p.root, "KEEPSET_SET=mysql/mysql", "KEEPSET_KUBECONFIG=" + cluster.Kubeconfig}
	return p
}

func (p *place) app() *cli.App {
	return &cli.App{
		Name: "test", In: new(bytes.Buffer), Out: new(bytes.Buffer), Err: new(bytes.Buffer),
		Environ: func() []string { return p.env }, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
	}
}

// parse reads arguments, and the place's repository, set and cluster.
func (p *place) parse(fs *pflag.FlagSet, args []string) {
	p.t.Helper()
	for _, kv := range p.env {
		name, value, _ := strings.Cut(kv, "=")
		if flag, ok := strings.CutPrefix(name, "KEEPSET_"); ok {
			args = append([]string{"--" + strings.ToLower(flag) + "=" + value}, args...)
		}
	}
	require.NoError(p.t, fs.Parse(append([]string{"--engine=command"}, args...)))
}

func (p *place) backup(args ...string) error {
	p.t.Helper()
	var f cli.BackupFlags
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.Add(fs)
	p.parse(fs, args)
	b, done, err := f.Job(p.t.Context(), p.app())
	if err != nil {
		return err
	}
	defer done()
	_, err = b.Run(p.t.Context())
	return err
}

func (p *place) load(args ...string) error {
	p.t.Helper()
	var f cli.LoadFlags
	fs := pflag.NewFlagSet("load", pflag.ContinueOnError)
	f.Add(fs)
	p.parse(fs, args)
	l, done, err := f.Job(p.t.Context(), p.app())
	if err != nil {
		return err
	}
	defer done()
	_, err = l.Run(p.t.Context())
	return err
}

// commits counts what the repository calls a backup.
func (p *place) commits() int {
	p.t.Helper()
	found, err := filepath.Glob(p.root + "/sets/*/*/commits/*/*")
	require.NoError(p.t, err)
	return len(found)
}

// rows is a program's output that is cut half-way by the tests.
func rows(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rows")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("row\n", 50000)+"end\n"), 0o600))
	return file
}

// TestCommandInAContainer goes there and back, over either transport.
func TestCommandInAContainer(t *testing.T) {
	file := rows(t)
	for _, spdy := range []bool{false, true} {
		p := newPlace(t)
		p.server.NoWebSocket = spdy
		require.NoError(t, p.backup("--command=cat "+file, `--command-ends-with=end\n\z`))
		require.Equal(t, 1, p.commits())
		out := filepath.Join(t.TempDir(), "out")
		require.NoError(t, p.load("--command=cat >"+out, "--target=pod/mysql-0", "--container=mysql", "--command-check=cmp "+file+" "+out))
		require.FileExists(t, out)
		require.ErrorContains(t, p.load("--command=cat >/dev/null; exit 3", "--target=pod/mysql-0", "--container=mysql"), "exit code 3")
	}
}

// TestSecretsNeedEncryption: Secrets are never stored where whoever may read the
// bucket could read them.
func TestSecretsNeedEncryption(t *testing.T) {
	p := newPlace(t)
	err := p.backup("--command=echo row", "--with-secrets")
	require.ErrorContains(t, err, "the repository is not encrypted")
	require.Equal(t, cli.ExitUsage, cli.ExitCode(err))
	require.Zero(t, p.commits())
	require.NoError(t, p.backup("--command=echo row"))
	require.Equal(t, 1, p.commits())
}

// TestNothingIsCommitted: proof 4. Whatever ends a program or its connection
// half-way, whoever says what of it, there is no backup.
func TestNothingIsCommitted(t *testing.T) {
	file := rows(t)
	half := "head -c 100000 " + file
	for name, c := range map[string]struct {
		args []string
		how  exectest.How
		cut  int64
		want string
	}{
		"cut: dropped":               {[]string{"--command=cat " + file}, exectest.Dropped, 100000, "error stream"},
		"cut: closed":                {[]string{"--command=cat " + file}, exectest.Closed, 100000, "without the (end mark|program's status)"},
		"cut: denied":                {[]string{"--command=cat " + file}, exectest.Denied, 100000, "without the end mark"},
		"cut just before the mark":   {[]string{"--command=cat " + file}, exectest.Denied, 200004, "without the end mark"},
		"non-zero after full output": {[]string{"--command=cat " + file + "; exit 1"}, 0, 0, "exit code 1"},
		"zero after half":            {[]string{"--command=" + half, `--command-ends-with=end\n\z`}, 0, 0, "does not end with"},
		"zero after half, by size":   {[]string{"--command=" + half, "--command-min-bytes=200000"}, 0, 0, "at least 200000"},
		"zero after half, by check":  {[]string{"--command=" + half, "--command-check=exit 1"}, 0, 0, "check command: .*exit code 1"},
		"without the mark": {
			[]string{`--command=["cat","` + file + `"]`, "--command-end-mark=false", `--command-ends-with=end\n\z`}, exectest.Denied, 100000, "does not end with",
		},
	} {
		for _, spdy := range []bool{false, true} {
			p := newPlace(t)
			p.server.NoWebSocket, p.server.How, p.server.CutOutput = spdy, c.how, c.cut
			err := p.backup(c.args...)
			require.Error(t, err, name)
			require.Regexp(t, "mysql-0.*dump|mysql-0.*check", err.Error(), name)
			require.Regexp(t, c.want, err.Error(), name)
			require.Zero(t, p.commits(), name)
		}
	}
}

// TestNothingIsLoaded: a program in a container that takes the end of its
// input for the end of the data does not see the end of a cut connection.
func TestNothingIsLoaded(t *testing.T) {
	file := rows(t)
	for name, how := range map[string]exectest.How{"dropped": exectest.Dropped, "closed": exectest.Closed, "denied": exectest.Denied} {
		p := newPlace(t)
		require.NoError(t, p.backup("--command=cat "+file))
		p.server.How, p.server.CutInput = how, 100000
		committed := filepath.Join(t.TempDir(), "committed")
		require.Error(t, p.load("--command=cat >/dev/null; touch "+committed, "--target=pod/mysql-0", "--container=mysql"), name)
		p.here.Wait()
		require.NoFileExists(t, committed, name)
	}
}

// TestCommandFlags: what cannot be meant is said before anything is run.
func TestCommandFlags(t *testing.T) {
	p := newPlace(t)
	for want, args := range map[string][]string{
		"needs --command":                   {},
		"--command: the command is empty":   {"--command= "},
		"leaves nothing that tells the end": {"--command=x", "--command-end-mark=false"},
		"--command-ends-with":               {"--command=x", "--command-ends-with=("},
		"goes with --method dump":           {"--command=x", "--method=snapshot"},
		"knows no databases":                {"--command=x", "--database=shop"},
		"knows no roles":                    {"--command=x", "--role=follower"},
		"want local or local:NAME":          {"--command=x", "--source=mysql://u@h"},
		"--source local is given twice":     {"--command=x", "--source=local,local"},
		"go with --engine command":          {"--command=x", "--engine=mysql"},
	} {
		err := p.backup(args...)
		require.ErrorContains(t, err, want)
		require.Equal(t, cli.ExitUsage, cli.ExitCode(err), want)
	}
	for want, args := range map[string][]string{
		"--target is required":               {"--command=x"},
		"needs --container":                  {"--command=x", "--target=pod/mysql-0"},
		"give --command-check":               {"--command=x", "--target=pod/mysql-0", "--container=mysql", "--command-end-mark=false"},
		"knows no replication":               {"--command=x", "--target=local", "--as-follower-of=h:1"},
		"hands its command the whole backup": {"--command=x", "--target=local", "--replace"},
		"want local or local:NAME":           {"--command=x", "--target=mysql://u@h"},
	} {
		err := p.load(args...)
		require.ErrorContains(t, err, want)
		require.Equal(t, cli.ExitUsage, cli.ExitCode(err), want)
	}
	require.Zero(t, p.commits())
}

// TestCommandHere: on this machine, several servers, each told which it is;
// the keys of the repository are not theirs to see.
func TestCommandHere(t *testing.T) {
	p := newPlace(t)
	p.env = append(p.env, "DATABASE_PASSWORD=secret")
	require.NoError(t, p.backup("--source=local:db0,local:db1", "--origin=here",
		`--command=test -z "$KEEPSET_REPOSITORY" && echo "$KEEPSET_MEMBER $KEEPSET_ORDINAL $DATABASE_PASSWORD"`))
	require.Equal(t, 2, p.commits())
	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, p.load("--ordinal=1", "--target=local", "--command=cat >"+out))
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "db1 1 secret\n", string(got))
}
