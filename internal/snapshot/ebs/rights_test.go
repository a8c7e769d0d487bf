package ebs_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/snapshottest"
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

// TestShippedRolesOfARestore: what deploy/ grants is enough for a claim with a class, with the default one, with a class of
// attributes, and for one that is never bound, of which the Events tell why.
func TestShippedRolesOfARestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.Patience.Call = 500 * time.Millisecond })
	class, err := w.kube.StorageV1().StorageClasses().Get(t.Context(), className, metav1.GetOptions{})
	require.NoError(t, err)
	class.Annotations = map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
	_, err = w.kube.StorageV1().StorageClasses().Update(t.Context(), class, metav1.UpdateOptions{})
	require.NoError(t, err)
	fast := "fast"
	_, err = w.kube.StorageV1().VolumeAttributesClasses().Create(t.Context(), &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: fast}, DriverName: driver, Parameters: map[string]string{"iops": "4000"},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	larger, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Create(t.Context(), sized(target("data-mysql-5"), "5Gi").Claim, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = w.kube.CoreV1().Events(namespace).Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "e", Namespace: namespace},
		InvolvedObject: corev1.ObjectReference{Kind: "PersistentVolumeClaim", Name: "data-mysql-5", UID: larger.UID},
		Reason:         "VolumeMismatch", Message: "requested PV is too small",
	}, metav1.CreateOptions{})
	require.NoError(t, err)

	rights := snapshottest.Granted(t, "keepset-restore", "volume-rights")
	o := w.options()
	o.Patience.Call = 500 * time.Millisecond
	kube := fake.NewClientset()
	kube.PrependReactor("*", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if !rights[a.GetVerb()+" "+a.GetResource().Resource] {
			return true, nil, apierrors.NewForbidden(a.GetResource().GroupResource(), "", errors.New(a.GetVerb()+" is not granted"))
		}
		object, err := w.kube.Invokes(a, nil)
		return true, object, err
	})
	o.Kube = kube
	s := w.open(t, o)
	plain, byDefault, attributes := target("data-mysql-2"), target("data-mysql-3"), sized(target("data-mysql-4"), "20Gi")
	byDefault.Claim.Spec.StorageClassName, attributes.Claim.Spec.VolumeAttributesClassName = nil, &fast
	for _, target := range []snapshot.Target{plain, byDefault, attributes} {
		require.NoError(t, s.Prepare(t.Context(), ref, target), target.Claim.Name)
		require.NoError(t, s.Provision(t.Context(), ref, target), target.Claim.Name)
	}
	late := target("data-mysql-5")
	require.NoError(t, s.Prepare(t.Context(), ref, late))
	err = s.Provision(t.Context(), ref, late)
	require.ErrorIs(t, err, snapshot.ErrUnfit)
	require.ErrorContains(t, err, "requested PV is too small")
	require.NoError(t, s.Scrap(t.Context(), late))
}
