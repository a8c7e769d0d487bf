package statefulset

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
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

// A claim that was deleted and made anew while its seed was at its end is
// empty: the ordinal is not marked as loaded.
func TestMarkLoadedKnowsItsClaims(t *testing.T) {
	run := Run{ID: "run-a"}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "db-1", Namespace: "mysql", Labels: labelsOf("db", componentSeed)}}
	pod.Labels[LabelRun] = run.ID
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data-db-1", Namespace: "mysql", Annotations: map[string]string{AnnotationSeeding: run.ID}}}
	mark := func(claim *corev1.PersistentVolumeClaim) (*corev1.Pod, error) {
		c := New(fake.NewClientset(pod.DeepCopy(), claim), "mysql", nil)
		seed := &Seed{
			client: c, run: run, set: Set{Name: "db"}, spec: SeedSpec{Ordinal: 1, ClaimTemplates: []string{"data"}},
			pod: pod, fence: func(context.Context) error { return nil },
		}
		err := seed.MarkLoaded(t.Context(), "backup-1")
		now, readErr := c.getPod(t.Context(), pod.Name)
		require.NoError(t, readErr)
		return now, err
	}
	marked, err := mark(claim.DeepCopy())
	require.NoError(t, err)
	require.Equal(t, "backup-1", marked.Annotations[AnnotationLoaded])

	claim.Annotations = nil
	marked, err = mark(claim)
	require.ErrorIs(t, err, ErrSeedFailed)
	require.ErrorContains(t, err, "data-db-1")
	require.Empty(t, marked.Annotations[AnnotationLoaded])
}

// A claim of a loaded seed is deleted, or made anew, between the mark and the release,
// which are days apart where a run was killed: the real pod would start on an empty
// one. Neither a retry nor abort lets the name go.
func TestLoadedSeedWhoseClaimIsNoLongerItsOwnIsNotReleased(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	for name, change := range map[string]func(*corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim{
		"it is": func(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim { return claim },
		"deleted, and still mounted": func(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
			claim.DeletionTimestamp, claim.Finalizers = &metav1.Time{Time: metav1.Now().Time}, []string{"kubernetes.io/pvc-protection"}
			return claim
		},
		"made anew": func(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
			claim.Annotations = nil
			return claim
		},
		"gone": func(*corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			seed, pod := buildSeed(t, set, SeedSpec{Ordinal: 0})
			pod = pod.DeepCopy()
			pod.Annotations[AnnotationLoaded] = "backup-1"
			kube := fake.NewClientset(set, pod)
			claim := change(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
				Name: "data-mysql-0", Namespace: set.Namespace, UID: "filled",
				Annotations: map[string]string{AnnotationSeeded: "backup-1", AnnotationSeededRun: "run-1"},
			}})
			if claim != nil {
				require.NoError(t, kube.Tracker().Add(claim))
			}
			c := New(kube, set.Namespace, nil)
			seed.client, seed.fence = c, func(context.Context) error { return nil }
			status, err := seed.Inspect(t.Context())
			require.NoError(t, err)
			left, err := c.Leftovers(t.Context(), set.Name)
			require.NoError(t, err)
			require.Equal(t, "backup-1", left.Seeds[0].LoadedBackup)
			if name == "it is" {
				require.Equal(t, SeedLoaded, status.State)
				require.NoError(t, seed.Release(t.Context()))
				return
			}
			require.Equal(t, SeedHalf, status.State)
			require.ErrorContains(t, seed.Release(t.Context()), "its name stays held")
			_, err = c.Abort(t.Context(), set.Name, Run{ID: "abort", PodUID: "p", Local: true}, AbortOptions{})
			require.ErrorIs(t, err, ErrHeld)
			now, err := c.getPod(t.Context(), pod.Name)
			require.NoError(t, err)
			require.NotNil(t, now)
			require.Nil(t, now.DeletionTimestamp)
		})
	}
}

func TestPasswordsOfImagesAreNotQuoted(t *testing.T) {
	const log = "a\n2026 [Note] [Entrypoint]: GENERATED ROOT PASSWORD: s3cret\nA temporary password is generated for root@localhost: s3cret\nb"
	require.Equal(t, "a\n(a line with a password)\n(a line with a password)\nb", tellsPassword.ReplaceAllString(log, "(a line with a password)"))
}

// A killed attempt has let the seed pod go, which takes its time: the next one
// sees it loaded, and then gone, or the real pod in its place.
func TestReleaseOfASeedThatGoes(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	for name, then := range map[string]*corev1.Pod{
		"gone":     nil,
		"the real": {ObjectMeta: metav1.ObjectMeta{Name: "mysql-2", Namespace: set.Namespace, UID: "real", Labels: map[string]string{"app": "mysql"}}},
	} {
		t.Run(name, func(t *testing.T) {
			seed, pod := buildSeed(t, set, SeedSpec{Ordinal: 2})
			pod = pod.DeepCopy()
			pod.Annotations[AnnotationLoaded] = "backup-1"
			kube := fake.NewClientset(set, pod, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
				Name: "data-mysql-2", Namespace: set.Namespace, Annotations: map[string]string{AnnotationSeededRun: "run-1"},
			}})
			looks := 0
			kube.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				if looks++; looks == 1 {
					return false, nil, nil
				}
				if then == nil {
					return true, nil, apierrors.NewNotFound(corev1.Resource("pods"), pod.Name)
				}
				return true, then, nil
			})
			kube.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				t.Error("a pod that is no seed was deleted")
				return false, nil, nil
			})
			seed.client = New(kube, set.Namespace, nil)
			seed.fence = func(context.Context) error { return nil }
			require.NoError(t, seed.Release(t.Context()))
		})
	}
}
