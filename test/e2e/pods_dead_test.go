package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keepset/internal/cli"
)

// deadNode makes a node whose kubelet does not report: a Node in the API and
// nothing behind it. Everything that the real controllers do about such a node
// and its pods they do here. It goes with the test, and takes its pods along.
func (s *shopSet) deadNode() string {
	s.t.Helper()
	name := "dead-" + s.ns
	ctx, nodes := s.t.Context(), s.kube.CoreV1().Nodes()
	_, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	require.NoError(s.t, err)
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		assert.NoError(s.t, nodes.Delete(ctx, name, metav1.DeleteOptions{}))
		// Without a kubelet to report their end, pods go by force only; the
		// namespace's own cleanup follows and leaves nobody to make them anew.
		now := int64(0)
		pods, err := s.kube.CoreV1().Pods(s.ns).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
		assert.NoError(s.t, err)
		for _, p := range pods.Items {
			_ = s.kube.CoreV1().Pods(s.ns).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		}
	})
	_, err = nodes.Patch(ctx, name, types.MergePatchType, []byte(silent), metav1.PatchOptions{}, "status")
	require.NoError(s.t, err)
	return name
}

// silent is the status of a node that has not reported for a while.
const silent = `{"status":{
	"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown","message":"Kubelet stopped posting node status."}],
	"capacity":{"pods":"10","cpu":"2","memory":"4Gi"},"allocatable":{"pods":"10","cpu":"2","memory":"4Gi"}}}`

// place says where the pods that are made from now on belong. Those that are
// there stay.
func (s *shopSet) place(spec string) {
	s.t.Helper()
	s.kubectl("patch", "statefulset", "mysql", "--type=merge", "-p", `{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null},"template":{"spec":`+spec+`}}}`)
}

const (
	anywhere = `{"nodeName":null,"nodeSelector":null,"tolerations":null}`
	nowhere  = `{"nodeName":null,"nodeSelector":{"disk":"gold"},"tolerations":null}`
	// lastReport is what the kubelet of a node said of a pod before it died.
	lastReport = `{"status":{"phase":"Running","podIP":"192.0.2.1","podIPs":[{"ip":"192.0.2.1"}],
		"containerStatuses":[{"name":"mysql","image":"i","imageID":"i","ready":true,"started":true,"restartCount":0,"state":{"running":{}}}]}}`
)

// onNode is place for one node, from which pods are evicted after so many
// seconds without a sign of it.
func onNode(node string, seconds int) string {
	toleration := func(what string) string {
		return fmt.Sprintf(`{"key":"node.kubernetes.io/%s","operator":"Exists","effect":"NoExecute","tolerationSeconds":%d}`, what, seconds)
	}
	return fmt.Sprintf(`{"nodeName":%q,"nodeSelector":null,"tolerations":[%s,%s]}`, node, toleration("unreachable"), toleration("not-ready"))
}

// Pods that are evicted from a dead node, Unknown or silent on one, Pending, and
// missing each fail their own member, and say why; the others are kept. The pod
// that does not go is in the way of a restore until the user says that its node
// is dead.
func TestMembersThatCannotBeReached(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{replicas: 1})
	run := s.host().with("KEEPSET_SOURCE_USER="+backupAccount, "KEEPSET_SOURCE_PASSWORD=backup-secret", "KEEPSET_REPOSITORY="+s.repository)
	backup := []string{"backup", "run", "--set", "mysql", "--connect-timeout", "2s"}
	s.breakMembers(s.deadNode())

	line := run.fails(cli.ExitFailed, append(backup, "--ordinals", "2")...)
	assert.Contains(t, line, "server unreachable", "a pod that looks as if it ran")
	s.kubectl("patch", "pod", "mysql-2", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Unknown","message":"Node is unreachable"}}`)
	line = run.fails(cli.ExitIncomplete, backup...)
	t.Log(line)
	for _, want := range []string{
		"ordinal 1 (mysql-1) failed: pod " + s.ns + "/mysql-1: is terminating since ", " on node dead-" + s.ns + ", which does not answer",
		"ordinal 2 (mysql-2) failed: pod " + s.ns + "/mysql-2: is Unknown: Node is unreachable",
		"ordinal 3 (mysql-3) failed: pod " + s.ns + "/mysql-3: is Pending: ", "didn't match Pod's node affinity/selector",
		"ordinal 4 (mysql-4) failed: pod " + s.ns + "/mysql-4: is missing",
	} {
		assert.Contains(t, line, want)
	}
	assert.NotContains(t, line, "ordinal 0")
	taken := s.backups()[0]
	assert.Equal(t, "incomplete", taken.Status)
	assert.Equal(t, [2]int{1, 5}, [2]int{taken.Committed, taken.Planned})
	assert.Contains(t, s.kubectl("describe", "statefulset", "mysql"), "BackupIncomplete")
	run.ok(append(backup, "--ordinals", "0")...)
	require.Equal(t, "complete", s.backups()[0].Status)

	// Two replicas again, the second of which is held by the dead node.
	s.kubectl("scale", "statefulset", "mysql", "--replicas=2")
	s.place(anywhere)
	s.kubectl("delete", "quota", "no-pods")
	s.recoverFromDeadNode()
}

