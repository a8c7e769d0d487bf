package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/repository"
)

// TestStolenPod: a thief has exactly what the backup pod has: its account of the store, the writer's key, the key of the
// index and the public key of the data. The parts are in an order, as each goes on with the bucket of the one before.
func TestStolenPod(t *testing.T) {
	w := newWorld(t, 10)
	// On Amazon S3 these two statements hold as well. See TestStolenPod/overwrites.
	require.Equal(t, []string{"RefuseLongLocks", "RefuseOverwrites"}, w.notEnforced)
	for _, part := range []struct {
		name string
		do   func(*world)
	}{
		{"reads", cannotRead}, {"deletes", cannotDelete}, {"evicts", cannotEvict}, {"works", canBackUp}, {"overwrites", cannotOverwrite},
	} {
		ok := t.Run(part.name, func(t *testing.T) {
			here := *w
			here.t = t
			part.do(&here)
			w.days, w.trees = here.days, here.trees
		})
		require.True(t, ok, part.name)
	}
}

// denied requires that the store refuses a request of the account, and says so.
func (w *world) denied(account, method, key, query string, header map[string]string, body string) {
	w.t.Helper()
	q := w.as(account, method, key, query, body)
	q.Header = header
	answer := w.server.Send(w.t, q)
	require.Equal(w.t, http.StatusForbidden, answer.Status, "%s: %s %s?%s: %s", account, method, key, query, answer.Body)
}

// Nothing that backups hold can be read, in whatever version, nor the keys that would open it. And the programs refuse.
func cannotRead(w *world) {
	secret := 0
	for _, v := range w.versions("") {
		if !strings.Contains(v.Key, "/packs/") && !strings.Contains(v.Key, "/maps/") && !strings.HasPrefix(v.Key, "keys/") {
			continue
		}
		secret++
		w.denied("backup", http.MethodGet, v.Key, "", nil, "")
		w.denied("backup", http.MethodHead, v.Key, "", nil, "")
		w.denied("backup", http.MethodGet, v.Key, "versionId="+v.VersionID, nil, "")
		w.denied("backup", http.MethodPut, "sets/_/"+set+"/backups/copy", "", map[string]string{"X-Amz-Copy-Source": "/" + bucket + "/" + prefix + "/" + v.Key}, "")
	}
	require.Greater(w.t, secret, 20)
	to := w.t.TempDir()
	said := w.run("backup", 64, "restore", "load", "--set", set, "--ordinal", "0", "--target", "file://"+to)
	require.Contains(w.t, said, repository.NameRestoreIdentity, "what it takes to restore is not in the pod")
	require.Empty(w.t, tree(w.t, to))
}

// Nothing goes, in whatever way it is asked for, and no lock ends.
func cannotDelete(w *world) {
	before := w.versions("")
	for _, v := range before {
		w.denied("backup", http.MethodDelete, v.Key, "", nil, "")
		w.denied("backup", http.MethodDelete, v.Key, "versionId="+v.VersionID, map[string]string{"X-Amz-Bypass-Governance-Retention": "true"}, "")
		// The pruner's account hides, and destroys no version: see TestHiddenIsNotGone.
		w.denied("prune", http.MethodDelete, v.Key, "versionId="+v.VersionID, map[string]string{"X-Amz-Bypass-Governance-Retention": "true"}, "")
	}
	for _, key := range slices.Concat(w.below("commits/"), w.below("packs/")) {
		for _, account := range []string{"backup", "prune"} {
			w.denied(account, http.MethodPut, key, "retention", map[string]string{"X-Amz-Bypass-Governance-Retention": "true"}, retention("GOVERNANCE", time.Hour))
			w.denied(account, http.MethodPut, key, "legal-hold", nil, "<LegalHold><Status>OFF</Status></LegalHold>")
		}
	}
	list := "<Delete><Object><Key>" + prefix + "/" + w.below("commits/")[0] + "</Key></Object></Delete>"
	q := w.as("backup", http.MethodPost, "", "delete", list)
	q.Path = "/" + bucket
	require.Contains(w.t, w.server.Send(w.t, q).Body, "<Code>AccessDenied</Code>")
	for query, body := range map[string]string{
		"policy":      `{"Version": "2012-10-17", "Statement": []}`,
		"versioning":  "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
		"object-lock": "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>",
		"acl":         "",
	} {
		q := w.as("backup", http.MethodPut, "", query, body)
		q.Path = "/" + bucket
		require.Equal(w.t, http.StatusForbidden, w.server.Send(w.t, q).Status, query)
	}
	require.Equal(w.t, before, w.versions(""))
}

func retention(mode string, in time.Duration) string {
	return fmt.Sprintf("<Retention><Mode>%s</Mode><RetainUntilDate>%s</RetainUntilDate></Retention>", mode, time.Now().Add(in).UTC().Format(time.RFC3339))
}

