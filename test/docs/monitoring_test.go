package docs

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/metrics"
	"keepset/test/servers"
)

// TestMonitoringPage does what docs/monitoring.md says, in its order.
func TestMonitoringPage(t *testing.T) {
	db0 := servers.MariaDB(t)
	db0.Exec(t, heading(t, "Backup account on MariaDB"))
	db0.Exec(t, "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY); INSERT INTO shop.orders VALUES (1), (2)")
	var mu sync.Mutex
	var pushed []string
	gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		mu.Lock()
		defer mu.Unlock()
		pushed = append(pushed, user+":"+password+" "+r.URL.Path+"\n"+string(body))
	}))
	t.Cleanup(gateway.Close)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "exporter"), 0o700))
	page := read(t, "docs/monitoring.md")
	code := strings.NewReplacer(
		"/var/lib/node_exporter", filepath.Join(dir, "exporter"), "pushgateway:9091", strings.TrimPrefix(gateway.URL, "http://"),
		"KEEPSET_METRICS_PASSWORD=...", "KEEPSET_METRICS_PASSWORD=secret",
	).Replace(page.In("sh"))

	said := follow(t, map[string]*servers.MySQL{"db0": db0}, dir, code)
	assert.Regexp(t, `_/shop +age +ok +the last complete backup is`, said)
	assert.Contains(t, said, "1 sets: 0 findings, 4 checks not made")
	file := text(t, filepath.Join(dir, "exporter/shop.prom"))
	assert.Contains(t, file, `keepset_backup_rows{ordinal="0",set="_/shop"} 2`)
	assert.Contains(t, file, `keepset_backup_exit_code{set="_/shop"} 0`)
	assert.Contains(t, file, `keepset_verify_damages{set="_/shop"} 0`, "beside what the backup has written")
	assert.Contains(t, text(t, filepath.Join(dir, "exporter/shop-status.prom")), `keepset_status_alert{check="age",set="_/shop"} 0`)
	require.Len(t, pushed, 1)
	assert.True(t, strings.HasPrefix(pushed[0], "keepset:secret /metrics/job/keepset_prune/set@base64/"), pushed[0])
	assert.Contains(t, pushed[0], "keepset_prune_exit_code 0")
}

// TestMetricsOfMonitoring: the page lists every metric that there is, and no other.
func TestMetricsOfMonitoring(t *testing.T) {
	listed := map[string]bool{}
	for _, name := range regexp.MustCompile("`(keepset_[a-z_]+)`").FindAllStringSubmatch(text(t, root+"docs/monitoring.md"), -1) {
		listed[name[1]] = true
	}
	for _, job := range []string{"backup", "prune"} { // jobs of a Pushgateway
		delete(listed, "keepset_"+job)
	}
	written := map[string]bool{}
	for _, d := range metrics.Catalogue() {
		written[d.Name] = true
	}
	assert.Equal(t, written, listed)
}
