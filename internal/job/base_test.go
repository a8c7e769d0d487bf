package job

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/postgres"
	"keepset/internal/filetree"
	"keepset/internal/record"
)

// What a directory can be filled from is a backup of files, or of a server's
// files, and flags of the one are refused for the other.
func TestMethodsOfADirectory(t *testing.T) {
	for _, c := range []struct {
		method, files, base, want string
	}{
		{method: record.MethodFiles},
		{method: record.MethodFiles, files: "--include-path"},
		{method: record.MethodFiles, base: "--as-follower-of", want: "--as-follower-of goes with --method physical"},
		{method: record.MethodPhysical},
		{method: record.MethodPhysical, base: "--tablespace"},
		{method: record.MethodPhysical, files: "--include-path", want: "--include-path does not go with it"},
		{method: record.MethodDump, want: "captured by the method dump"},
		{method: record.MethodSnapshot, want: "captured by the method snapshot"},
	} {
		err := (&LoadFiles{FilesOnly: c.files, BaseOnly: c.base}).checkMethod(&record.Plan{Method: c.method})
		if c.want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, c.want)
	}
}

// A server's files are doubtful when they are much fewer than before, or of a
// standby that does not follow.
func TestJudgeBase(t *testing.T) {
	tree := record.Object{Kind: filetree.KindTree}
	r := record.Report{Layout: postgres.BaseLayout, Objects: []record.Object{tree}, Bytes: 100, Rows: 50}
	rules := SuspectRules{ShrinkPercent: 50}
	require.Empty(t, rules.Judge(r, nil))
	require.Empty(t, rules.Judge(r, &record.Commit{Bytes: 190, Rows: 1000}))
	require.Len(t, rules.Judge(r, &record.Commit{Bytes: 210, Rows: 50}), 1)
	r.Doubts = []string{"the server warns: skipping special file"}
	require.Equal(t, r.Doubts, rules.Judge(r, nil))
	r.Doubts = nil
	r.Coordinates.Upstream = &record.UpstreamCoordinates{Running: false}
	require.Len(t, rules.Judge(r, nil), 1)
}
