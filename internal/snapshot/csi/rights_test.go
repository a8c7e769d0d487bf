package csi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/snapshottest"
)

// The shipped Roles are enough for a backup, with the look at the cluster's
// objects and without it.
func TestShippedRolesOfABackup(t *testing.T) {
	for _, look := range []bool{true, false} {
		f := newFakeCluster(t)
		f.dropClass(t)
		f.addClass(t, "default", driver, volumesnapshotv1.VolumeSnapshotContentDelete, true)
		f.bound(t, newClaim("data-mysql-0"))
		rights := snapshottest.Granted(t, "keepset-backup", "csi-snapshots")
		if !look {
			for right := range rights {
				if _, resource, _ := strings.Cut(right, " "); resource == "persistentvolumes" || resource == "storageclasses" || strings.HasPrefix(resource, "volumesnapshotc") {
					delete(rights, right)
				}
			}
		}
		f.allow(rights)
		s := f.snapshotter()
		located, err := s.Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
		require.NoError(t, err)
		require.Equal(t, look, located[0].Handle != "", "the rule makes the difference")
		refs, err := s.Cut(t.Context(), cutName, located)
		require.NoError(t, err)
		require.Equal(t, look, !strings.HasPrefix(refs[0].ID, contentPrefix))
		require.NoError(t, s.WaitReady(t.Context(), refs[0]))
		for _, err := range s.List(t.Context(), testOwner) {
			require.NoError(t, err)
		}
		require.NoError(t, s.Delete(t.Context(), testOwner, refs[0]))
	}
}

// They are enough for a restore into the same namespace; into another one it
// takes the second component, and the error says so.
func TestShippedRolesOfARestore(t *testing.T) {
	f := retaining(t)
	r := f.cutOf(t, f.snapshotter())
	s := f.snapshotter()
	f.allow(snapshottest.Granted(t, "keepset-restore", "csi-snapshots"))
	here, elsewhere := target("shop", "data-mysql-2"), target("staging", "data-mysql-0")
	require.NoError(t, s.Prepare(t.Context(), r, here))
	require.NoError(t, s.Provision(t.Context(), r, here))
	require.NoError(t, s.Scrap(t.Context(), here))
	err := s.Provision(t.Context(), r, elsewhere)
	require.ErrorIs(t, err, snapshot.ErrDenied)
	require.ErrorContains(t, err, "components/csi-volume-restore")

	f.allow(snapshottest.Granted(t, "keepset-restore", "csi-snapshots", "csi-volume-restore"))
	require.NoError(t, s.Prepare(t.Context(), r, elsewhere))
	require.NoError(t, s.Provision(t.Context(), r, elsewhere))
	require.NoError(t, s.Scrap(t.Context(), elsewhere))
	require.NoError(t, s.Delete(t.Context(), testOwner, r), "under Retain")
	f.allow(nil)
	f.requireNoSnapshots(t)
}

// The remedies in errors name files and ClusterRoles that are there.
func TestRemediesExist(t *testing.T) {
	shipped := ""
	for _, c := range []string{"csi-snapshots", "csi-volume-restore"} {
		files, err := filepath.Glob("../../../deploy/cronjob/components/" + c + "/*.yaml")
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			shipped += string(text)
		}
	}
	for _, resource := range []string{"volumesnapshots", "persistentvolumeclaims", "persistentvolumes", "volumesnapshotcontents", "storageclasses"} {
		for _, verb := range []string{"get", "create"} {
			for word := range strings.FieldsSeq(remedy(resource, verb)) {
				switch {
				case strings.Contains(word, "/"):
					_, err := os.Stat("../../../" + word)
					require.NoError(t, err)
				case strings.HasPrefix(word, "keepset-"):
					require.Contains(t, shipped, "kind: ClusterRole\nmetadata:\n  name: "+word+"\n")
				}
			}
		}
	}
}
