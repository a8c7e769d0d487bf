package job_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/dbdump"
	"keepset/internal/filetree"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// copied is a server that gives its files out.
type copied struct{ *fakeServer }

// Copy implements job.Copier.
func (s copied) Copy(ctx context.Context, sink filetree.Sink) (record.Report, error) {
	stream, err := sink.Create(ctx, "tree/files")
	if err != nil {
		return record.Report{}, err
	}
	if _, err := stream.Write([]byte("the files")); err != nil {
		return record.Report{}, err
	}
	r := record.Report{
		Engine: "fake", Layout: "base/1", Rows: 7, Bytes: 9, CapturedAt: newClock().now,
		Objects: []record.Object{{Kind: filetree.KindTree, Data: []string{"tree/files"}}},
	}
	r.Coordinates.Upstream = s.upstream
	return r, stream.Close()
}

// basesOf has servers that are what an error of the answer's, by host:port, says.
type basesOf map[string]error

type baseOf struct{ err error }

func (b baseOf) Check(context.Context, record.Report) error { return b.err }
func (b baseOf) Restore(context.Context, filetree.Source) (record.Report, error) {
	return record.Report{}, errors.New("nothing is restored here but by seed pods")
}

// copiedWorld is a world with one backup by the method physical: ordinal 0 leads,
// ordinal 1 follows it.
func copiedWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 3, 3)
	w.servers[w.order[1]].upstream = &record.UpstreamCoordinates{Host: "db-0.db", Port: 5432, Running: true}
	b := w.backup()
	b.Plan.Method = record.MethodPhysical
	b.Open = func(m job.Member) (dbdump.Engine, error) { return copied{w.servers[m.Address]}, nil }
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	return w
}

// fill is a restore of the backup by seed pods of the run's own Job.
func (c *cluster) fill(w *world, bases basesOf, q job.Request) *job.Restore {
	own := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: namespace}}
	own.Spec.Template.Spec.Containers = []corev1.Container{{Name: fillerContainer, Image: "keepset"}}
	c.add(own)
	r := c.restore(w, &databases{}, q, "run-1", "pod-1")
	r.Servers = nil
	r.Seed.DiscoverOptions = statefulset.DiscoverOptions{DefaultPort: 5432, DataDir: "/var/lib/mysql"}
	r.Files = &job.FilesRestore{
		Method: record.MethodPhysical, Spec: statefulset.WorkerSpec{UID: 999},
		Place: func(s statefulset.Set, _ record.Report) (statefulset.DataPlace, error) {
			return s.DataPlace(r.Seed.DiscoverOptions, statefulset.DataDirectory{Said: "/var/lib/mysql/files"})
		},
		Args: func(_ *job.RestorePlan, item job.RestoreItem, dir string) []string {
			return []string{fmt.Sprintf("%d of %d in %s behind %q", item.Ordinal, item.Base, dir, item.Follow)}
		},
		Base: func(item job.RestoreItem) (job.Base, error) { return baseOf{bases[item.Follow]}, nil },
	}
	return r
}

const (
	upstream    = "db-0.db.shop.svc:3306" // the port of the set's pods
	upstreamNew = "db-0.db.shop.svc:5432" // of a set without pods
)

// TestRestoreOfBases: claims are filled with servers' files by the seed pods
// themselves, in the directory where the database looks for them; a follower
// follows whom it followed, and of a whole set all follow the first.
func TestRestoreOfBases(t *testing.T) {
	w := copiedWorld(t)
	for name, c := range map[string]struct {
		replicas int32
		request  job.Request
		fills    []string
	}{
		"a lost standby": {2, recovery, []string{fmt.Sprintf("1 of 1 in /keepset-files/files behind %q", upstream)}},
		"a new standby":  {2, job.Request{Replicas: 3}, []string{fmt.Sprintf("2 of 1 in /keepset-files/files behind %q", upstream)}},
		"the primary":    {2, job.Request{Ordinals: []int{0}, Replace: true, AllowRollback: true}, []string{`0 of 0 in /keepset-files/files behind ""`}},
		"the whole set": {0, job.Request{All: true}, []string{
			`0 of 0 in /keepset-files/files behind ""`, fmt.Sprintf("1 of 0 in /keepset-files/files behind %q", upstreamNew),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, c.replicas)
			report, err := cluster.fill(w, nil, c.request).Execute(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.fills, cluster.fills())
			for _, m := range report.Members {
				require.Equal(t, job.ActionSeeded, m.Action)
				require.EqualValues(t, 7, m.Rows)
			}
			cluster.requireDone()
		})
	}
}

