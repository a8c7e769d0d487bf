package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
	"keepset/internal/storage/dir"
)

// cutSet is a repository in a directory whose backups are snapshots that the
// fake of EC2 keeps in one region, with copies in another. The commands reach
// no cluster.
type cutSet struct {
	*stored
	aws  *ebstest.Server
	snap *ebs.Snapshotter
	repo *repository.Repository
}

var cutOwner = snapshot.Owner{Cluster: "c0ffee", Set: record.SetID{Namespace: "shop", Name: "mysql"}}

// newCutSet starts a fake whose clock is days behind, so that its snapshots are
// older than any running backup.
func newCutSet(t *testing.T) *cutSet {
	t.Helper()
	s := &cutSet{stored: &stored{root: t.TempDir(), env: map[string]string{}, now: time.Now()}}
	s.aws = ebstest.Start(t, ebstest.Options{
		SnapshotInterval: -1, Region: "us-east-1", Regions: map[string][]string{"us-east-1": {"us-east-1a"}, "eu-west-1": {"eu-west-1a"}},
		Clock: func() time.Time { return time.Now().Add(-5 * 24 * time.Hour) },
	})
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_EC2": s.aws.URL(), "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
		"AWS_EC2_METADATA_DISABLED": "true", "KUBECONFIG": s.root + "/none",
	} {
		t.Setenv(name, value)
	}
	volume, err := s.aws.CreateVolume(control.Volume{Zone: "us-east-1a", SizeGiB: 1, Type: "gp3"})
	require.NoError(t, err)
	s.snap, err = ebs.New(t.Context(), ebs.Options{
		Kube: fake.NewClientset(boundTo(volume.ID)...), Copies: []string{"eu-west-1"},
		Patience: snapshot.Patience{Call: 10 * time.Second, Poll: 2 * time.Millisecond},
	})
	require.NoError(t, err)
	t.Cleanup(s.snap.Close)
	store, err := dir.New(dir.Options{Path: s.root})
	require.NoError(t, err)
	_, err = repository.Init(t.Context(), store, repository.InitOptions{})
	require.NoError(t, err)
	s.repo, err = repository.Open(t.Context(), store, repository.Keys{}, repository.Options{})
	require.NoError(t, err)
	return s
}

// boundTo is the claim data-mysql-0, bound to a volume.
func boundTo(handle string) []runtime.Object {
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	return []runtime.Object{
		&corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data-mysql-0"},
			Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv-0"},
			Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
		},
		&corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv-0"},
			Spec: corev1.PersistentVolumeSpec{Capacity: size, PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com", VolumeHandle: handle, FSType: "ext4"},
			}},
		},
	}
}

// backup takes one whose snapshot is copied, and returns its ID.
func (s *cutSet) backup(t *testing.T) record.BackupID {
	t.Helper()
	b := &job.Backup{
		Repository: s.repo, Set: cutOwner.Set, ID: record.NewBackupID(time.Now(), ""), Attempt: record.NewAttemptID(),
		Plan: record.Plan{Method: record.MethodSnapshot, Engine: "mysql", Origin: cutOwner.Cluster},
		Discover: func(context.Context) (job.Inventory, error) {
			return job.Inventory{Replicas: 1, Members: []job.Member{{PlannedMember: record.PlannedMember{
				Name: "mysql-0", Claims: []record.Claim{{Name: "data-mysql-0", Template: "data"}},
			}}}}, nil
		},
		Volumes:  &job.VolumeCuts{Snapshotter: s.snap, Cluster: cutOwner.Cluster, Regions: []string{"eu-west-1"}},
		Parallel: 1, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
	}
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	return b.ID
}

// kept are the fake's snapshots by region.
func (s *cutSet) kept() map[string][]string {
	all := map[string][]string{}
	for _, one := range s.aws.Snapshots() {
		all[one.Region] = append(all[one.Region], one.ID)
	}
	return all
}

// TestCopiesInAnotherRegion are compared, and deleted with their backup, in both
// regions, whether or not the command line names the other one.
func TestCopiesInAnotherRegion(t *testing.T) {
	s := newCutSet(t)
	first, second := s.backup(t), s.backup(t)
	require.Len(t, s.kept()["us-east-1"], 2)
	require.Len(t, s.kept()["eu-west-1"], 2)
	verify := []string{"verify", "--set", "shop/mysql", "--orphans", "--snapshotter", "ebs"}
	code, out := s.run(t, verify...)
	assert.Zero(t, code, out)
	assert.Contains(t, out, "4 volume snapshots needed, 0 of them gone, 0 kept that no backup needs")

	code, out = s.run(t, "delete", "--set", "shop/mysql", "--snapshotter", "ebs", string(first))
	assert.Zero(t, code, out)
	assert.NotContains(t, out, "still there")
	for region, ids := range s.kept() {
		require.Len(t, ids, 1, region)
	}
	code, out = s.run(t, verify...)
	assert.Zero(t, code, out)
	assert.Contains(t, out, "2 volume snapshots needed, 0 of them gone, 0 kept that no backup needs")

	// What a run that died has left, in both regions.
	volumes, err := s.snap.Locate(t.Context(), []snapshot.Volume{{Owner: cutOwner, Namespace: "shop", Claim: "data-mysql-0", Template: "data"}})
	require.NoError(t, err)
	refs, err := s.snap.Cut(t.Context(), "died", volumes)
	require.NoError(t, err)
	require.NoError(t, s.snap.WaitReady(t.Context(), refs[0]))
	left, err := s.snap.Copy(t.Context(), refs[0], cutOwner, "eu-west-1")
	require.NoError(t, err)
	code, out = s.run(t, verify...)
	assert.Zero(t, code, out)
	assert.Contains(t, out, "2 kept that no backup needs")
	assert.Contains(t, out, "orphan: volume snapshot "+left.ID+" of claim data-mysql-0 in us-east-1")
	assert.Contains(t, out, "orphan: volume snapshot "+left.Copies[0].ID+" of claim data-mysql-0 in eu-west-1")

	// A copy that somebody has deleted.
	lost := ""
	for _, id := range s.kept()["eu-west-1"] {
		if id != left.Copies[0].ID {
			lost = id
		}
	}
	require.NoError(t, s.snap.Delete(t.Context(), cutOwner, snapshot.Ref{Provider: record.ProviderEBS, ID: lost, Region: "eu-west-1"}))
	code, out = s.run(t, verify...)
	assert.Equal(t, cli.ExitFailed, code, out)
	assert.Contains(t, out, "volume snapshot "+lost+" of claim data-mysql-0 in eu-west-1 is gone; harms "+string(second))
	assert.Equal(t, 1, strings.Count(out, "is gone;"))
}
