package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/statefulset"
)

const todoPhysicalPage = "../../docs/postgres-physical.md"

// The set of the document on PostgreSQL, with base backups, by the commands of
// docs/postgres-physical.md: a third replica is seeded from one and catches up with
// what was written after it, a lost standby comes back the same way, and at last
// all of the set.
func TestTodoDBPhysical(t *testing.T) {
	t.Parallel()
	s := newTodoSet(t)
	s.fill()
	page := s.shippedReader("", "postgres-todo-db-physical")
	page.follow(todoPhysicalPage, "Install")
	assert.Contains(t, page.follow(todoPhysicalPage, "Back up"), "complete")
	then := s.contents()
	s.app("INSERT INTO public.tasks (what) VALUES ('written after the backup')")

	page.follow(todoPhysicalPage, "One standby more")
	s.follows(2)
	lost := s.claim("data-todo-db-1")
	page.follow(todoPhysicalPage, "A standby that was lost")
	require.True(t, s.replaced("data-todo-db-1", lost))
	s.follows(1)
	s.app("INSERT INTO public.tasks (what) VALUES ('and more')")
	s.follows(1)
	s.follows(2)

	// With its primary alive, or a standby behind it, nothing goes back in time.
	s.kubectl("patch", "configmap", "keepset-restore", "--type=merge", "-p", `{"data":{"KEEPSET_ORDINAL":"0","KEEPSET_REPLACE":"true"}}`)
	s.kubectl("create", "job", "rollback", "--from=cronjob/keepset-restore")
	require.False(t, s.waitJob("rollback", 5*time.Minute))
	assert.Contains(t, s.logs("rollback"), "--allow-rollback")
	s.kubectl("patch", "configmap", "keepset-restore", "--type=merge", "-p", `{"data":{"KEEPSET_ORDINAL":"","KEEPSET_REPLACE":""}}`)

	page.follow(todoPhysicalPage, "The primary")
	s.until(3*time.Minute, "the primary is what it was", func() bool {
		got, err := s.read(0)
		return err == nil && assert.ObjectsAreEqual(then, got)
	})
	s.app("INSERT INTO public.tasks (what) VALUES ('a new life')")
	s.follows(1)
	s.follows(2)
}

// follows: the ordinal was seeded, did not clone anything by itself, is a standby,
// and comes to hold what the primary does.
func (s *todoSet) follows(ordinal int) {
	s.t.Helper()
	pod := fmt.Sprintf("todo-db-%d", ordinal)
	want := s.contents()
	s.until(3*time.Minute, pod+" has it all", func() bool {
		got, err := s.read(ordinal)
		return err == nil && assert.ObjectsAreEqual(want, got)
	})
	recovers, err := s.ask(pod, "postgres", todoPassword, "postgres", "SELECT pg_is_in_recovery()")
	require.NoError(s.t, err)
	assert.Equal(s.t, "t", recovers)
	s.until(time.Minute, "the primary knows "+pod, func() bool {
		n, err := s.ask("todo-db-0", "postgres", todoPassword, "postgres", fmt.Sprintf("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND client_addr = '%s'", s.pod(pod).Status.PodIP))
		return err == nil && n == "1"
	})
	claim, err := s.kube.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), "data-"+pod, metav1.GetOptions{})
	require.NoError(s.t, err)
	assert.NotEmpty(s.t, claim.Annotations[statefulset.AnnotationSeeded])
	log := s.kubectl("logs", pod, "-c", "db")
	assert.NotContains(s.t, log, "base backup", "it has cloned its primary")
}
