package e2e

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/cli"
)

// In a namespace that denies all traffic, with pod security restricted, what
// deploy/cronjob ships is enough for a backup and for a seed that follows its
// primary; it lets nobody else in; and what it left out would be named.
func TestDefaultDenyNetwork(t *testing.T) {
	t.Parallel()
	outside := bareShop(t) // the store's namespace, without any policy
	outside.startS3()
	s := outside.beside("pod-security.kubernetes.io/enforce=restricted")
	s.install(shopOptions{replicas: 2, patches: []string{`
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-backup}
data: {KEEPSET_STORE_TIMEOUT: 12s}
`}})
	s.keepset("backup", "init", "--repository", s.repository)
	s.waitReady(2)
	store := strings.TrimPrefix(s.endpoint, "http://")
	database := net.JoinHostPort(s.pod("mysql-0").Status.PodIP, "3306")

	// Without policies anybody gets anywhere; with them nobody does. A cluster that
	// only stores them fails here.
	outside.startStranger()
	s.startStranger()
	require.True(t, outside.reaches(database), "from another namespace")
	require.True(t, s.reaches(database), "from the same namespace")
	require.True(t, s.reaches(store))
	s.apply(readFile(t, "testdata/networkpolicies.yaml"))
	s.until(30*time.Second, "the database is closed to other namespaces", func() bool { return !outside.reaches(database) })
	require.False(t, s.reaches(database), "in the same namespace, without Keepset's labels")
	require.False(t, s.reaches(store), "nothing leaves the namespace that no policy lets out")
	require.True(t, outside.reaches(store), "what denies is the policies")

	s.replicate(2)
	s.jobOK("keepset-backup", "first")
	taken := s.backups()[0]
	require.Equal(t, "complete", taken.Status, taken.Problems)
	require.Equal(t, 2, taken.Committed)

	s.order("since the backup", 100)
	guard := s.guard(2)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "3"})
	s.jobFrom("keepset-restore", "grow")
	s.seeding(2)
	seed := net.JoinHostPort(s.pod("mysql-2").Status.PodIP, "3306")
	assert.False(t, outside.reaches(seed), "a seed is the restore's only")
	require.True(t, s.waitJob("grow", 10*time.Minute), s.logs("grow"))
	s.waitReady(3)
	s.caughtUp(2)
	guard.never(t, 1, 2000)
	s.nothingLeft()

	const api = "10.96.0.1:443"
	shipped := s.policy()
	for _, rule := range []struct {
		ports  []int32
		closed string // what cannot be reached then
		says   []string
	}{
		{[]int32{3306}, database, []string{database, "server unreachable", "check the address, and the network policies of both ends"}},
		{[]int32{7070}, store, []string{store, "check the store's address and the network policies"}},
		{[]int32{443, 6443}, api, []string{api, "the API server did not answer: check the network policies"}},
	} {
		s.closePorts(shipped, rule.ports...)
		code, message := s.backupCutOff(rule.closed)
		assert.Equal(t, cli.ExitFailed, code, message)
		for _, words := range rule.says {
			assert.Contains(t, message, words)
		}
		t.Logf("without %v: %s", rule.ports, message)
	}
	s.closePorts(shipped)
	s.jobOK("keepset-backup", "again")
}

// startStranger starts the pod that belongs to nobody.
func (s *shopSet) startStranger() {
	s.t.Helper()
	s.apply(readFile(s.t, "testdata/stranger.yaml"))
	s.until(time.Minute, "the stranger runs", func() bool { p := s.pod("stranger"); return p != nil && podReady(p) })
}

// reaches tells whether the stranger gets a connection.
func (s *shopSet) reaches(address string) bool {
	_, err := s.try(append([]string{"exec", "stranger", "--"}, connect(address)...)...)
	return err == nil
}

// connect is a command that succeeds if a connection to the address is made within a few seconds.
func connect(address string) []string {
	host, port, _ := net.SplitHostPort(address)
	return []string{"timeout", "3", "bash", "-c", ": < /dev/tcp/" + host + "/" + port}
}

// policy is the shipped NetworkPolicy of backups and restores.
func (s *shopSet) policy() *networkingv1.NetworkPolicy {
	s.t.Helper()
	policy, err := s.kube.NetworkingV1().NetworkPolicies(s.ns).Get(s.t.Context(), "keepset", metav1.GetOptions{})
	require.NoError(s.t, err)
	return policy
}

// closePorts makes the policy what was shipped, without some of its ports.
func (s *shopSet) closePorts(shipped *networkingv1.NetworkPolicy, ports ...int32) {
	s.t.Helper()
	policy := s.policy()
	policy.Spec = *shipped.Spec.DeepCopy()
	rule := &policy.Spec.Egress[0]
	rule.Ports = slices.DeleteFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool { return slices.Contains(ports, p.Port.IntVal) })
	_, err := s.kube.NetworkingV1().NetworkPolicies(s.ns).Update(s.t.Context(), policy, metav1.UpdateOptions{})
	require.NoError(s.t, err)
}

// backupCutOff runs a backup that cannot reach an address, and returns how its
// pod ended and what it left as its message. A network plugin knows a pod a
// moment after its start: the backup waits until the address is closed to it.
func (s *shopSet) backupCutOff(address string) (code int, message string) {
	s.t.Helper()
	const name = "cut-off"
	text := s.kubectl("create", "job", name, "--from=cronjob/keepset-backup", "--dry-run=client", "-o", "json")
	var job batchv1.Job
	require.NoError(s.t, json.Unmarshal([]byte(text), &job))
	no, none := false, int32(0)
	job.Spec.BackoffLimit = &none
	job.Spec.Template.Spec.InitContainers = []corev1.Container{{
		Name: "closed", Image: "keepset-test/mariadb:10.11", ImagePullPolicy: corev1.PullNever,
		Command:         []string{"bash", "-c", "while " + strings.Join(quoted(connect(address)), " ") + "; do sleep 0.2; done"},
		SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
	}}
	_, err := s.kube.BatchV1().Jobs(s.ns).Create(s.t.Context(), &job, metav1.CreateOptions{})
	require.NoError(s.t, err)
	require.False(s.t, s.waitJob(name, 5*time.Minute), s.logs(name))
	ended, message, _ := s.ended(name)
	s.kubectl("delete", "job", name)
	return int(ended), message
}

// quoted are words as a shell reads them.
func quoted(words []string) []string {
	var out []string
	for _, w := range words {
		out = append(out, "'"+w+"'")
	}
	return out
}
