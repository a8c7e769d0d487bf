package csi

import (
	"errors"
	"fmt"
	"time"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"
)

const (
	annotationBeingDeleted = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"
	finalizerFake          = "example.com/fake"
)

// listOf reads all objects of a resource from a tracker.
func listOf[T any](tracker clienttesting.ObjectTracker, r schema.GroupVersionResource, kind string) ([]T, error) {
	list, err := tracker.List(r, r.GroupVersion().WithKind(kind), "")
	if err != nil {
		return nil, err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	typed := make([]T, len(items))
	for i, item := range items {
		object, ok := item.(T)
		if !ok {
			return nil, fmt.Errorf("a %T among the %s", item, r.Resource)
		}
		typed[i] = object
	}
	return typed, nil
}

func (f *fakeCluster) volumeSnapshots(t require.TestingT) []*volumesnapshotv1.VolumeSnapshot {
	list, err := listOf[*volumesnapshotv1.VolumeSnapshot](f.snaps.Tracker(), snapshotsResource, "VolumeSnapshot")
	require.NoError(t, err)
	return list
}

func (f *fakeCluster) contents(t require.TestingT) []*volumesnapshotv1.VolumeSnapshotContent {
	list, err := listOf[*volumesnapshotv1.VolumeSnapshotContent](f.snaps.Tracker(), contentsResource, "VolumeSnapshotContent")
	require.NoError(t, err)
	return list
}

// step lets every controller look once.
func (f *fakeCluster) step() error {
	snapshots, err := listOf[*volumesnapshotv1.VolumeSnapshot](f.snaps.Tracker(), snapshotsResource, "VolumeSnapshot")
	if err != nil {
		return err
	}
	for _, vs := range snapshots {
		err = errors.Join(err, f.syncSnapshot(vs))
	}
	contents, listErr := listOf[*volumesnapshotv1.VolumeSnapshotContent](f.snaps.Tracker(), contentsResource, "VolumeSnapshotContent")
	err = errors.Join(err, listErr)
	for _, c := range contents {
		err = errors.Join(err, f.syncContent(c))
	}
	claims, listErr := listOf[*corev1.PersistentVolumeClaim](f.kube.Tracker(), claimsResource, "PersistentVolumeClaim")
	err = errors.Join(err, listErr)
	for _, c := range claims {
		err = errors.Join(err, f.syncClaim(c))
	}
	return err
}

func (f *fakeCluster) content(name string) *volumesnapshotv1.VolumeSnapshotContent {
	object, err := f.snaps.Tracker().Get(contentsResource, "", name)
	if err != nil {
		return nil
	}
	content, _ := object.(*volumesnapshotv1.VolumeSnapshotContent)
	return content
}

// syncSnapshot plays the snapshot-controller.
func (f *fakeCluster) syncSnapshot(vs *volumesnapshotv1.VolumeSnapshot) error {
	if vs.DeletionTimestamp != nil {
		return f.finishSnapshot(vs)
	}
	name := "snapcontent-" + string(vs.UID)
	prebound := vs.Spec.Source.VolumeSnapshotContentName != nil
	if prebound {
		name = *vs.Spec.Source.VolumeSnapshotContentName
	}
	content := f.content(name)
	status := &volumesnapshotv1.VolumeSnapshotStatus{}
	if vs.Status != nil {
		status = vs.Status.DeepCopy()
	}
	switch {
	case content == nil && prebound, content == nil && status.CreationTime != nil:
		status.Error = failure("VolumeSnapshotContent is missing")
	case content == nil:
		return f.makeContent(vs, name)
	case content.Spec.VolumeSnapshotRef.UID == "":
		content.Spec.VolumeSnapshotRef.UID = vs.UID
		return f.snaps.Tracker().Update(contentsResource, content, "")
	default:
		status.BoundVolumeSnapshotContentName = &name
		copyStatus(status, content.Status)
	}
	vs = vs.DeepCopy()
	vs.Status = status
	return f.snaps.Tracker().Update(snapshotsResource, vs, vs.Namespace)
}

// copyStatus carries a content's status over, in which times are in seconds.
func copyStatus(to *volumesnapshotv1.VolumeSnapshotStatus, from *volumesnapshotv1.VolumeSnapshotContentStatus) {
	if from == nil {
		return
	}
	to.ReadyToUse, to.Error = from.ReadyToUse, from.Error
	if from.CreationTime != nil && to.CreationTime == nil {
		at := metav1.NewTime(time.Unix(0, *from.CreationTime)).Rfc3339Copy()
		to.CreationTime = &at
	}
	if from.RestoreSize != nil {
		to.RestoreSize = resource.NewQuantity(*from.RestoreSize, resource.BinarySI)
	}
}

func failure(message string) *volumesnapshotv1.VolumeSnapshotError {
	return &volumesnapshotv1.VolumeSnapshotError{Message: &message}
}

// makeContent makes the content of a VolumeSnapshot that has a claim as source.
func (f *fakeCluster) makeContent(vs *volumesnapshotv1.VolumeSnapshot, name string) error {
	fail := func(message string) error {
		vs = vs.DeepCopy()
		vs.Status = &volumesnapshotv1.VolumeSnapshotStatus{Error: failure(message)}
		return f.snaps.Tracker().Update(snapshotsResource, vs, vs.Namespace)
	}
	classObject, err := f.snaps.Tracker().Get(classesResource, "", f.classFor(vs))
	class, ok := classObject.(*volumesnapshotv1.VolumeSnapshotClass)
	if err != nil || !ok {
		return fail("cannot find default snapshot class")
	}
	claimObject, err := f.kube.Tracker().Get(claimsResource, vs.Namespace, *vs.Spec.Source.PersistentVolumeClaimName)
	claim, ok := claimObject.(*corev1.PersistentVolumeClaim)
	if err != nil || !ok {
		return fail("cannot find the claim")
	}
	volumeObject, err := f.kube.Tracker().Get(volumesResource, "", claim.Spec.VolumeName)
	volume, ok := volumeObject.(*corev1.PersistentVolume)
	if err != nil || !ok {
		return fail("cannot find the volume")
	}
	content := &volumesnapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: vs.UID + "-content"},
		Spec: volumesnapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: vs.Namespace, Name: vs.Name, UID: vs.UID},
			DeletionPolicy:    class.DeletionPolicy, Driver: class.Driver,
			Source: volumesnapshotv1.VolumeSnapshotContentSource{VolumeHandle: &volume.Spec.CSI.VolumeHandle},
		},
	}
	return f.snaps.Tracker().Add(content)
}

