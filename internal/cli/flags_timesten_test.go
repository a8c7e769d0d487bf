package cli

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"keepset/internal/statefulset"
)

// operated is an API server with the object sample, and who acts upon it: after
// each change of its spec comes what answers says, one state a look.
type operated struct {
	mu      sync.Mutex
	changed []string
	state   string
	answers map[string][]string
	coming  []string
}

func (o *operated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.URL.Path != "/apis/timesten.oracle.com/v1/namespaces/db/timestenclassics/sample" {
		http.NotFound(w, r)
		return
	}
	if r.Method == http.MethodPatch {
		var patch struct {
			Spec struct{ TTSpec map[string]string }
		}
		if err := json.NewDecoder(r.Body).Decode(&patch); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for field := range patch.Spec.TTSpec {
			o.changed = append(o.changed, field)
			o.coming = o.answers[field]
		}
	} else if len(o.coming) > 0 {
		o.state, o.coming = o.coming[0], o.coming[1:]
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": map[string]any{"highLevelState": o.state}})
}

func (o *operated) operator(t *testing.T, wait time.Duration) *timestenOperator {
	t.Helper()
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],"clusters":[{"name":"c","cluster":{"server":"` + server.URL + `"}}]}`
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	client, err := statefulset.Connect(statefulset.Options{Kubeconfig: file, Namespace: "db", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return &timestenOperator{client: client, name: "sample", wait: wait, now: time.Now}
}

// TestTimesTenOperator: what it is told, and how its answer is read.
func TestTimesTenOperator(t *testing.T) {
	t.Parallel()
	o := &operated{state: "Normal", answers: map[string][]string{
		"stopManaging": {"Normal", "ManualInterventionRequired"}, "reexamine": {"ManualInterventionRequired", "Reexamine", "StandbyDown", "Normal"},
	}}
	operator := o.operator(t, time.Minute)
	require.NoError(t, operator.Suspend(t.Context()))
	require.NoError(t, operator.Suspend(t.Context()), "it has let go already")
	require.NoError(t, operator.HandBack(t.Context()))
	require.Equal(t, []string{"stopManaging", "reexamine"}, o.changed)
	require.Equal(t, "Normal", o.state)
}

// TestTimesTenOperatorRefuses: it looks and does not like what it sees, or does
// nothing at all.
func TestTimesTenOperatorRefuses(t *testing.T) {
	t.Parallel()
	o := &operated{state: "ManualInterventionRequired", answers: map[string][]string{"reexamine": {"Reexamine", "ManualInterventionRequired"}}}
	require.ErrorContains(t, o.operator(t, time.Minute).HandBack(t.Context()), "went back to ManualInterventionRequired: its Events say why")

	o = &operated{state: "BothDown"}
	err := o.operator(t, 10*time.Millisecond).Suspend(t.Context())
	require.ErrorIs(t, err, statefulset.ErrTimeout)
	require.ErrorContains(t, err, "timestenclassics.timesten.oracle.com/sample: its state is BothDown, not yet ManualInterventionRequired")
}

// TestTimesTenFlags: a database is destroyed only by who says so, under the one
// operator that was named.
func TestTimesTenFlags(t *testing.T) {
	t.Parallel()
	good := TimesTenFlags{Object: "sample", Wait: time.Hour}
	require.NoError(t, good.check(presetTimesTen, "pod/sample-0", true))
	require.NoError(t, (&TimesTenFlags{}).check("", "local", false))
	for name, err := range map[string]error{
		"no consent":     good.check(presetTimesTen, "pod/sample-0", false),
		"another preset": good.check(presetAltibase, "pod/sample-0", true),
		"no pod":         good.check(presetTimesTen, "local", true),
		"no time":        (&TimesTenFlags{Object: "sample"}).check(presetTimesTen, "pod/sample-0", true),
	} {
		require.Equal(t, 64, ExitCode(err), name)
	}
}

// TestOrdinalOfOneDatabase: who names no ordinal means the one that a backup has,
// and who names one means that.
func TestOrdinalOfOneDatabase(t *testing.T) {
	for ordinal, args := range map[int][]string{-1: nil, 0: {"--ordinal", "0"}, 1: {"--ordinal", "1"}} {
		a, _ := app()
		var f LoadFlags
		fs := pflag.NewFlagSet("load", pflag.ContinueOnError)
		f.Add(fs)
		require.NoError(t, fs.Parse(append(args, "--engine", "command", "--command-preset", "timesten", "--target", "local")))
		l, err := f.command(t.Context(), a)
		require.NoError(t, err)
		require.True(t, l.OneDatabase)
		require.Equal(t, ordinal, l.Ordinal)
		require.Empty(t, l.Choice.Ordinals)
	}
}
