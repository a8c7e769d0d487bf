package pains

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// This file: expiry that took what was needed, or left what was not.

// kopia #1087: "BLOB not found" at a restore, after maintenance by several CronJobs, each of which took itself for the only
// one by its host's name, had met with a running backup.
func TestPain23Maintenance(t *testing.T) {
	t.Parallel()
	d := newDays(t, newDatabase(100))
	_, err := d.backUp()
	require.NoError(t, err)
	d.pass(5 * day)
	first := d.backups()

	// A backup is running that finds all of its data in the store already. Meanwhile two prunes condemn them.
	var once sync.Once
	var condemned atomic.Int64
	d.databases[0].during = func() {
		once.Do(func() {
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() {
					p := &job.Prune{Repository: d.repository, Set: daysSet, IDs: first, Force: true}
					report, _ := p.Run(t.Context()) // one of the two may find the set busy, or nothing left to do
					condemned.Add(int64(report.Marked.Objects))
				})
			}
			both.Wait()
		})
	}
	running, err := d.backUp()
	require.NoError(t, err)
	require.Equal(t, []record.BackupID{running}, d.backups())
	require.Positive(t, condemned.Load())

	// They delete what they have condemned, by the store's clock, and look again before they do.
	d.pass(2 * day)
	_, err = d.prune()
	require.NoError(t, err)
	d.pass(2 * day)
	_, err = d.prune()
	require.NoError(t, err)
	loaded, err := d.load(running)
	require.NoError(t, err)
	require.Equal(t, d.databases[0].tables, loaded.tables)
	report, err := d.repository.Verify(t.Context(), repository.VerifyOptions{Set: daysSet, ReadData: 100})
	require.NoError(t, err)
	require.Empty(t, report.Damages)
}

// velero #9314 and #9355: the bucket grew although backups expired. pgbackrest #748: what expired was still needed by what
// stayed.
func TestPain24Expiry(t *testing.T) {
	t.Parallel()
	d := newDays(t, newDatabase(200))
	for n := range 6 {
		d.databases[0].change(uint64(10+n), 200)
		_, err := d.backUp()
		require.NoError(t, err)
		d.pass(day)
	}
	all := d.bytes()

	d.pass(5 * day)
	var report *job.PruneReport
	for range 3 {
		var err error
		report, err = d.prune()
		require.NoError(t, err)
		d.pass(2 * day)
	}
	require.Len(t, d.backups(), 1)
	require.Less(t, d.bytes(), report.Needed.Bytes+16<<10, "what the last one needs, and a few records")
	require.Less(t, d.bytes(), all/2)

	// The last one needs none of those that are gone, although it shared customers with the first.
	loaded, err := d.load("")
	require.NoError(t, err)
	require.Equal(t, d.databases[0].tables, loaded.tables)
}

// velero #5004: the same of the volume snapshots at the provider.
func TestPain24VolumeSnapshots(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.bind("data", 1)
	c.bind("wal", 1)
	for range 3 {
		_, err := c.cut(t.Context())
		require.NoError(t, err)
		c.pass(day)
	}
	require.Len(t, c.aws.Snapshots(), 6)
	gone := c.backups()[1:]
	_, err := (&job.Prune{Repository: c.repository, Set: daysSet, IDs: gone, Force: true, Snapshotter: c.volumes, Provider: record.ProviderEBS}).Run(t.Context())
	require.NoError(t, err)
	require.Len(t, c.aws.Snapshots(), 2)
	orphans, err := (&job.Orphans{Repository: c.repository, Set: daysSet, Snapshotter: c.volumes, Provider: record.ProviderEBS, Cluster: "here", Clock: c.now}).Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, orphans.Needed)
	require.Empty(t, orphans.Missing)
	require.Empty(t, append(orphans.Orphans, orphans.Young...))
}
