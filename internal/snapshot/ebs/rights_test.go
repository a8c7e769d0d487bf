package ebs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
)

// TestCheckRights names what is missing, and makes nothing.
func TestCheckRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0", "log-mysql-0")
	require.NoError(t, w.snap.CheckRights(t.Context(), volumes))
	w.aws.Allow(accessKey, "ec2:Describe*", "ec2:CreateTags")
	err := w.snap.CheckRights(t.Context(), volumes)
	require.ErrorIs(t, err, snapshot.ErrDenied)
	require.ErrorContains(t, err, "ec2:CreateSnapshot of")
	require.ErrorContains(t, err, "ec2:CreateSnapshots of")
	require.NotContains(t, err.Error(), "ec2:DescribeInstances of")
	require.Empty(t, w.aws.Snapshots())
}
