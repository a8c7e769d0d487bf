package metrics

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
)

var started = time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)

// took is a run that has ended.
func took(command, set string, code int, fill func(*Group)) *Run {
	r := &Run{Command: command}
	g := r.Of(set)
	if fill != nil {
		fill(g)
	}
	r.End(started, started.Add(90*time.Second), code)
	return r
}

func report() *job.BackupReport {
	return &job.BackupReport{Status: job.StatusIncomplete, Planned: 3, Members: []job.MemberResult{
		{Ordinal: 0, Status: job.StatusComplete, Rows: 12, Bytes: 3400, Stored: 56, Objects: 7, Seconds: 8.5, LockSeconds: 0.25, CapturedAt: started},
		{Ordinal: 1, Status: job.StatusSuspect, Rows: 1, CapturedAt: started, Resumed: true},
		{Ordinal: 2, Status: job.StatusFailed},
	}}
}

func text(t *testing.T, r *Run) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, r.WriteText(&b))
	return b.String()
}

func TestTextOfABackup(t *testing.T) {
	out := text(t, took("backup", "mysql/mysql", 3, func(g *Group) { g.Backup(report(), job.Share{}) }))
	for _, line := range []string{
		`keepset_backup_bytes{ordinal="0",set="mysql/mysql"} 3400`,
		`keepset_backup_stored_bytes{ordinal="0",set="mysql/mysql"} 56`,
		`keepset_backup_rows{ordinal="1",set="mysql/mysql"} 1`,
		`keepset_backup_lock_seconds{ordinal="0",set="mysql/mysql"} 0.25`,
		`keepset_backup_members{set="mysql/mysql",status="failed"} 1`,
		`keepset_backup_exit_code{set="mysql/mysql"} 3`,
		`keepset_backup_duration_seconds{set="mysql/mysql"} 90`,
		`# TYPE keepset_backup_duration_seconds gauge`,
	} {
		assert.Contains(t, out, line+"\n")
	}
	assert.NotContains(t, out, "last_success", "it was none")
	assert.NotContains(t, out, `ordinal="2"`, "of a member that failed nothing is known")
	assert.NotContains(t, out, `lock_seconds{ordinal="1"`, "an earlier attempt has said it")
	good := text(t, took("backup", "mysql/mysql", 0, nil))
	assert.Contains(t, good, `keepset_backup_last_success_timestamp_seconds{set="mysql/mysql"} 1.79`)
	share := text(t, took("backup", "mysql/mysql", 0, func(g *Group) { g.Backup(report(), job.Share{Index: 1, Of: 3}) }))
	assert.Contains(t, share, `keepset_backup_exit_code{set="mysql/mysql",share="1"} 0`)
}

// everything is a run of each command that says all that it can.
func everything() map[string]*Run {
	return map[string]*Run{
		"backup":  took("backup", "a/b", 0, func(g *Group) { g.Backup(report(), job.Share{}) }),
		"prune":   took("prune", "a/b", 0, func(g *Group) { g.Prune(&job.PruneReport{}, started, started, 0) }),
		"verify":  took("verify", "a/b", 0, func(g *Group) { g.Verify(repository.VerifyReport{}, 0) }),
		"restore": took("restore", "a/b", 0, func(g *Group) { g.Load(&job.LoadReport{}) }),
		"drill": took("drill", "a/b", 0, func(g *Group) {
			g.Drill(&job.DrillReport{CapturedAt: started, RestoreSeconds: 1, Checks: []job.DrillCheck{{Check: job.DrillLoad, State: record.ProofFailed}}})
		}),
		"status": took("status", "a/b", 0, func(g *Group) {
			g.Status(&job.StatusReport{CapturedAt: started, DueAt: started, DrilledAt: started, Checks: []job.Check{{Check: job.CheckAge, State: job.CheckAlert}}})
		}),
	}
}

// TestCatalogue: what is listed is written, and the other way round.
func TestCatalogue(t *testing.T) {
	written := map[string]bool{}
	for _, r := range everything() {
		for _, line := range regexp.MustCompile(`(?m)^# HELP (\S+) `).FindAllStringSubmatch(text(t, r), -1) {
			written[line[1]] = true
		}
	}
	listed := map[string]bool{}
	for _, d := range Catalogue() {
		assert.False(t, listed[d.Name], "%s is listed twice", d.Name)
		listed[d.Name] = true
		assert.Regexp(t, `^keepset_[a-z_]+$`, d.Name)
		assert.NotEmpty(t, d.Help, d.Name)
	}
	assert.Equal(t, listed, written)
}