// breakMembers scales to five replicas: the second is evicted from the dead
// node, the third is thought to run there, the fourth finds no node, and the
// fifth is not even made.
func (s *shopSet) breakMembers(dead string) {
	s.t.Helper()
	grow := func(replicas int, spec string) {
		s.place(spec)
		s.kubectl("scale", "statefulset", "mysql", fmt.Sprintf("--replicas=%d", replicas))
	}
	pod := func(name string) func() bool { return func() bool { return s.pod(name) != nil } }
	grow(2, onNode(dead, 1))
	s.until(time.Minute, "mysql-1 is bound to the dead node", pod("mysql-1"))
	s.kubectl("patch", "pod", "mysql-1", "--subresource=status", "--type=merge", "-p", lastReport)
	grow(3, onNode(dead, 3600))
	s.until(time.Minute, "mysql-2 is bound to the dead node", pod("mysql-2"))
	s.kubectl("patch", "pod", "mysql-2", "--subresource=status", "--type=merge", "-p", lastReport)
	grow(4, nowhere)
	s.until(time.Minute, "mysql-3 finds no node", func() bool {
		p := s.pod("mysql-3")
		return p != nil && len(p.Status.Conditions) > 0 && p.Status.Conditions[0].Reason == corev1.PodReasonUnschedulable
	})
	s.kubectl("create", "quota", "no-pods", "--hard=pods=1")
	grow(5, anywhere)
	s.until(time.Minute, "the claim of mysql-4 is there", func() bool { _, err := s.try("get", "pvc", "data-mysql-4"); return err == nil })
	s.until(time.Minute, "mysql-1 is evicted", func() bool { p := s.pod("mysql-1"); return p != nil && p.DeletionTimestamp != nil })
}

// recoverFromDeadNode restores mysql-1, without and with --force-pod.
func (s *shopSet) recoverFromDeadNode() {
	s.t.Helper()
	stuck := s.pod("mysql-1")
	restore := s.host().with("KEEPSET_TARGET_USER=root", "KEEPSET_TARGET_PASSWORD="+rootPassword, "KEEPSET_REPOSITORY="+s.repository,
		"KEEPSET_REPLICATION_USER="+replAccount, "KEEPSET_REPLICATION_PASSWORD=repl-secret")
	args := []string{"restore", "run", "--set", "mysql", "--ordinal", "1", "--replace", "--base", "0"}
	line := restore.fails(cli.ExitFailed, append(args, "--local", "--seed-timeout", "3s", "--as-follower-of", s.pod("mysql-0").Status.PodIP+":3306")...)
	s.t.Log(line)
	assert.Contains(s.t, line, "pod "+s.ns+"/mysql-1 on node dead-"+s.ns+" does not go")
	assert.Contains(s.t, line, "--force-pod")
	require.Equal(s.t, stuck.UID, s.pod("mysql-1").UID, "it is still there, since nobody said that its node is dead")
	assert.Contains(s.t, s.keepset("restore", "status", "--set", "mysql"), "claim data-mysql-1, ordinal 1, held: true")

	guard := s.guard(1)
	s.order("while it is away", 500)
	restore.ok(append(args, "--force-pod")...)
	s.waitReady(2)
	s.caughtUp(1)
	require.NotEqual(s.t, stuck.UID, s.pod("mysql-1").UID)
	guard.never(s.t, 1, 2000)
	s.nothingLeft()
}
