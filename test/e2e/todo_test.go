package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const todoPage = "../../docs/postgres-kubernetes.md"

// The set of the document on PostgreSQL (testdata/todo.yaml says in what it
// differs), with the overlay postgres-todo-db as it is shipped, by the commands of
// docs/postgres-kubernetes.md: the standby is dumped on schedule, by the programs
// of its own container, to a claim that another pod lists; the backups are
// suspended by the variant; a dropped table comes back, and then all of a primary
// whose claim was lost.
func TestTodoDB(t *testing.T) {
	t.Parallel()
	s := newTodoSet(t)
	s.fill()
	before := s.contents()
	page := s.reader()
	page.follow(todoPage, "Install")
	s.onlyStandby()

	s.scheduledBackup(time.Time{})
	said := page.follow(todoPage, "Look")
	assert.Regexp(t, s.ns+`/todo-db +\S+ +complete +`, said)
	assert.Contains(t, s.kubectl("exec", "sleep", "--", "ls", "-l", "/backup/todo-db"), "config")

	page.follow(todoPage, "Suspend")
	s.idle()
	suspended := time.Now()
	s.exec("todo", "DROP TABLE public.tasks")
	page.follow(todoPage, "One table")
	require.Equal(t, before, s.contents())
	s.replicated(before)

	lost := s.claim("data-todo-db-0")
	s.kubectl("delete", "pvc", "data-todo-db-0", "--wait=false")
	s.kubectl("delete", "pod", "todo-db-0", "--grace-period=0", "--force")
	s.until(2*time.Minute, "todo-db-0 comes up on an empty claim", func() bool { return s.replaced("data-todo-db-0", lost) && ready(s.pod("todo-db-0")) })
	page.follow(todoPage, "Everything")
	require.Equal(t, before, s.contents())
	s.replicated(before)
	// A standby is told of 32 values of a sequence at once, so it may be ahead and is never behind.
	assert.Equal(t, "t", s.app("INSERT INTO public.tasks (what) VALUES ('one more') RETURNING id BETWEEN 1001 AND 1033"), "the role, its password and the table's sequence are there")

	s.until(3*time.Minute, "the clock passes a tick", func() bool {
		return time.Now().After(suspended.Truncate(2 * time.Minute).Add(2*time.Minute + 15*time.Second))
	})
	require.Empty(t, s.scheduled(suspended), "a backup began while they were suspended")
	page.follow(todoPage, "Go on")
	s.scheduledBackup(suspended)
}