// policy of the pruner in these tests.
var keep = []string{"--set", set, "--keep-last", "3", "--keep-daily", "2"}

// decisions are what a prune would do, by backup.
func (w *world) decisions() map[string]bool {
	w.t.Helper()
	said := w.run("prune", 0, "backup", append([]string{"prune", "--dry-run", "--json"}, keep...)...)
	var reports []struct {
		Decisions []struct {
			Backup string `json:"backup"`
			Keep   bool   `json:"keep"`
		} `json:"decisions"`
	}
	require.NoError(w.t, json.Unmarshal([]byte(said), &reports), said)
	require.Len(w.t, reports, 1)
	kept := map[string]bool{}
	for _, d := range reports[0].Decisions {
		kept[d.Backup] = d.Keep
	}
	return kept
}

// Whatever the thief stores, the pruner, who holds the writer's public key, keeps what it would have kept without.
func cannotEvict(w *world) {
	before := w.decisions()
	require.Len(w.t, before, 10)
	newest := w.days[len(w.days)-1]
	w.forgeRecords(newest)
	// Rubbish that is signed, and is what it says: he holds the key. There are more of them than any rule keeps.
	rubbish := w.t.TempDir()
	require.NoError(w.t, os.WriteFile(rubbish+"/pay.txt", []byte("all your data are belong to us"), 0o600))
	for range 8 {
		w.run("backup", 0, "backup", "run", "--set", set, "--method", "files", "--source", "file://"+rubbish, "--shrink-threshold", "0")
	}
	// Records that condemn, below every name that a policy might let pass.
	for _, key := range []string{"prune/" + newest, "prune/" + newest + "/backups/x", "pins/" + newest, "pins/x/commits/y"} {
		w.denied("backup", http.MethodPut, "sets/_/"+set+"/"+key, "", nil, w.condemns())
	}

	after := w.decisions()
	require.GreaterOrEqual(w.t, len(after), 10+8+4)
	said := w.run("prune", 0, "backup", append([]string{"prune"}, keep...)...)
	require.Contains(w.t, said, "quarantined")
	left := w.run("restore", 0, "backup", "list", "--set", set)
	evicted := 0
	for _, id := range w.days {
		if !before[id] {
			evicted++
			continue
		}
		require.True(w.t, after[id], "%s would be evicted", id)
		require.Contains(w.t, left, id)
		w.restores(id)
	}
	require.Equal(w.t, 4, evicted, "those that would have gone in any case")
	w.days = slices.DeleteFunc(w.days, func(id string) bool { return !before[id] })

	// The one thing that he can do is stop the pruning of the set, and that is said.
	w.server.Must(w.t, w.as("backup", http.MethodPut, "sets/_/"+set+"/backups/"+w.id(0, 99)+"/plan", "", "rubbish"))
	objects := w.objects()
	require.Contains(w.t, w.run("prune", 1, "backup", append([]string{"prune"}, keep...)...), w.id(0, 99))
	require.Equal(w.t, objects, w.objects())
	w.run("prune", 0, "backup", "delete", "--set", set, w.id(0, 99), "--force")
}

// stolen are the keys of the backup pod.
func (w *world) stolen() repository.Keys {
	w.t.Helper()
	env := w.env("backup")
	keys, err := repository.LoadKeys(func(name string) string {
		for _, kv := range env {
			if value, ok := strings.CutPrefix(kv, name+"="); ok {
				return value
			}
		}
		return ""
	})
	require.NoError(w.t, err)
	return keys
}

// condemns is a prune record that names all backups.
func (w *world) condemns() string {
	w.t.Helper()
	plan := w.plan(w.days[0])
	p := record.Prune{Header: record.NewHeader(record.KindPrune), Repository: plan.Repository, Set: plan.Set}
	for _, id := range w.days {
		p.Backups = append(p.Backups, record.BackupID(id))
	}
	data, err := record.Encode(&p, nil)
	require.NoError(w.t, err)
	return string(data)
}

// plan is that of a backup, as the thief may read it.
func (w *world) plan(id string) record.Plan {
	w.t.Helper()
	var p record.Plan
	answer := w.server.Must(w.t, w.as("backup", http.MethodGet, "sets/_/"+set+"/backups/"+id+"/plan", "", ""))
	_, err := record.Decode([]byte(answer.Body), &p, nil)
	require.NoError(w.t, err)
	return p
}

// forgeRecords stores backups that claim to hold what a good one does: dated in the future and in the past, with the stolen
// key; of today, not signed and signed by another key; and a second commit for the good one itself.
func (w *world) forgeRecords(good string) {
	w.t.Helper()
	keys := w.stolen()
	_, foreign, err := ed25519.GenerateKey(nil)
	require.NoError(w.t, err)
	for i, forged := range []struct {
		ago    time.Duration
		signer ed25519.PrivateKey
	}{{-300 * day, keys.Writer}, {-2 * day, keys.Writer}, {400 * day, keys.Writer}, {time.Hour, nil}, {time.Hour, foreign}} {
		w.forge(good, w.id(forged.ago, 1000+i), forged.signer)
	}
	commit := w.commit(good)
	commit.Attempt, commit.Status, commit.Reasons = "forged", record.StatusSuspect, []string{"not good"}
	data, err := record.Encode(&commit, keys.Writer)
	require.NoError(w.t, err)
	w.server.Must(w.t, w.as("backup", http.MethodPut, "sets/_/"+set+"/commits/"+good+"/0.forged", "", string(data)))
}

