package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const timestenPage = "../../docs/timesten-kubernetes.md"

// The pair of Oracle's example, of stand-ins, with the overlay timesten as it is
// shipped but every minute, by the commands of docs/timesten-kubernetes.md: the
// active pod is lost and the operator fails over, as in the example; the new active
// database is backed up on schedule; a backup that lies is none; all rows are
// deleted, and come back in both pods, without a failover in between.
func TestTimesTen(t *testing.T) {
	t.Parallel()
	s := &timestenSet{bareShop(t)}
	o := startTimestenOperator(s.cluster)
	s.apply(readFile(t, "testdata/timesten.yaml"))
	o.saysNormal(t, "sample-0")
	s.sql("sample-0", "insert into scott.emp values (1, 'kim')")
	page := s.shippedReader(everyMinute, "timesten")
	page.follow(timestenPage, "Install")

	s.holds("sample-1", "< 1, kim >")
	s.kubectl("delete", "pod", "sample-0", "--wait=false")
	s.until(2*time.Minute, "the operator fails over", func() bool { return strings.Contains(strings.Join(o.states(), " "), "ActiveDown StandbyDown") })
	o.saysNormal(t, "sample-1")
	failedOver := time.Now()
	s.sql("sample-1", "insert into scott.emp values (2, 'lee')")
	require.Contains(t, s.sql("sample-0", "insert into scott.emp values (3, 'nobody')"), "16265", "the standby takes no changes")
	s.scheduledBackup(failedOver)
	assert.Regexp(t, `\n1 +sample-1 +complete`, page.follow(timestenPage, "Look"))
	page.follow(timestenPage, "Suspend")
	s.idle()

	s.kubectl("exec", "sample-1", "-c", "tt", "--", "sh", "-c", "echo half-zero >/tt/home/oracle/instances/instance1/database/lie")
	said := s.failing("lie")
	assert.Contains(t, said, "ttBackupStatus says that the backup failed with error TT-611")

	s.sql("sample-1", "delete from scott.emp")
	s.holds("sample-0", "")
	before := len(o.states())
	said = page.follow(timestenPage, "Restore")
	assert.Contains(t, said, "the backup is verified")
	s.holds("sample-0", "< 1, kim >\n< 2, lee >")
	s.holds("sample-1", "< 1, kim >\n< 2, lee >")
	assert.Equal(t, []string{"ManualInterventionRequired", "Reexamine", "Normal"}, o.states()[before:], "nothing was repaired while the database was gone")
	o.saysNormal(t, "sample-0")
	s.sql("sample-0", "insert into scott.emp values (3, 'park')")
	s.holds("sample-1", "< 1, kim >\n< 2, lee >\n< 3, park >")

	s.jobOK("keepset-backup", "after")
	page.follow(timestenPage, "Go on")
}

// timestenSet is a pair of stand-ins in a namespace of its own.
type timestenSet struct{ *shopSet }

// sql runs a statement as the instance's owner, and returns what ttIsql said.
func (s *timestenSet) sql(pod, statement string) string {
	s.t.Helper()
	return s.kubectl("exec", pod, "-c", "tt", "--", "runuser", "-u", "oracle", "--",
		"/tt/home/oracle/instances/instance1/bin/ttenv", "ttIsql", "-v", "1", "-connStr", "DSN=sample;AutoCreate=0", "-e", statement+"; exit;")
}

// holds waits until a pod has these rows.
func (s *timestenSet) holds(pod, want string) {
	s.t.Helper()
	s.until(time.Minute, pod+" has the rows "+want, func() bool { return s.sql(pod, "select * from scott.emp") == want })
}
