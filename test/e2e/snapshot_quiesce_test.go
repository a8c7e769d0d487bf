package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"keepset/internal/cli"
	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/snapshot/ebstest/control"
)

// The writer appends a line under a lock that it shares, and the quiesce command
// takes the lock for itself: it is free again when no process has it open.
const (
	lockedWriter  = `cd /data; touch lock rows; while :; do flock -s lock sh -c "date +%s%N >> rows"; done`
	quiesceByLock = `cd /data; exec 9>lock; flock 9; echo $$ >holder; echo held; exec cat`
)

// quiesced is a simulated set of one whose backups are taken by processes of
// this machine, with the rights of the shipped Roles, and held still by a command.
type quiesced struct {
	*simulation
	plain *plain
	scope control.Scope
}

func newQuiesced(t *testing.T) *quiesced {
	t.Helper()
	s := newVolumeSimulation(t, 1, "Parallel")
	s.kubectl("exec", "db-0", "--", "bash", "-c", "setsid bash -c '"+lockedWriter+"' >/dev/null 2>&1 </dev/null &")
	account := s.allowed("quiesce-"+s.ns, "backup")
	q := &quiesced{simulation: s, scope: control.Scope{AccessKey: account}}
	q.plain = newPlain(t, "KUBECONFIG="+s.kubeconfigOf("keepset-backup"), "KEEPSET_NAMESPACE="+s.ns, "AWS_ENDPOINT_URL_EC2="+ec2URL, "AWS_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID="+account, "AWS_SECRET_ACCESS_KEY=secret", "KEEPSET_REPOSITORY=file://"+t.TempDir()+"/r")
	q.plain.ok("backup", "init")
	q.writes()
	return q
}

// kubeconfigOf writes one with the token of a service account.
func (c *cluster) kubeconfigOf(account string) string {
	c.t.Helper()
	config := c.as(account)
	file := filepath.Join(c.t.TempDir(), account)
	require.NoError(c.t, clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: config.Host, CertificateAuthorityData: config.CAData, CertificateAuthority: config.CAFile}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: config.BearerToken}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u", Namespace: c.ns}},
		CurrentContext: "x",
	}, file))
	return file
}

// rows is how much was written.
func (q *quiesced) rows() int {
	q.t.Helper()
	n, err := strconv.Atoi(q.kubectl("exec", "db-0", "--", "bash", "-c", "wc -l < /data/rows"))
	require.NoError(q.t, err)
	return n
}

// writes waits until the writer has gone on.
func (q *quiesced) writes() {
	q.t.Helper()
	since := q.rows()
	q.until(time.Minute, "the writer goes on", func() bool { return q.rows() > since })
}

func (q *quiesced) args(more ...string) []string {
	return append([]string{
		"backup", "run", "--json", "--set", "db", "--method", "snapshot", "--snapshotter", "ebs", "--quiesce", "command", "--quiesce-command", quiesceByLock,
	}, more...)
}

// start begins a backup and returns once its cut has been made and the reply to
// it is held back, so that the writer is held for as long.
func (q *quiesced) start(more ...string) (cmd *exec.Cmd, said *bytes.Buffer, rule string) {
	q.t.Helper()
	rule, err := q.ec2().Inject(q.t.Context(), control.Rule{Action: "CreateSnapshot", Scope: q.scope, Hold: true})
	require.NoError(q.t, err)
	said = &bytes.Buffer{}
	cmd = q.plain.command(q.args(more...)...)
	cmd.Stdout, cmd.Stderr = &bytes.Buffer{}, said
	require.NoError(q.t, cmd.Start())
	q.until(time.Minute, "the cut is made", func() bool {
		fired, err := q.ec2().Fired(q.t.Context(), rule)
		return err == nil && fired > 0
	})
	return cmd, said, rule
}

// nothingHeld: the writer goes on, nobody has its lock, and so many snapshots are kept.
func (q *quiesced) nothingHeld(snapshots int) {
	q.t.Helper()
	q.writes()
	q.until(time.Minute, "the quiesce command has ended", func() bool {
		_, err := q.try("exec", "db-0", "--", "bash", "-c", "cd /data; flock -s -n lock true") // shared, as the writer has it now and then
		return err == nil
	})
	assert.Len(q.t, q.snapshotsOf(), snapshots)
}

// A command in the pod holds the writer while its volume is cut, with the rights
// that the component exec gives and no others; for no longer than it
// may; and whatever dies, the backup, the command or its shell, nothing stays
// held, and what was not held is no backup.
func TestSnapshotQuiesceByCommand(t *testing.T) {
	t.Parallel()
	q := newQuiesced(t)
	r := q.plain.run(q.args()...)
	require.Equal(t, cli.ExitFailed, r.code, r.stderr)
	assert.Contains(t, r.stderr, "pods/exec", "the right that is missing is named")
	q.nothingHeld(0)
	q.apply(readFile(t, "../../deploy/cronjob/components/exec/exec.yaml"))

	// Held.
	cmd, said, rule := q.start()
	held := q.rows()
	for range 3 {
		require.Equal(t, held, q.rows(), "the writer is held: %s", said)
	}
	require.NoError(t, q.ec2().Remove(t.Context(), rule))
	require.NoError(t, cmd.Wait(), said)
	out, ok := cmd.Stdout.(*bytes.Buffer)
	require.True(t, ok)
	var report job.BackupReport
	require.NoError(t, json.Unmarshal(out.Bytes(), &report), out)
	require.Equal(t, job.StatusComplete, report.Status)
	assert.Equal(t, dbdump.ConsistencyCommand, report.Members[0].Consistency)
	assert.Positive(t, report.Members[0].LockSeconds)
	t.Logf("measured: a command held the writer for %.3f s", report.Members[0].LockSeconds)
	q.nothingHeld(1)

	// For no longer than it may.
	cmd, said, rule = q.start("--quiesce-hold", "2s")
	require.Error(t, cmd.Wait())
	assert.Contains(t, said.String(), "held for 2s")
	require.NoError(t, q.ec2().Remove(t.Context(), rule))
	q.nothingHeld(1)

	// The command is killed.
	cmd, said, rule = q.start()
	q.kubectl("exec", "db-0", "--", "bash", "-c", "kill -9 $(cat /data/holder)")
	require.Error(t, cmd.Wait())
	assert.Contains(t, said.String(), "the quiesce command ended before it was told to")
	require.NoError(t, q.ec2().Remove(t.Context(), rule))
	q.nothingHeld(1)

	// The backup is killed. What it has cut is found by whoever looks.
	cmd, _, rule = q.start()
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	require.Error(t, cmd.Wait())
	q.nothingHeld(2)
	require.NoError(t, q.ec2().Remove(t.Context(), rule))

	// The command fails by itself.
	r = q.plain.run(append(q.args(), "--quiesce-command", "echo the array is on fire >&2; exit 3")...)
	require.Equal(t, cli.ExitFailed, r.code, r.stderr)
	assert.Contains(t, r.stderr, "it said: the array is on fire")
	q.nothingHeld(2)
	backups := q.plain.list(q.plain.repository(), q.ns+"/db")
	complete := 0
	for _, b := range backups {
		if b.Status == "complete" {
			complete++
		}
	}
	assert.Equal(t, 1, complete, "%v", backups)
}

// repository is the one of its environment.
func (p *plain) repository() string {
	p.t.Helper()
	for _, v := range p.env {
		if url, ok := strings.CutPrefix(v, "KEEPSET_REPOSITORY="); ok {
			return url
		}
	}
	require.Fail(p.t, "no repository", "%v", p.env)
	return ""
}
