package csi

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// contentPrefix begins the ID of a Ref whose snapshot handle we may not read.
// The name of the VolumeSnapshotContent follows, in which it stands.
const contentPrefix = "volumesnapshotcontent/"

// readContent reads a VolumeSnapshotContent.
func (s *Snapshotter) readContent(ctx context.Context, name string) (*volumesnapshotv1.VolumeSnapshotContent, error) {
	content, err := s.snapshots.SnapshotV1().VolumeSnapshotContents().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, explain(err, "read VolumeSnapshotContent "+name)
	}
	return content, nil
}

// readSnapshot reads a VolumeSnapshot.
func (s *Snapshotter) readSnapshot(ctx context.Context, namespace, name string) (*volumesnapshotv1.VolumeSnapshot, error) {
	vs, err := s.snapshots.SnapshotV1().VolumeSnapshots(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, explain(err, "read VolumeSnapshot "+namespace+"/"+name)
	}
	return vs, nil
}

// boundContent reads the content that a VolumeSnapshot is bound to, and nil
// where we may not look or there is none yet. A content that is bound to
// another VolumeSnapshot is an error: what a VolumeSnapshot's status says may
// have been written by anybody of its namespace.
func (s *Snapshotter) boundContent(ctx context.Context, vs *volumesnapshotv1.VolumeSnapshot) (*volumesnapshotv1.VolumeSnapshotContent, error) {
	name := contentName(vs)
	if name == "" {
		return nil, nil
	}
	content, err := s.readContent(ctx, name)
	switch {
	case denied(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if ref := content.Spec.VolumeSnapshotRef; ref.Namespace != vs.Namespace || ref.Name != vs.Name || ref.UID != "" && ref.UID != vs.UID {
		return nil, fmt.Errorf("VolumeSnapshot %s/%s: %w: it names VolumeSnapshotContent %s, which belongs to %s/%s",
			vs.Namespace, vs.Name, snapshot.ErrFailed, name, ref.Namespace, ref.Name)
	}
	return content, nil
}

// contentFor is boundContent, but that it also finds the content that the
// snapshot-controller has made for the VolumeSnapshot and not yet bound.
func (s *Snapshotter) contentFor(ctx context.Context, vs *volumesnapshotv1.VolumeSnapshot) (*volumesnapshotv1.VolumeSnapshotContent, error) {
	if contentName(vs) != "" {
		return s.boundContent(ctx, vs)
	}
	content, err := s.readContent(ctx, contentNameFor(vs))
	if denied(err) {
		return nil, nil
	}
	return content, err
}

// contentNameFor is the name of a VolumeSnapshot's content, which the
// snapshot-controller makes of its UID.
func contentNameFor(vs *volumesnapshotv1.VolumeSnapshot) string {
	return cmp.Or(contentName(vs), "snapcontent-"+string(vs.UID))
}

func contentName(vs *volumesnapshotv1.VolumeSnapshot) string {
	if vs.Status == nil || vs.Status.BoundVolumeSnapshotContentName == nil {
		return ""
	}
	return *vs.Status.BoundVolumeSnapshotContentName
}

// handleOf is the driver's name of a content's snapshot, empty if not known.
func handleOf(content *volumesnapshotv1.VolumeSnapshotContent) string {
	switch {
	case content == nil:
		return ""
	case content.Spec.Source.SnapshotHandle != nil:
		return *content.Spec.Source.SnapshotHandle
	case content.Status != nil && content.Status.SnapshotHandle != nil:
		return *content.Status.SnapshotHandle
	}
	return ""
}

// idOf is what a Ref keeps of a VolumeSnapshot: the handle, or where it cannot
// be read the name of the content. Empty where there is neither yet.
func idOf(vs *volumesnapshotv1.VolumeSnapshot, content *volumesnapshotv1.VolumeSnapshotContent) string {
	if handle := handleOf(content); handle != "" {
		return handle
	}
	if name := contentName(vs); name != "" {
		return contentPrefix + name
	}
	return ""
}

// handle finds the driver's name of r's snapshot.
func (s *Snapshotter) handle(ctx context.Context, r snapshot.Ref) (string, error) {
	name, blind := strings.CutPrefix(r.ID, contentPrefix)
	if !blind {
		return r.ID, nil
	}
	content, err := s.readContent(ctx, name)
	if err != nil {
		return "", fmt.Errorf("find the snapshot handle of %s: %w", r.Name, err)
	}
	if handle := handleOf(content); handle != "" && content.Spec.Driver == r.Driver {
		return handle, nil
	}
	return "", fmt.Errorf("find the snapshot handle of %s: %w: VolumeSnapshotContent %s has none of driver %s", r.Name, snapshot.ErrNotFound, name, r.Driver)
}

// cutAt is when a VolumeSnapshot was cut: to the nanosecond where its content
// can be read, else to the second. Zero: not yet.
func cutAt(vs *volumesnapshotv1.VolumeSnapshot, content *volumesnapshotv1.VolumeSnapshotContent) time.Time {
	if content != nil && content.Status != nil && content.Status.CreationTime != nil {
		return time.Unix(0, *content.Status.CreationTime).UTC()
	}
	if vs.Status == nil || vs.Status.CreationTime == nil {
		return time.Time{}
	}
	return vs.Status.CreationTime.UTC()
}

// restoreSize is the least size of a volume made from a VolumeSnapshot, in
// bytes; 0 if not known.
func restoreSize(vs *volumesnapshotv1.VolumeSnapshot) int64 {
	if vs.Status == nil || vs.Status.RestoreSize == nil {
		return 0
	}
	return vs.Status.RestoreSize.Value()
}

// statusError is the error that the controllers last met with, empty if none.
func statusError(vs *volumesnapshotv1.VolumeSnapshot) string {
	if vs.Status == nil || vs.Status.Error == nil {
		return ""
	}
	if m := vs.Status.Error.Message; m != nil && *m != "" {
		return *m
	}
	return "an error without a message"
}
