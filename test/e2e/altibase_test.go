package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const altibasePage = "../../docs/altibase-kubernetes.md"

// The set of Altibase's guide for aku, of stand-ins, with the overlay altibase as
// it is shipped but every minute, by the commands of docs/altibase-kubernetes.md:
// what one pod writes the others have, a pod that is scaled away and comes back has
// what it missed, as in the guide; pod 0 is exported on schedule; an export that
// lies is none; rows are deleted everywhere; pod 0 is restored, and aku fills the rest.
func TestAltibase(t *testing.T) {
	t.Parallel()
	s := newAltibaseSet(t)
	s.sql(3, "INSERT INTO T1 VALUES (1, 1)")
	require.Contains(t, s.by("isql -s altibase-sts-2.altibase-svc -u sys -p manager", 3, "SELECT * FROM T1"), "1           1")
	page := s.shippedReader(everyMinute, "altibase")
	page.follow(altibasePage, "Install")

	s.kubectl("scale", "statefulset", "altibase-sts", "--replicas=3")
	s.kubectl("wait", "--for=delete", "pod/altibase-sts-3", "--timeout=2m")
	require.Regexp(t, `AKU_REP_02 +1591138\nAKU_REP_12 +1591138\nAKU_REP_23 +-1\n`, s.sql(2, "SELECT REPLICATION_NAME, XSN FROM SYSTEM_.SYS_REPLICATIONS_"))
	s.sql(0, "INSERT INTO T1 VALUES (2, 2)")
	s.kubectl("scale", "statefulset", "altibase-sts", "--replicas=4")
	s.kubectl("rollout", "status", "statefulset", "altibase-sts", "--timeout=3m")
	before := s.contents(0)
	require.Contains(t, before, "2           2")
	require.Equal(t, before, s.contents(3))

	s.scheduledBackup(time.Now())
	page.follow(altibasePage, "Suspend")
	s.idle()
	s.shell(0, "echo false-zero >$ALTIBASE_HOME/conf/lie")
	assert.Contains(t, s.failing("lie"), "iloader printed an error")
	s.shell(0, "rm $ALTIBASE_HOME/conf/lie")

	s.sql(1, "DELETE FROM T1")
	require.NotEqual(t, before, s.contents(3), "the mistake is replicated")
	said := page.follow(altibasePage, "Restore")
	assert.Contains(t, said, "STARTUP Process SUCCESS")
	for pod := range 4 {
		require.Equal(t, before, s.contents(pod), "pod %d", pod)
	}
	s.sql(0, "INSERT INTO T2 VALUES (8, 8)")
	require.Contains(t, s.sql(3, "SELECT * FROM T2"), "8           8", "pod 0 replicates again")
	require.Empty(t, s.shell(0, "ls -d /ALTIBASE/keepset-* 2>/dev/null || :"), "archives are left in the container")
	page.follow(altibasePage, "Go on")
}

// The same set with the overlay altibase-physical, by the commands of the page's later
// half: archivelog mode; pod 0 backed up on schedule while aku runs; a backup that lies
// is none; rows are deleted everywhere, which is in the archived logs; pod 0 is
// restored, aku fills the rest, and the next backup is one.
func TestAltibasePhysical(t *testing.T) {
	t.Parallel()
	s := newAltibaseSet(t)
	s.sql(3, "INSERT INTO T1 VALUES (1, 1)")
	page := s.shippedReader(everyMinute, "altibase-physical")
	said := page.follow(altibasePage, "Archivelog mode")
	assert.Contains(t, said, "STARTUP Process SUCCESS")
	page.follow(altibasePage, "Install physical backups")
	s.sql(2, "INSERT INTO T2 VALUES (2, 2)")
	before := s.contents(0)
	require.Contains(t, before, "2           2")

	s.scheduledBackup(time.Now())
	page.follow(altibasePage, "Suspend")
	s.idle()
	s.shell(0, "echo backup-short >$ALTIBASE_HOME/conf/lie")
	assert.Contains(t, s.failing("lie"), "there is no system001.dbf")
	s.shell(0, "rm $ALTIBASE_HOME/conf/lie")

	s.sql(1, "DELETE FROM T1")
	s.sql(1, "DELETE FROM T2")
	require.NotEqual(t, before, s.contents(0), "the mistake is replicated")
	s.by("isql -u sys -p manager -sysdba -silent", 0, "ALTER SYSTEM SWITCH LOGFILE")
	page.follow(altibasePage, "Restore a physical backup")
	for pod := range 4 {
		require.Equal(t, before, s.contents(pod), "pod %d", pod)
	}
	s.sql(0, "INSERT INTO T3 VALUES (8, 8)")
	require.Contains(t, s.sql(3, "SELECT * FROM T3"), "8           8", "pod 0 replicates again")
	require.Empty(t, s.shell(0, "ls -d /ALTIBASE/keepset-* $ALTIBASE_HOME/keepset-* 2>/dev/null || :"), "archives are left in the container")
	page.follow(altibasePage, "Go on after a physical restore")
	require.Empty(t, s.shell(0, "ls -d $ALTIBASE_HOME/*.old 2>/dev/null || :"))
}