// classFor is the class that a VolumeSnapshot names, or the default.
func (f *fakeCluster) classFor(vs *volumesnapshotv1.VolumeSnapshot) string {
	if vs.Spec.VolumeSnapshotClassName != nil {
		return *vs.Spec.VolumeSnapshotClassName
	}
	classes, err := listOf[*volumesnapshotv1.VolumeSnapshotClass](f.snaps.Tracker(), classesResource, "VolumeSnapshotClass")
	if err == nil {
		for _, c := range classes {
			if c.Annotations[annotationDefaultClass] == "true" {
				return c.Name
			}
		}
	}
	return ""
}

// syncContent plays the csi-snapshotter and the driver.
func (f *fakeCluster) syncContent(c *volumesnapshotv1.VolumeSnapshotContent) error {
	if c.DeletionTimestamp != nil {
		unbound := c.Spec.Source.SnapshotHandle != nil && c.Spec.VolumeSnapshotRef.UID == ""
		if c.Annotations[annotationBeingDeleted] == "" && !unbound {
			return nil
		}
		if c.Spec.DeletionPolicy == volumesnapshotv1.VolumeSnapshotContentDelete {
			delete(f.cuts, handleOf(c))
		}
		return f.snaps.Tracker().Delete(contentsResource, "", c.Name)
	}
	ready := c.Status != nil && c.Status.ReadyToUse != nil && *c.Status.ReadyToUse
	if ready || f.mute {
		return nil
	}
	c = c.DeepCopy()
	if c.Status == nil {
		c.Status = &volumesnapshotv1.VolumeSnapshotContentStatus{}
	}
	no, yes := false, true
	switch {
	case c.Spec.Source.SnapshotHandle != nil:
		f.findCut(c.Status, *c.Spec.Source.SnapshotHandle)
	case c.Status.SnapshotHandle == nil:
		f.cut(c.Status, *c.Spec.Source.VolumeHandle)
	case f.failCuts != "":
		c.Status.Error, c.Status.ReadyToUse = failure(f.failCuts), &no
	default:
		c.Status.Error, c.Status.ReadyToUse = nil, &yes
	}
	return f.snaps.Tracker().Update(contentsResource, c, "")
}

