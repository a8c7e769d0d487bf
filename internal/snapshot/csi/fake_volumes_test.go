package csi

import (
	"errors"
	"fmt"
	"strings"
	"time"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (f *fakeCluster) claims(t require.TestingT) []*corev1.PersistentVolumeClaim {
	list, err := listOf[*corev1.PersistentVolumeClaim](f.kube.Tracker(), claimsResource, "PersistentVolumeClaim")
	require.NoError(t, err)
	return list
}

func (f *fakeCluster) volumes(t require.TestingT) []*corev1.PersistentVolume {
	list, err := listOf[*corev1.PersistentVolume](f.kube.Tracker(), volumesResource, "PersistentVolume")
	require.NoError(t, err)
	return list
}

func (f *fakeCluster) cut(status *volumesnapshotv1.VolumeSnapshotContentStatus, disk string) {
	no := false
	content, ok := f.disks[disk]
	if !ok {
		status.Error, status.ReadyToUse = failure("failed to take snapshot of the volume "+disk+": there is no such disk"), &no
		return
	}
	handle, cut := f.next("cut"), &fakeCut{content: content, size: 1 << 30, at: time.Now()}
	f.cuts[handle] = cut
	at := cut.at.UnixNano()
	status.SnapshotHandle, status.CreationTime, status.RestoreSize, status.ReadyToUse, status.Error = &handle, &at, &cut.size, &no, nil
}

func (f *fakeCluster) findCut(status *volumesnapshotv1.VolumeSnapshotContentStatus, handle string) {
	cut, ok := f.cuts[handle]
	if !ok && !f.unlisted {
		no := false
		status.Error, status.ReadyToUse = failure("Failed to check and update snapshot content: can not find snapshot for snapshotID "+handle), &no
		return
	}
	yes, at := true, time.Now().UnixNano()
	status.SnapshotHandle, status.ReadyToUse, status.CreationTime = &handle, &yes, &at
	if ok {
		status.RestoreSize = &cut.size
	}
}

func (f *fakeCluster) syncClaim(c *corev1.PersistentVolumeClaim) error {
	if c.Status.Phase == corev1.ClaimBound || c.Spec.DataSource == nil || c.Spec.StorageClassName == nil {
		return nil
	}
	object, err := f.kube.Tracker().Get(storageResource, "", *c.Spec.StorageClassName)
	class, ok := object.(*storagev1.StorageClass)
	if apierrors.IsNotFound(err) {
		return nil // as with the real one, the claim waits for its class
	}
	if err != nil || !ok {
		return fmt.Errorf("read class %s: %w", *c.Spec.StorageClassName, err)
	}
	if waits(class) && !f.consumers[c.Namespace+"/"+c.Name] {
		return nil
	}
	handle, problem := f.restored(c, class)
	if f.failVolumes != "" {
		problem = f.failVolumes
	}
	if problem != "" {
		return f.event(c, problem)
	}
	f.disks[handle+"-copy"+string(c.UID)] = f.cuts[handle].content
	return f.bind(c, handle+"-copy"+string(c.UID))
}

func (f *fakeCluster) restored(c *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) (handle, problem string) {
	object, err := f.snaps.Tracker().Get(snapshotsResource, c.Namespace, c.Spec.DataSource.Name)
	vs, ok := object.(*volumesnapshotv1.VolumeSnapshot)
	if err != nil || !ok || !isReady(vs) {
		return "", "the snapshot is not ready"
	}
	content := f.content(contentName(vs))
	asked := c.Spec.Resources.Requests[corev1.ResourceStorage]
	switch handle = handleOf(content); {
	case content.Spec.Driver != class.Provisioner:
		return "", "the snapshot is of another driver"
	case f.cuts[handle] == nil:
		return "", "the driver has no snapshot " + handle
	case asked.Value() < restoreSize(vs):
		return "", "requested volume size is less than the size of the snapshot"
	}
	return handle, ""
}

func (f *fakeCluster) event(c *corev1.PersistentVolumeClaim, message string) error {
	name := "event-" + string(c.UID)
	if _, err := f.kube.Tracker().Get(eventsResource, c.Namespace, name); err == nil {
		return nil
	}
	return f.kube.Tracker().Add(&corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: name}, Type: corev1.EventTypeWarning, Reason: "ProvisioningFailed", Message: message,
		InvolvedObject: corev1.ObjectReference{UID: c.UID}, LastTimestamp: metav1.Now(),
	})
}

func (f *fakeCluster) bind(c *corev1.PersistentVolumeClaim, disk string) error {
	c = c.DeepCopy()
	size := c.Spec.Resources.Requests[corev1.ResourceStorage]
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + string(c.UID)},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: disk, FSType: "ext4"}},
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: size},
			ClaimRef:               &corev1.ObjectReference{Namespace: c.Namespace, Name: c.Name, UID: c.UID},
			StorageClassName:       *c.Spec.StorageClassName,
			NodeAffinity:           inZones("topology."+strings.TrimPrefix(driver, "csi.")+"/zone", f.zone),
		},
	}
	c.Spec.VolumeName = volume.Name
	c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: volume.Spec.Capacity}
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations["volume.kubernetes.io/storage-provisioner"] = driver
	return errors.Join(f.kube.Tracker().Add(volume), f.kube.Tracker().Update(claimsResource, c, c.Namespace))
}

func inZones(key string, zones ...string) *corev1.VolumeNodeAffinity {
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: zones}},
	}}}}
}
