package docs

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli/clitest"
	"keepset/internal/statefulset/exectest"
	"keepset/test/programs"
)

// slapcat and slapadd stand in for the directory server's programs: database N
// is the file N of a folder.
const (
	slapcat = "#!/bin/sh\ncat \"$LDAP/$2\"\n"
	slapadd = "#!/bin/sh\n[ ! -s \"$LDAP/$2\" ] || exit 1\ncat >\"$LDAP/$2\"\n"
)

// commandWorld is what docs/commands-engine.md takes for granted: a cluster whose
// containers are this machine, with the programs of each product.
type commandWorld struct {
	t      *testing.T
	dir    string
	env    []string
	server exectest.Server
	here   exectest.Here
}

func newCommandWorld(t *testing.T) *commandWorld {
	t.Helper()
	bin, err := programs.Build()
	require.NoError(t, err)
	w := &commandWorld{t: t, dir: t.TempDir()}
	w.file("bin/slapcat", slapcat)
	w.file("bin/slapadd", slapadd)
	standins, err := programs.StandIns()
	require.NoError(t, err)
	w.link(standins, "tt/home/oracle/instances/instance1/bin/ttenv")
	for _, name := range []string{"aexport", "iloader", "isql", "server", "aku"} {
		w.link(standins, "altibase-bin/"+name)
	}
	database := "tt/home/oracle/instances/instance1/database/"
	w.file(database+"data", strings.Repeat("timesten\n", 100)+"end\n")
	w.file(database+"state", "ACTIVE\n")
	w.file(database+"backups", "< 0, <NULL>, <NULL>, <NULL>, <NULL>, <NULL>, <NULL>, 0, <NULL> >\n")
	w.file("altibase_home_altibase-0/conf/aexport.properties", "OPERATION=OUT\nEXECUTE=OFF\nTWO_PHASE_SCRIPT=OFF\n")
	w.file("set_altibase.env", "export ALTIBASE_HOME="+w.dir+"/altibase_home_altibase-0\n")
	for _, n := range []string{"1", "2"} {
		w.file("ldap/"+n, strings.Repeat("dn: cn="+n+"\n\n", 50))
	}
	cluster := clitest.NewCluster(t)
	cluster.Run(&w.server)
	w.env = []string{
		"PATH=" + w.dir + "/bin:" + bin + ":" + w.dir + "/altibase-bin:/usr/bin:/bin", "HOME=" + w.dir, "LDAP=" + w.dir + "/ldap",
		"ALTIBASE_SYS_PASSWORD=manager", "KEEPSET_KUBECONFIG=" + cluster.Kubeconfig,
	}
	w.follow(`export ALTIBASE_HOME=$HOME/altibase_home_altibase-0
		server create utf8 utf8
		printf 'STARTUP CONTROL;\nALTER DATABASE ARCHIVELOG;\nSTARTUP SERVICE;\nCREATE TABLE ORDERS (ID INTEGER);\n' | isql -u sys -p manager -sysdba`)
	w.here.Env, w.server.Run = w.env, w.run
	t.Cleanup(w.here.Wait)
	return w
}

func (w *commandWorld) file(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(w.t, os.WriteFile(path, []byte(text), 0o755))
}

func (w *commandWorld) link(program, name string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(w.t, os.Symlink(program, path))
}

// run is the container: what is fixed in images lies in the test's folder.
func (w *commandWorld) run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) int {
	places := strings.NewReplacer(w.dir+"/tt/home", w.dir+"/tt/home", "/tt/home", w.dir+"/tt/home", "/CONFIGMAP/set_altibase.env", w.dir+"/set_altibase.env")
	here := make([]string, len(argv))
	for i, a := range argv {
		here[i] = places.Replace(a)
		if a == "/ALTIBASE" {
			here[i] = w.dir
		}
	}
	return w.here.Run(ctx, here, stdin, stdout, stderr)
}

// follow runs code with the page's names replaced by those of the test's set.
func (w *commandWorld) follow(code string) string {
	w.t.Helper()
	code = strings.NewReplacer(
		"file:///srv/", "file://"+w.dir+"/", "ldap/openldap", "mysql/mysql", "pod/openldap-0", "pod/mysql-0", "--container openldap", "--container mysql",
		"ldap/sample", "mysql/mysql --timesten-dsn sample", "pod/sample-0", "pod/mysql-0", "--container tt", "--container mysql",
		"ldap/altibase", "mysql/mysql", "pod/altibase-0", "pod/mysql-0", "--container altibase", "--container mysql",
	).Replace(code)
	cmd := exec.CommandContext(w.t.Context(), "bash", "-c", "set -euo pipefail\n"+code)
	cmd.Dir, cmd.Env = w.dir, append([]string{"KEEPSET_REPOSITORY=file://" + w.dir + "/backups"}, w.env...)
	out, err := cmd.CombinedOutput()
	require.NoError(w.t, err, "%s", out)
	return string(out)
}

// empty takes a database of the directory server away, and returns what it held.
func (w *commandWorld) empty(name string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, "ldap", name)
	content, err := os.ReadFile(path)
	require.NoError(w.t, err)
	require.NoError(w.t, os.Remove(path))
	return string(content)
}

func (w *commandWorld) holds(name, want string) {
	w.t.Helper()
	content, err := os.ReadFile(filepath.Join(w.dir, "ldap", name))
	require.NoError(w.t, err)
	require.Equal(w.t, want, string(content))
}

// TestCommandsEnginePage does what docs/commands-engine.md says, in its order.
func TestCommandsEnginePage(t *testing.T) {
	w := newCommandWorld(t)
	page := read(t, "docs/commands-engine.md")
	w.follow(page.In("sh", "In a cluster", "What proves the end"))

	first := w.empty("1")
	said := w.follow(page.In("sh", "Restore"))
	w.holds("1", first)
	assert.Contains(t, said, "would load")
	assert.Contains(t, said, first, "what is exported")

	second := w.empty("2")
	w.file("ldap/2", second)
	code := page.In("sh", "On a machine")
	backup, load, found := strings.Cut(code, "restore load")
	require.True(t, found)
	w.follow(backup)
	w.empty("2")
	w.follow("restore load" + load)
	w.holds("2", second)

	assert.Contains(t, w.follow(page.In("sh", "TimesTen")), "complete")
	assert.Contains(t, w.follow(page.In("sh", "Altibase")), "complete")
	followed := []string{"In a cluster", "What proves the end", "Restore", "On a machine", "TimesTen", "Altibase"}
	for _, k := range page.Blocks {
		require.Contains(t, followed, k.Heading, "line %d is not followed", k.Line)
	}
}
