package trust

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHiddenIsNotGone: in a bucket with versions a prune frees nothing at once, and says so. Whoever holds its account, and
// even forces it, puts markers over backups that are locked, and the bucket's owner takes the markers away.
func TestHiddenIsNotGone(t *testing.T) {
	w := newWorld(t, 3)
	// A prune leaves alone what a run that is under way might have stored.
	old := slices.DeleteFunc(w.below("packs/"), func(key string) bool { return w.now.Sub(w.stored(key)) < 26*time.Hour })
	require.NotEmpty(t, old)
	said := w.run("prune", 0, "backup", append([]string{"delete", "--set", set, "--force"}, w.days...)...)
	require.Contains(t, said, "freed 0 B in 0 objects, hid ")
	require.Contains(t, said, "still in the store as older versions")
	require.Contains(t, w.run("restore", 0, "backup", "list", "--set", set), "no backups")

	// A day and two hours later the data goes as well, as far as a listing shows.
	for _, key := range w.below("prune/") {
		w.age(key, 27*time.Hour)
	}
	require.Contains(t, w.run("prune", 0, "backup", append([]string{"prune"}, keep...)...), "hid ")
	left := w.objects()
	for _, key := range old {
		require.NotContains(t, left, key)
	}

	back := 0
	for _, v := range w.versions("sets/") {
		path, query := "/"+bucket+"/"+prefix+"/"+v.Key, "versionId="+url.QueryEscape(v.VersionID)
		switch {
		case strings.Contains(v.Key, "/prune/"): // what condemns them stays away
			if v.IsLatest && v.XMLName.Local == "Version" {
				w.server.Must(t, w.server.Root(http.MethodDelete, path, "", ""))
			}
		case v.XMLName.Local == "DeleteMarker":
			back++
			w.server.Must(t, w.server.Root(http.MethodDelete, path, query, ""))
		case strings.Contains(v.Key, "/packs/"), strings.Contains(v.Key, "/commits/"):
			answer := w.server.Send(t, w.server.Root(http.MethodDelete, path, query, ""))
			require.Equal(t, http.StatusForbidden, answer.Status, "the owner himself cannot: %s", answer.Body)
		}
	}
	require.Greater(t, back, 10)
	for _, id := range w.days {
		w.restores(id, "--accept-copied-times")
	}
}

// TestStatusReadsNoData: the account that looks at the backups sees how they are, and nothing of what is in them; it writes
// and deletes nothing.
func TestStatusReadsNoData(t *testing.T) {
	w := newWorld(t, 1)
	said := w.run("status", 0, "backup", "status", "--set", set, "--schedule", "0 2 * * *")
	require.Regexp(t, `_/shop +age +ok +the last complete backup is `+w.days[0], said)
	require.Regexp(t, `_/shop +newest +ok`, said)
	secret := 0
	for _, key := range w.objects() {
		w.denied("status", http.MethodDelete, key, "", nil, "")
		w.denied("status", http.MethodPut, key, "", nil, "rubbish")
		if strings.HasPrefix(key, "config/") || strings.Contains(key, "/backups/") || strings.Contains(key, "/commits/") {
			continue
		}
		secret++
		w.denied("status", http.MethodGet, key, "", nil, "")
	}
	require.Greater(t, secret, 3)
}
