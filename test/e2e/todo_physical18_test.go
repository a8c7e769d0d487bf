package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// spaceOf is where the primary has its tablespace, and moved where a standby has it.
const (
	spaceOf = "/var/lib/postgresql/ts1"
	movedTo = "/var/lib/postgresql/moved/ts1"
)

// newTodo18Set is the set of the document on PostgreSQL 18: the claim is mounted
// where its image keeps a directory for each version, nothing says PGDATA, and beside
// the data directory there is one for a tablespace.
func newTodo18Set(t *testing.T) *todoSet {
	t.Helper()
	objects := readFile(t, "testdata/todo.yaml")
	for was, now := range map[string]string{
		"image: keepset-test/postgres:15":                                            "image: keepset-test/postgres:18",
		"mountPath: /var/lib/postgresql/data":                                        "mountPath: /var/lib/postgresql",
		"          envFrom: [{configMapRef: {name: todo-db-env}}]\n          env:\n": "          env:\n            - {name: PRIMARY, value: todo-db-0}\n            - {name: PRIMARY_HOST, value: todo-db-0.todo-db}\n",
		"    set -e\n    if [":                                                       "    set -e\n    mkdir -p /var/lib/postgresql/18 # pg_basebackup would make it root's alone\n    install -d -o postgres -g postgres -m 0700 " + spaceOf + "\n    if [",
	} {
		require.Contains(t, objects, was)
		objects = strings.ReplaceAll(objects, was, now)
	}
	return newTodoSetOf(t, objects)
}

// The story of TestTodoDBPhysical on PostgreSQL 18, with a tablespace beside the data
// directory and a slot for each standby, and nothing said of where files are: a slot
// that is not there is found out before anything is touched, a third replica and the
// next one in its place come with the tablespace, there or elsewhere, and a primary
// that comes up on files of its own is not what was restored.
func TestTodoDBPhysical18(t *testing.T) {
	t.Parallel()
	s := newTodo18Set(t)
	s.fill()
	s.exec("postgres", "CREATE TABLESPACE fast LOCATION '"+spaceOf+"'", "GRANT CREATE ON TABLESPACE fast TO todo")
	s.app("CREATE TABLE public.far (id int, v text) TABLESPACE fast")
	s.app("INSERT INTO public.far SELECT g, md5(g::text) FROM generate_series(1, 1000) g")
	page := s.shippedReader("", "postgres-todo-db-physical")
	page.follow(todoPhysicalPage, "Install")
	page.follow(todoPhysicalPage, "Back up")
	then := s.contents()
	s.parameter("KEEPSET_DATA_DIRECTORY", "", "KEEPSET_REPLICATION_SLOT", "todo_{ordinal}")

	s.parameter("KEEPSET_REPLICAS", "3")
	s.refused("early", "pg_create_physical_replication_slot('todo_2', true)")
	require.Nil(t, s.pod("todo-db-2"))
	s.exec("postgres", "SELECT pg_create_physical_replication_slot('todo_2', true)")
	page.follow(todoPhysicalPage, "One standby more")
	s.follows(2)
	s.farIn(2, spaceOf)
	assert.Contains(t, s.logs("more"), "the restored server says that it is what was restored")

	// Its own pod holds the slot until it goes, and the tablespace goes elsewhere.
	s.app("INSERT INTO public.far VALUES (1001, 'after the backup')")
	lost := s.claim("data-todo-db-2")
	s.parameter("KEEPSET_ORDINAL", "2", "KEEPSET_REPLACE", "true", "KEEPSET_AS_FOLLOWER_OF", "todo-db-0.todo-db:5432", "KEEPSET_TABLESPACE", spaceOf+"="+movedTo)
	s.jobOK("keepset-restore", "again")
	require.True(t, s.replaced("data-todo-db-2", lost))
	s.follows(2)
	s.farIn(2, movedTo)

	// Files that the container does not look at: it makes itself a new database.
	s.parameter("KEEPSET_ORDINAL", "0", "KEEPSET_AS_FOLLOWER_OF", "", "KEEPSET_TABLESPACE", "", "KEEPSET_REPLICATION_SLOT", "",
		"KEEPSET_ALLOW_ROLLBACK", "true", "KEEPSET_DATA_DIRECTORY", "/var/lib/postgresql/elsewhere")
	s.refused("astray", "it is another system")
	s.parameter("KEEPSET_ORDINAL", "", "KEEPSET_REPLACE", "", "KEEPSET_ALLOW_ROLLBACK", "", "KEEPSET_DATA_DIRECTORY", "")

	page.follow(todoPhysicalPage, "The primary")
	s.until(3*time.Minute, "the primary is what it was", func() bool {
		got, err := s.read(0)
		return err == nil && assert.ObjectsAreEqual(then, got)
	})
	s.app("INSERT INTO public.far VALUES (1001, 'a new life')")
	for ordinal := range 3 {
		s.farIn(ordinal, spaceOf)
	}
	s.follows(1)
	s.follows(2)
}

// parameter changes the parameters of the next restore, by name and value.
func (s *todoSet) parameter(pairs ...string) {
	s.t.Helper()
	var data []string
	for i := 0; i < len(pairs); i += 2 {
		data = append(data, fmt.Sprintf("%q:%q", pairs[i], pairs[i+1]))
	}
	s.kubectl("patch", "configmap", "keepset-restore", "--type=merge", "-p", `{"data":{`+strings.Join(data, ",")+`}}`)
}

// refused runs a restore that cannot be meant, and says so.
func (s *todoSet) refused(name, says string) {
	s.t.Helper()
	s.jobFrom("keepset-restore", name)
	require.False(s.t, s.waitJob(name, 10*time.Minute), "%s", s.logs(name))
	require.Contains(s.t, s.logs(name), says)
	code, err := s.kube.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + name})
	require.NoError(s.t, err)
	require.Len(s.t, code.Items, 1)
	require.EqualValues(s.t, 64, code.Items[0].Status.ContainerStatuses[0].State.Terminated.ExitCode)
}

// farIn: the ordinal has its tablespace there, and all that the primary has in it.
func (s *todoSet) farIn(ordinal int, where string) {
	s.t.Helper()
	pod := fmt.Sprintf("todo-db-%d", ordinal)
	ask := func(pod, query string) (string, error) { return s.ask(pod, "postgres", todoPassword, "todo", query) }
	const all = "SELECT count(*) || ' ' || md5(string_agg(t::text, ',' ORDER BY id)) FROM public.far t"
	want, err := ask("todo-db-0", all)
	require.NoError(s.t, err)
	s.until(3*time.Minute, pod+" has its tablespace", func() bool {
		got, err := ask(pod, all)
		return err == nil && got == want
	})
	got, err := ask(pod, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'")
	require.NoError(s.t, err)
	require.Equal(s.t, where, got)
}
