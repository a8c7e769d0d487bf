package job_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/command"
	"keepset/internal/job"
	"keepset/internal/record"
)

// Of a stream nobody knows what is in it: it has no tables that could be
// missing, and its bytes are what shrinks.
func TestStreamsAreJudgedByTheirBytes(t *testing.T) {
	rules := job.SuspectRules{ShrinkPercent: 50}
	report := record.Report{Bytes: 49, Objects: []record.Object{{Kind: record.KindStream, Rows: -1}}}
	require.Empty(t, rules.Judge(report, nil))
	require.Equal(t, []string{"bytes fell from 100 to 49 since the last good backup (51 %)"}, rules.Judge(report, &record.Commit{Bytes: 100, Objects: 1}))
}

// No seed pod can be filled from what a command printed: that is said before
// anything is touched.
func TestRestoreRefusesCommands(t *testing.T) {
	w := newWorld(t, 3, 3)
	b := w.backup()
	b.Plan.Engine = command.Name
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	c := newCluster(t, 2)
	_, err = c.restore(w, &databases{}, recovery, "run-1", "pod-1").Execute(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "restore load --engine command")
	for _, step := range c.steps {
		require.NotRegexp(t, "pods|claims|statefulsets|load", step)
	}
}

// Another engine's sizes say nothing of this one's.
func TestEnginesAreNotCompared(t *testing.T) {
	w := newWorld(t, 100)
	_, err := w.backup().Run(t.Context())
	require.NoError(t, err)
	w.servers[w.order[0]] = newServer(3)
	b := w.backup()
	b.Plan.Engine = "another"
	_, err = b.Run(t.Context())
	require.NoError(t, err)
	_, err = w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
}
