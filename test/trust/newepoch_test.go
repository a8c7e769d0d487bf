package trust

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
)

// TestNewEpochAfterATheft: the thief has the whole Secret of the backup pod, and its account, which for this test nobody has
// taken from him. After a new epoch he makes nothing that counts for anybody, and the pod goes on with the new Secret.
func TestNewEpochAfterATheft(t *testing.T) {
	w := newWorld(t, 3)
	thief := w.stolen()
	for _, key := range []string{"config/0", "config/1", "config/9", "keys/1.0123456789abcdef.age", "keys/2.0123456789abcdef.age"} {
		w.denied("backup", http.MethodPut, key, "", nil, "no thief writes here")
		w.denied("keys", http.MethodGet, "sets/_/"+set+"/origin", "", nil, "")
	}
	restore := map[string]string{}
	for _, kv := range w.keys("restore.env") {
		name, value, _ := strings.Cut(kv, "=")
		restore[name] = value
	}
	identity, err := age.ParseX25519Identity(restore["KEEPSET_RESTORE_IDENTITY"])
	require.NoError(t, err)
	// Until now to the second: a whole backup of the thief, stored a moment later, is what has to be told from good ones.
	end := time.Now().UTC().Truncate(time.Second)
	said := w.run("keys", 0, "backup", "keys", "new-epoch", "--recipient", identity.Recipient().String(),
		"--valid-until", end.Format(time.RFC3339), "--format", "env", "--out", "keys-2")
	require.Contains(t, said, "epoch 2 begins")

	run := []string{"run", "--set", set, "--method", "files", "--source", "file://" + w.path("source")}
	before := w.objects()
	require.Contains(t, w.run("backup", 64, "backup", run...), "was retired", "the former Secret")
	require.Equal(t, before, w.objects(), "nothing is written before that is said")

	require.NoError(t, os.Rename(w.path("keys"), w.path("keys-1")))
	require.NoError(t, os.Rename(w.path("keys-2"), w.path("keys")))
	trusted, err := os.ReadFile(w.path("keys/trusted-writers.txt"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.path("keys/restore.env"), fmt.Appendf(nil, "KEEPSET_TRUSTED_WRITERS='%s'\nKEEPSET_RESTORE_IDENTITY='%s'\n",
		strings.TrimSpace(string(trusted)), identity), 0o600))
	good := w.days[len(w.days)-1]
	canBackUp(w)
	newest := w.days[len(w.days)-1]

	decided := w.decisions()
	var forged []string
	for i, ago := range []time.Duration{-time.Hour, 0, time.Hour} {
		id := w.id(ago, 2000+i)
		w.forge(good, id, thief.Writer)
		forged = append(forged, id)
	}
	for _, role := range []string{"restore", "backup"} {
		for line := range strings.Lines(w.run(role, 0, "backup", "list", "--set", set)) {
			if slices.ContainsFunc(forged, func(id string) bool { return strings.Contains(line, id) }) {
				require.Contains(t, line, "invalid")
			} else {
				require.NotContains(t, line, "invalid")
			}
		}
	}
	for _, id := range forged {
		require.Contains(t, w.run("restore", 64, "restore", "load", "--set", set, "--ordinal", "0", "--backup", id, "--target", "file://"+t.TempDir()), id)
	}
	w.trees["latest"] = w.trees[newest]
	w.restores("latest")
	said = w.run("restore", 1, "backup", "verify", "--set", set)
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "damaged:") {
			require.True(t, slices.ContainsFunc(forged, func(id string) bool { return strings.Contains(line, id) }), line)
		}
	}
	after := w.decisions()
	for id, kept := range decided {
		require.Equal(t, kept, after[id], "%s: the forged ones displace it", id)
	}
	require.Contains(t, w.run("prune", 0, "backup", append([]string{"prune"}, keep...)...), "retired")
	for _, id := range w.days {
		w.restores(id)
	}
	// He does not stand in the way of the pod, which takes over what it has stored itself.
	canBackUp(w)
}
