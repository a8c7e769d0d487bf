package statefulset

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A run that was killed between its finalizer and the deletion has not touched
// the data: whoever comes next needs consent of his own.
func TestClaimHeldButNotDeletedIsInUse(t *testing.T) {
	seed := &Seed{client: New(nil, "mysql", nil), run: Run{ID: "run-b"}, set: Set{Name: "db"}, spec: SeedSpec{ClaimTemplates: []string{"data"}}}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data-db-1", Finalizers: []string{Finalizer}},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv-1"},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
	judge := func() SeedStatus {
		return seed.judge(seen{claims: map[string]*corev1.PersistentVolumeClaim{claim.Name: claim}})
	}
	require.Equal(t, SeedClaimsExist, judge().State)
	require.ErrorIs(t, seed.consent(judge()), ErrClaimInUse)

	now := metav1.Now()
	claim.DeletionTimestamp = &now
	require.Equal(t, SeedHalf, judge().State, "deleted, it is lost already")
}