// fills are the arguments of the seed pods that were made.
func (c *cluster) fills() (all []string) {
	for _, s := range c.steps {
		var rest string
		if n, _ := fmt.Sscanf(s, "fill with %s", &rest); n == 1 {
			all = append(all, s[len("fill with "):])
		}
	}
	return all
}

// TestBaseThatCannotFollow: an upstream that has another history, or has removed
// its log, is found out before anything is touched; so are live standbys of a
// primary that would go back in time.
func TestBaseThatCannotFollow(t *testing.T) {
	w := copiedWorld(t)
	purged := basesOf{upstream: fmt.Errorf("%w: the log is gone", dbdump.ErrCoordinates)}
	for name, c := range map[string]struct {
		bases   basesOf
		request job.Request
		want    error
	}{
		"the log is gone":  {purged, recovery, dbdump.ErrCoordinates},
		"standbys live on": {nil, job.Request{Ordinals: []int{0}, Replace: true}, job.ErrNeedsConsent},
		"claims are there": {nil, job.Request{Ordinals: []int{1}}, statefulset.ErrClaimInUse},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, 2)
			_, err := cluster.fill(w, c.bases, c.request).Execute(t.Context())
			require.ErrorIs(t, err, c.want)
			require.Empty(t, cluster.fills())
			require.NotContains(t, cluster.steps, "delete persistentvolumeclaims data-db-1")
			require.Empty(t, cluster.wrong)
		})
	}
	t.Run("a seed pod fails", func(t *testing.T) {
		cluster := newCluster(t, 2)
		cluster.filler = 3
		_, err := cluster.fill(w, nil, recovery).Execute(t.Context())
		require.ErrorIs(t, err, statefulset.ErrSeedFailed)
		require.ErrorContains(t, err, "exit code 3")
		require.Empty(t, cluster.wrong)
	})
	t.Run("asked from outside", func(t *testing.T) {
		r := newCluster(t, 2).fill(w, basesOf{upstream: dbdump.ErrUnreachable}, recovery)
		r.Run.Local = true
		plan, err := r.Resolve(t.Context())
		require.NoError(t, err)
		require.Len(t, plan.Items, 1)
		require.Contains(t, fmt.Sprint(plan.Notes), "not checked from here whether "+upstream)
	})
}

// A set may have the files of two claim templates in one repository, although the
// docs want two: those of the one are not brought into the claims of the other.
func TestFilesOfAnotherTemplateAreRefused(t *testing.T) {
	w := newWorld(t)
	b := w.backup()
	b.Plan.Method, b.Plan.Engine, b.Files = record.MethodFiles, "", &filetree.SaveOptions{Workers: 1, Clock: time.Now}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("log"), 0o600))
	b.Discover = func(context.Context) (job.Inventory, error) {
		return job.Inventory{Replicas: 1, Members: []job.Member{{
			PlannedMember: record.PlannedMember{Name: "db-0", Claims: []record.Claim{{Name: "log-db-0", Template: "log"}}}, Address: dir,
		}}}, nil
	}
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		templates []string
		into      string
		refused   bool
	}{
		"another of the set's":  {[]string{"data", "log"}, "data", true},
		"its own":               {[]string{"data", "log"}, "log", false},
		"renamed, the only one": {[]string{"data"}, "", false},
		"renamed, one of two":   {[]string{"data", "index"}, "data", false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1)
			set := c.set()
			set.Spec.VolumeClaimTemplates = nil
			for _, template := range tc.templates {
				set.Spec.VolumeClaimTemplates = append(set.Spec.VolumeClaimTemplates, corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: template}})
			}
			require.NoError(t, c.tracker.Update(setsResource, set, namespace))
			r := c.fill(w, nil, job.Request{Ordinals: []int{0}, Replace: true, Follow: "none", Base: -1})
			r.Files.Method, r.Files.Place, r.Files.Base = record.MethodFiles, nil, nil
			r.Files.Spec.Template = tc.into
			_, err := r.Resolve(t.Context())
			if !tc.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, job.ErrConfig)
			require.ErrorContains(t, err, "--claim-template")
		})
	}
}