// altibaseSet is a set of stand-ins in a namespace of its own.
type altibaseSet struct{ *shopSet }

type altibaseVolume struct{ Name, Claim, Path string }

func newAltibaseSet(t *testing.T) *altibaseSet {
	t.Helper()
	s := &altibaseSet{bareShop(t)}
	dir := t.TempDir()
	volumes := []altibaseVolume{{Name: "keepset-repository", Claim: "keepset-repository", Path: filepath.Join(dir, "backups")}}
	for i, letter := range []string{"a", "b", "c", "d"} {
		volumes = append(volumes, altibaseVolume{Name: "altibase-pv-" + letter, Claim: fmt.Sprintf("altibase-pv-altibase-sts-%d", i), Path: filepath.Join(dir, "shared")})
	}
	for _, v := range volumes {
		require.NoError(t, os.MkdirAll(v.Path, 0o755))
	}
	require.NoError(t, os.Chown(volumes[0].Path, 65532, 65532))
	t.Cleanup(func() { s.removeVolumes(volumes) })
	s.apply(render(t, "testdata/altibase.yaml", map[string]any{"Namespace": s.ns, "Volumes": volumes}))
	for pod := range 4 {
		s.setUp(pod)
	}
	s.kubectl("rollout", "status", "statefulset", "altibase-sts", "--timeout=3m")
	return s
}

// removeVolumes takes away what the namespace does not take with it. Nothing may
// write any more when the test's directory goes, which is next.
func (s *altibaseSet) removeVolumes(volumes []altibaseVolume) {
	for _, what := range [][]string{{"cronjobs,jobs,statefulsets", "--all", "--cascade=foreground"}, {"pods", "--all"}} {
		if out, err := s.try(append([]string{"delete", "--timeout=2m"}, what...)...); err != nil {
			s.t.Errorf("delete %s: %v: %s", what[0], err, out)
		}
	}
	for _, v := range volumes {
		if out, err := s.try("delete", "pv", v.Name+"-"+s.ns, "--wait=false", "--ignore-not-found"); err != nil {
			s.t.Errorf("delete volume: %v: %s", err, out)
		}
	}
}

// setUp does in a pod what the guide has a user do.
func (s *altibaseSet) setUp(pod int) {
	s.t.Helper()
	s.until(2*time.Minute, fmt.Sprintf("pod %d waits to be set up", pod), func() bool {
		p := s.pod(fmt.Sprintf("altibase-sts-%d", pod))
		return p != nil && p.Status.Phase == "Running"
	})
	out := s.shell(pod, `set -e
		until [ -d $ALTIBASE_HOME ]; do sleep 0.2; done
		mkdir $ALTIBASE_HOME/bin $ALTIBASE_HOME/conf
		ln -s /opt/altibase/bin/* $ALTIBASE_HOME/bin/
		printf 'OPERATION = OUT\nEXECUTE = OFF\nTWO_PHASE_SCRIPT = OFF\n' >$ALTIBASE_HOME/conf/aexport.properties
		printf 'TABLE_NAME=T1\nTABLE_NAME=T2\nTABLE_NAME=T3\n' >$ALTIBASE_HOME/conf/aku.conf
		server create utf8 utf8
		server start
		for t in T1 T2 T3; do echo "CREATE TABLE $t ( I1 INTEGER PRIMARY KEY, I2 INTEGER );"; done | isql -s localhost -u sys -p manager
		aku -p start`)
	require.Contains(s.t, out, "AKU run successfully.")
}

// shell runs a script in a pod, with Altibase's variables.
func (s *altibaseSet) shell(pod int, script string) string {
	s.t.Helper()
	return s.kubectl("exec", fmt.Sprintf("altibase-sts-%d", pod), "--", "bash", "-c", ". /CONFIGMAP/set_altibase.env\n"+script)
}

func (s *altibaseSet) sql(pod int, statement string) string {
	s.t.Helper()
	return s.by("isql -s localhost -u sys -p manager -silent", pod, statement)
}

// by runs a statement by a client in a pod. None may fail.
func (s *altibaseSet) by(client string, pod int, statement string) string {
	s.t.Helper()
	said := s.shell(pod, client+" <<< '"+statement+";'")
	require.NotContains(s.t, said, "[ERR-", statement)
	return said + "\n"
}

// contents are the rows of all tables.
func (s *altibaseSet) contents(pod int) string {
	s.t.Helper()
	var all strings.Builder
	for _, table := range []string{"T1", "T2", "T3"} {
		all.WriteString(s.sql(pod, "SELECT * FROM "+table))
	}
	return all.String()
}
