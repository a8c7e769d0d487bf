package statefulset

import (
	"bytes"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/statefulset/exectest"
)

// execTransports are the two ways to a container.
var execTransports = map[string]func(*exectest.Server){
	"websocket": func(*exectest.Server) {},
	"spdy":      func(s *exectest.Server) { s.NoWebSocket = true },
}

// execClient is a client of an API server that serves nothing but exec.
func execClient(t *testing.T, s *exectest.Server) *Client {
	t.Helper()
	here := &exectest.Here{Env: os.Environ()}
	s.Run = here.Run
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		here.Wait()
		server.Close()
	})
	file := filepath.Join(t.TempDir(), "kubeconfig")
	kubeconfig := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: it, contexts: [{name: it, context: {cluster: it, user: it, namespace: ns}}],"+
		" users: [{name: it, user: {}}], clusters: [{name: it, cluster: {server: %q}}]}", server.URL)
	require.NoError(t, os.WriteFile(file, []byte(kubeconfig), 0o600))
	c, err := Connect(Options{Kubeconfig: file})
	require.NoError(t, err)
	return c
}

// TestExec: bytes both ways, and the status.
func TestExec(t *testing.T) {
	content := strings.Repeat("\x00row\xff\n", 100000)
	for name, transport := range execTransports {
		t.Run(name, func(t *testing.T) {
			var server exectest.Server
			transport(&server)
			c := execClient(t, &server)
			var out, errs bytes.Buffer
			e := Exec{Pod: "db-0", Container: "db", Stdin: strings.NewReader(content), Stdout: &out, Stderr: &errs}
			e.Command = []string{"sh", "-c", "cat; echo words >&2"}
			require.NoError(t, c.Exec(t.Context(), e))
			require.True(t, content == out.String(), "%d bytes", out.Len())
			require.Equal(t, "words\n", errs.String())

			e = Exec{Pod: "db-0", Container: "db", Stdout: &out, Stderr: &errs, Command: []string{"sh", "-c", "exit 7"}}
			err := c.Exec(t.Context(), e)
			exit, ok := errors.AsType[*ExitError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, ExitError{Pod: "db-0", Container: "db", Code: 7}, *exit)
		})
	}
}

// TestExecCut: our own connection being cut is an error. What Exec cannot see
// stands here as well, since it is why the engine command has an end mark.
func TestExecCut(t *testing.T) {
	unseen := map[string]bool{"websocket/closed": true, "websocket/denied": true, "spdy/denied": true}
	for name, transport := range execTransports {
		for how, cut := range map[string]exectest.How{"dropped": exectest.Dropped, "closed": exectest.Closed, "denied": exectest.Denied} {
			t.Run(name+"/"+how, func(t *testing.T) {
				server := exectest.Server{CutOutput: 100000, How: cut}
				transport(&server)
				c := execClient(t, &server)
				var out, errs bytes.Buffer
				err := c.Exec(t.Context(), Exec{
					Pod: "db-0", Container: "db", Stdout: &out, Stderr: &errs, Command: []string{"sh", "-c", "head -c 300000 /dev/zero"},
				})
				require.LessOrEqual(t, out.Len(), 100000)
				if unseen[name+"/"+how] {
					require.NoError(t, err)
				} else {
					require.Error(t, err)
				}
			})
		}
	}
}