// TestAFileKeepsWhatIsOfOthers: a run that fails takes back no success, and
// other sets and commands are not touched.
func TestAFileKeepsWhatIsOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keepset.prom")
	read := func() string {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(content)
	}
	require.NoError(t, took("backup", "a/b", 0, func(g *Group) { g.Backup(report(), job.Share{}) }).WriteFile(path))
	require.Equal(t, text(t, everything()["backup"]), read())
	require.NoError(t, took("prune", "a/b", 0, nil).WriteFile(path))
	require.NoError(t, took("backup", "c/d", 1, nil).WriteFile(path))
	require.NoError(t, took("backup", "a/b", 1, nil).WriteFile(path))
	for _, line := range []string{
		`keepset_backup_last_success_timestamp_seconds{set="a/b"} `, `keepset_backup_exit_code{set="a/b"} 1`, `keepset_backup_exit_code{set="c/d"} 1`,
		`keepset_prune_exit_code{set="a/b"} 0`,
	} {
		require.Contains(t, read(), line)
	}
	require.NotContains(t, read(), "keepset_backup_rows", "the run that failed has captured nothing")
	require.NotContains(t, read(), `last_success_timestamp_seconds{set="c/d"}`)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode().Perm(), "the exporter is another user")
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing half written is left")
}

// TestAFileThatIsNone is not overwritten.
func TestAFileThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(path, []byte("dear diary\n"), 0o600))
	require.ErrorContains(t, took("backup", "a/b", 0, nil).WriteFile(path), "move the file away")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "dear diary\n", string(content))
}

// TestPush speaks to a server that keeps what a Pushgateway gets.
func TestPush(t *testing.T) {
	type request struct{ method, path, user, body string }
	var got []request
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		got = append(got, request{r.Method, r.URL.Path, user + ":" + password, string(body)})
		w.WriteHeader(status)
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	to := Gateway{URL: u, User: "keepset", Password: "secret", Client: server.Client()}
	r := took("prune", "a/b", 0, nil)
	r.Of("c/d").End(started, started, 1)
	require.NoError(t, r.Push(t.Context(), to))
	require.Len(t, got, 2)
	require.Equal(t, http.MethodPost, got[0].method, "what it does not say stays")
	require.Equal(t, "/metrics/job/keepset_prune/set@base64/YS9i", got[0].path)
	require.Equal(t, "keepset:secret", got[0].user)
	require.Contains(t, got[0].body, "keepset_prune_exit_code 0\n")
	require.Contains(t, got[1].body, "keepset_prune_exit_code 1\n")
	require.NotContains(t, got[1].body, "last_success")

	status = http.StatusForbidden
	err = r.Push(t.Context(), to)
	require.ErrorContains(t, err, "push the metrics of a/b to "+server.URL)
	require.NotContains(t, err.Error(), "secret")
}

// TestRules: the alerts that are shipped ask for metrics that there are.
func TestRules(t *testing.T) {
	names := map[string]bool{}
	for _, d := range Catalogue() {
		names[d.Name] = true
	}
	content, err := os.ReadFile("../../deploy/prometheus/keepset.rules.yaml")
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	require.NoError(t, yaml.UnmarshalStrict(content, &file))
	require.NotEmpty(t, file.Groups)
	alerts := map[string]bool{}
	for _, group := range file.Groups {
		require.NotEmpty(t, group.Name)
		require.NotEmpty(t, group.Rules)
		for _, rule := range group.Rules {
			assert.False(t, alerts[rule.Alert], "%s is there twice", rule.Alert)
			alerts[rule.Alert] = true
			used := regexp.MustCompile(`keepset_\w+`).FindAllString(rule.Expr, -1)
			assert.NotEmpty(t, used, rule.Alert)
			for _, name := range used {
				assert.True(t, names[name], "%s asks for %s, which nothing writes", rule.Alert, name)
			}
			require.NoError(t, balanced(rule.Expr), rule.Alert)
			if rule.For != "" {
				_, err := time.ParseDuration(rule.For)
				assert.NoError(t, err, rule.Alert)
			}
			for _, key := range []string{"summary", "description"} {
				assert.NotEmpty(t, rule.Annotations[key], rule.Alert)
			}
			assert.Contains(t, []string{"critical", "warning"}, rule.Labels["severity"], rule.Alert)
		}
	}
}

// balanced finds the slips that a text editor would.
func balanced(expr string) error {
	var open []rune
	pairs := map[rune]rune{')': '(', '}': '{', ']': '['}
	for _, c := range expr {
		switch c {
		case '(', '{', '[':
			open = append(open, c)
		case ')', '}', ']':
			if len(open) == 0 || open[len(open)-1] != pairs[c] {
				return errors.New("unbalanced: " + expr)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 || strings.Count(expr, `"`)%2 != 0 {
		return errors.New("unbalanced: " + expr)
	}
	return nil
}
