package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const todoPassword = "todo-2*2*"

// todoSet is the StatefulSet todo-db in a namespace of its own. What it has of
// shopSet knows Jobs and claims; the set, its servers and its repository are
// others.
type todoSet struct{ *shopSet }

func newTodoSet(t *testing.T) *todoSet {
	t.Helper()
	return newTodoSetOf(t, readFile(t, "testdata/todo.yaml"))
}

func newTodoSetOf(t *testing.T, objects string) *todoSet {
	t.Helper()
	s := &todoSet{bareShop(t)}
	s.apply(objects)
	s.until(5*time.Minute, "the standby follows", func() bool {
		n, err := s.ask("todo-db-0", "postgres", todoPassword, "postgres", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
		return err == nil && n == "1"
	})
	return s
}

// reader follows the page with both overlays.
func (s *todoSet) reader() *reader {
	s.t.Helper()
	return s.shippedReader("", "postgres-todo-db", "postgres-todo-db-suspended")
}

// ask is the first column of the first row that a pod's server answers, as text.
func (s *todoSet) ask(pod, user, password, database, query string) (answer string, err error) {
	p := s.pod(pod)
	if p == nil || p.Status.PodIP == "" {
		return "", fmt.Errorf("pod %s has no address", pod)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s user=%s password=%s dbname=%s", p.Status.PodIP, user, password, database))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }() // what was asked is answered
	rows, err := conn.Query(ctx, query, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	if rows.Next() {
		answer = string(rows.RawValues()[0])
	}
	rows.Close()
	return answer, rows.Err()
}

// exec runs statements on the primary.
func (s *todoSet) exec(database string, statements ...string) {
	s.t.Helper()
	for _, q := range statements {
		_, err := s.ask("todo-db-0", "postgres", todoPassword, database, q)
		require.NoError(s.t, err, "%.200s", q)
	}
}

// app asks the primary's database todo as the application.
func (s *todoSet) app(query string) string {
	s.t.Helper()
	answer, err := s.ask("todo-db-0", "todo", "todo-secret", "todo", query)
	require.NoError(s.t, err, "%.200s", query)
	return answer
}

// fill does what the document's application does, with a role of its own.
func (s *todoSet) fill() {
	s.t.Helper()
	s.exec("postgres", "CREATE ROLE todo LOGIN PASSWORD 'todo-secret'", "CREATE DATABASE todo OWNER todo")
	s.app("CREATE TABLE public.tasks (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL, due timestamptz, done bool DEFAULT false)")
	s.app("CREATE INDEX ON public.tasks (due) WHERE NOT done")
	s.app("INSERT INTO public.tasks (what, due, done) SELECT '할 일 ' || md5(g::text), timestamptz '2026-01-01 12:00Z' + g * interval '1 hour', g % 3 = 0 FROM generate_series(1, 1000) g")
	s.app("CREATE TABLE public.notes (task int, content bytea)")
	s.app("INSERT INTO public.notes SELECT g, decode(repeat(md5(g::text), 50), 'hex') FROM generate_series(1, 200) g")
	s.replicated(s.contents())
}

// contents are what is in the primary's database todo.
func (s *todoSet) contents() []string {
	s.t.Helper()
	all, err := s.read(0)
	require.NoError(s.t, err)
	return all
}

// read is what is in an ordinal's database todo, with its owners.
func (s *todoSet) read(ordinal int) (all []string, err error) {
	for _, query := range []string{
		"SELECT count(*) || ' ' || md5(string_agg(t::text, ',' ORDER BY id)) FROM public.tasks t",
		"SELECT count(*) || ' ' || md5(string_agg(n::text, ',' ORDER BY task)) FROM public.notes n",
		"SELECT string_agg(tablename || ' of ' || tableowner, ', ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'",
		"SELECT string_agg(indexdef, '; ' ORDER BY indexdef) FROM pg_indexes WHERE schemaname = 'public'",
		"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'todo'",
	} {
		answer, err := s.ask(fmt.Sprintf("todo-db-%d", ordinal), "postgres", todoPassword, "todo", query)
		if err != nil {
			return nil, err
		}
		all = append(all, answer)
	}
	return all, nil
}

// replicated waits until the standby holds what the primary does.
func (s *todoSet) replicated(want []string) {
	s.t.Helper()
	s.until(3*time.Minute, "the standby has it all", func() bool {
		got, err := s.read(1)
		return err == nil && assert.ObjectsAreEqual(want, got)
	})
	recovers, err := s.ask("todo-db-1", "postgres", todoPassword, "postgres", "SELECT pg_is_in_recovery()")
	require.NoError(s.t, err)
	require.Equal(s.t, "t", recovers)
}

// onlyStandby: the backup may run programs in the pod that it dumps, and in no other.
func (s *todoSet) onlyStandby() {
	s.t.Helper()
	for pod, want := range map[string]string{"todo-db-1": "yes", "todo-db-0": "no", "sleep": "no"} {
		said, _ := s.try("auth", "can-i", "create", "pods/"+pod, "--subresource=exec", "--as=system:serviceaccount:"+s.ns+":keepset-backup")
		assert.Equal(s.t, want, said, "exec in %s", pod)
	}
}

// replaced reports whether a claim is another one than it was.
func (s *todoSet) replaced(name string, old claimed) bool {
	c, err := s.kube.CoreV1().PersistentVolumeClaims(s.ns).Get(context.Background(), name, metav1.GetOptions{})
	return err == nil && c.DeletionTimestamp == nil && string(c.UID) != old.uid
}