// deleteSoon only marks what is deleted; a later step removes it.
func (f *fakeCluster) deleteSoon(a clienttesting.Action) (bool, runtime.Object, error) {
	request, ok := a.(clienttesting.DeleteActionImpl)
	if !ok {
		return false, nil, nil
	}
	object, err := f.snaps.Tracker().Get(a.GetResource(), a.GetNamespace(), request.Name)
	if err != nil {
		return true, nil, err
	}
	m, err := meta.Accessor(object)
	if err != nil {
		return true, nil, err
	}
	if p := request.DeleteOptions.Preconditions; p != nil && p.UID != nil && *p.UID != m.GetUID() {
		gr := schema.GroupResource{Group: a.GetResource().Group, Resource: a.GetResource().Resource}
		return true, nil, apierrors.NewConflict(gr, request.Name, errors.New("the UID in the precondition is another one"))
	}
	now := metav1.Now()
	m.SetDeletionTimestamp(&now)
	m.SetFinalizers([]string{finalizerFake})
	return true, nil, f.snaps.Tracker().Update(a.GetResource(), object, a.GetNamespace())
}

// finishSnapshot removes a VolumeSnapshot that is being deleted, in the order
// in which the snapshot-controller does.
func (f *fakeCluster) finishSnapshot(vs *volumesnapshotv1.VolumeSnapshot) error {
	claims, err := listOf[*corev1.PersistentVolumeClaim](f.kube.Tracker(), claimsResource, "PersistentVolumeClaim")
	if err != nil {
		return err
	}
	for _, c := range claims {
		if c.Namespace == vs.Namespace && c.Status.Phase != corev1.ClaimBound && c.Spec.DataSource != nil && c.Spec.DataSource.Name == vs.Name {
			return nil // a claim is being made from it
		}
	}
	content := f.content(contentName(vs))
	if content == nil {
		content = f.content("snapcontent-" + string(vs.UID))
	}
	if content == nil {
		return f.snaps.Tracker().Delete(snapshotsResource, vs.Namespace, vs.Name)
	}
	content = content.DeepCopy()
	if content.Annotations == nil {
		content.Annotations = map[string]string{}
	}
	content.Annotations[annotationBeingDeleted] = "yes"
	if content.Spec.DeletionPolicy == volumesnapshotv1.VolumeSnapshotContentDelete && content.DeletionTimestamp == nil {
		now := metav1.Now()
		content.DeletionTimestamp = &now
		content.Finalizers = []string{finalizerFake}
	}
	if err := f.snaps.Tracker().Update(contentsResource, content, ""); err != nil {
		return err
	}
	if content.Spec.DeletionPolicy == volumesnapshotv1.VolumeSnapshotContentDelete {
		return nil // it goes when the content is gone
	}
	return f.snaps.Tracker().Delete(snapshotsResource, vs.Namespace, vs.Name)
}

// syncClaim plays the provisioner for claims that are made from a VolumeSnapshot.
// restored finds the handle that a claim is made from, or says what is wrong.
// bind gives a claim a volume.
