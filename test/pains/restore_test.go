package pains

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/yaml"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// This file: restores that ended with an empty, or the wrong, volume.

// replicated is a repository with a backup of two databases, of which the second follows the first.
func replicated(t *testing.T) *days {
	t.Helper()
	d := newDays(t, newDatabase(10), newDatabase(10))
	d.databases[1].upstream = &record.UpstreamCoordinates{Host: "db-0.db", Port: 3306, Running: true}
	_, err := d.backUp()
	require.NoError(t, err)
	return d
}

// mariadb-operator #1878: seeding an ordinal again did nothing, and said nothing; its pod was Ready with the system's
// databases alone.
func TestPain03SilentReseed(t *testing.T) {
	t.Parallel()
	d := replicated(t)
	again := job.Request{Ordinals: []int{1}, Replace: true}

	// There is something in the ordinal's place: that is said.
	c := newCluster(t, 2, 2)
	_, err := c.restore(d, job.Request{Ordinals: []int{1}}).Execute(t.Context())
	require.ErrorIs(t, err, statefulset.ErrClaimInUse)
	require.Empty(t, c.changed)

	// The load brings nothing: that is noticed, and the set's pod does not start.
	c.deaf = true
	delete(c.found, 1)
	_, err = c.restore(d, again).Execute(t.Context())
	require.ErrorIs(t, err, dbdump.ErrMismatch)
	require.ErrorContains(t, err, "0 rows arrived of 20")
	require.Equal(t, 1, c.seeds(), "the ordinal's name is held")
	require.NotContains(t, c.found, 1)

	// Once more, and the users find what was backed up.
	c.deaf = false
	_, err = c.restore(d, again).Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[int]int{0: before, 1: 20}, c.found)
}

// volsync #1211: an address that was wrong, or a time before the first backup, gave an empty volume and a success; the
// empty volume was then backed up, until that backup had displaced the good ones.
func TestPain04EmptyRestore(t *testing.T) {
	t.Parallel()
	target := shop(t)
	s := newSite(t, target.Addr)
	s.backUp(0)
	require.Contains(t, s.load(64, target, "--rename", "shop=restored", "--backup", "2001-01-01T00:00:00Z"), "no eligible backup")
	s.set("AWS_ACCESS_KEY_ID", "nobody")
	s.set("AWS_SECRET_ACCESS_KEY", "secret")
	closed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code></Error>")
	}))
	t.Cleanup(closed.Close)
	s.set("AWS_ENDPOINT_URL", closed.URL)
	require.Contains(t, s.load(1, target, "--rename", "shop=restored", "--repository", "s3://backups/shop"), "denied")
	require.Equal(t, "0", target.Value(t, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'restored'"))

	// Somebody backs the empty server up, day after day, where only the last backup is kept.
	d := newDays(t, newDatabase(10))
	good, err := d.backUp()
	require.NoError(t, err)
	d.databases[0].tables = map[string][]byte{}
	for range 10 {
		d.pass(day)
		_, err := d.backUp()
		require.ErrorIs(t, err, job.ErrSuspect)
		_, err = d.prune()
		require.NoError(t, err)
	}
	require.Contains(t, d.backups(), good)
	loaded, err := d.load("")
	require.NoError(t, err)
	require.Equal(t, 20, loaded.rows(), "the latest is the latest good one")
}

// velero #7487 and #8047: a claim or a set was there already, so that a restore left an empty volume as it was, or the
// set's controller had made one.
func TestPain17ClaimExists(t *testing.T) {
	t.Parallel()
	d := replicated(t)
	grow := job.Request{Replicas: 3}

	// The set was scaled down from three once, and the claim of then is still there.
	c := newCluster(t, 2, 3)
	_, err := c.restore(d, grow).Execute(t.Context())
	require.ErrorIs(t, err, statefulset.ErrClaimInUse)
	for _, choice := range []string{"data-db-2", "--replace", "--keep"} {
		require.ErrorContains(t, err, choice)
	}
	require.Empty(t, c.changed)

	// With consent it is made anew and filled, and only then the set is scaled.
	grow.Replace = true
	_, err = c.restore(d, grow).Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"delete data-db-2", "seed db-2", "claim data-db-2", "delete db-2"}, c.changed)
	require.Equal(t, map[int]int{0: before, 1: before, 2: 20}, c.found)

	// In an empty namespace the controller is too late to make anything empty.
	empty := newCluster(t, 0, 0)
	_, err = empty.restore(d, job.Request{All: true, Base: 1, Follow: "db-0.elsewhere:3306"}).Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[int]int{0: 20, 1: 20}, empty.found)
}

// stash #685: a set was restored with more replicas than had been backed up, and it was not said what the others would
// hold. stash #1137: the CronJob's Job only queued the work, so that its Forbid kept nothing apart.
func TestPain25MoreReplicas(t *testing.T) {
	t.Parallel()
	d, c := replicated(t), newCluster(t, 2, 2)
	r := c.restore(d, job.Request{Replicas: 4})
	plan, err := r.Resolve(t.Context())
	require.NoError(t, err)
	require.Len(t, plan.Items, 2)
	for i, item := range plan.Items {
		require.Equal(t, 2+i, item.Ordinal)
		require.Equal(t, 1, item.Base, "it gets what the follower held")
		require.Equal(t, "db-0.db.shop.svc:3306", item.Follow)
	}
	_, err = r.Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[int]int{0: before, 1: before, 2: 20, 3: 20}, c.found)

	// Servers that follow nobody have each rows of their own: nobody guesses whose a new one gets.
	d.databases[1].upstream = nil
	d.pass(day)
	_, err = d.backUp()
	require.NoError(t, err)
	_, err = c.restore(d, job.Request{Replicas: 5, Follow: "none"}).Execute(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "with --base")
}

// The Job does the work itself: its program ends when the backup is committed, so that Forbid keeps the next one away.
func TestPain25WorkInTheJob(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/cronjob/base/cronjob-backup.yaml")
	require.NoError(t, err)
	var cron batchv1.CronJob
	require.NoError(t, yaml.UnmarshalStrict(text, &cron))
	require.Equal(t, batchv1.ForbidConcurrent, cron.Spec.ConcurrencyPolicy)
	container := cron.Spec.JobTemplate.Spec.Template.Spec.Containers[0]
	require.Equal(t, []string{"run"}, append(container.Command, container.Args...)[1:2])

	s := newSite(t, shop(t).Addr)
	s.backUp(0)
	require.Equal(t, []string{"complete"}, s.statuses())
}