// commit is that of a backup's one member, as the thief may read it.
func (w *world) commit(id string) record.Commit {
	w.t.Helper()
	var c record.Commit
	key := w.below("commits/" + id)[0]
	_, err := record.Decode([]byte(w.server.Must(w.t, w.as("backup", http.MethodGet, key, "", "")).Body), &c, nil)
	require.NoError(w.t, err)
	return c
}

// forge stores a backup of that ID that claims to hold what a good one does, and to have been taken then.
func (w *world) forge(good, id string, signer ed25519.PrivateKey) {
	w.t.Helper()
	plan, c := w.plan(good), w.commit(good)
	plan.ID = record.BackupID(id)
	plan.CreatedAt = plan.ID.Time()
	data, err := record.Encode(&plan, signer)
	require.NoError(w.t, err)
	w.server.Must(w.t, w.as("backup", http.MethodPut, "sets/_/"+set+"/backups/"+id+"/plan", "", string(data)))
	c.Backup, c.Attempt, c.PlanSHA256, c.CapturedAt = plan.ID, "forged", sha256.Sum256(data), plan.CreatedAt
	data, err = record.Encode(&c, signer)
	require.NoError(w.t, err)
	w.server.Must(w.t, w.as("backup", http.MethodPut, "sets/_/"+set+"/commits/"+id+"/0.forged", "", string(data)))
}

// With the very same rights the pod does its work.
func canBackUp(w *world) {
	w.change(77)
	said := w.run("backup", 0, "backup", "run", "--set", set, "--method", "files", "--source", "file://"+w.path("source"))
	id := regexp.MustCompile(`\d{8}T\d{6}Z-[a-z0-9]{8}`).FindString(said)
	require.NotEmpty(w.t, id, said)
	w.trees[id] = tree(w.t, w.path("source"))
	w.days = append(w.days, id)
	w.restores(id)
}

// An object that is there is not replaced by one who asks that it be new, which policies can demand on Amazon S3. This server
// cannot, so that here an overwriting adds a version; the old one stays below it, and cannot be deleted. What a backup needs
// that has been overwritten is noticed, and the bucket's owner takes the version on top away.
func cannotOverwrite(w *world) {
	id := w.days[0]
	w.restores(id)
	targets := slices.Concat(w.below("backups/"+id), w.below("commits/"+id), w.below("refs/"), w.below("parts/"), w.below("packs/"), w.below("maps/"), w.below("origin"))
	targets = slices.DeleteFunc(targets, func(key string) bool { return !repository.Lasting(key) })
	before := w.versions("")
	for _, key := range targets {
		q := w.as("backup", http.MethodPut, key, "", "rubbish")
		q.Header = map[string]string{"If-None-Match": "*"}
		require.Equal(w.t, http.StatusPreconditionFailed, w.server.Send(w.t, q).Status, key)
	}
	require.Equal(w.t, before, w.versions(""))
	for _, key := range []string{"config/0", "config/1", "keys/1.0123456789abcdef.age"} {
		w.denied("backup", http.MethodPut, key, "", nil, "rubbish")
	}

	for _, key := range targets {
		w.server.Must(w.t, w.as("backup", http.MethodPut, key, "", "rubbish")) // RefuseOverwrites is not enforced
	}
	w.run("restore", 1, "backup", "verify", "--set", set)
	onTop := map[string]string{}
	for _, v := range w.versions("") {
		if !slices.Contains(targets, v.Key) {
			continue
		}
		if v.IsLatest {
			onTop[v.Key] = v.VersionID
			continue
		}
		q := w.server.Root(http.MethodDelete, "/"+bucket+"/"+prefix+"/"+v.Key, "versionId="+url.QueryEscape(v.VersionID), "")
		answer := w.server.Send(w.t, q)
		require.Equal(w.t, http.StatusForbidden, answer.Status, "the owner himself cannot: %s", answer.Body)
	}
	require.Len(w.t, onTop, len(targets))
	for key, top := range onTop {
		w.server.Must(w.t, w.server.Root(http.MethodDelete, "/"+bucket+"/"+prefix+"/"+key, "versionId="+url.QueryEscape(top), ""))
	}
	// Amazon S3 keeps the time of a version, and this server does not: what comes back is as old as its overwriting.
	for _, id := range w.days {
		w.restores(id, "--accept-copied-times")
	}
}
