package csi

import (
	"context"
	"errors"
	"fmt"
	"time"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// awaitCut waits until the point in time exists.
func (s *Snapshotter) awaitCut(ctx context.Context, vs *volumesnapshotv1.VolumeSnapshot) (*volumesnapshotv1.VolumeSnapshot, error) {
	w := waiting{
		namespace: vs.Namespace, name: vs.Name, what: "cut", bound: s.patience.Call, poll: min(s.patience.Poll, cutPoll), grace: s.grace,
		done: func(now *volumesnapshotv1.VolumeSnapshot) bool {
			return !cutAt(now, nil).IsZero() && contentName(now) != ""
		},
	}
	return s.await(ctx, w)
}

// awaitReady waits until a VolumeSnapshot can be provisioned from. That may
// take hours, and has no bound but the context's as long as nothing fails.
func (s *Snapshotter) awaitReady(ctx context.Context, namespace, name string) (*volumesnapshotv1.VolumeSnapshot, error) {
	w := waiting{
		namespace: namespace, name: name, what: "ready to use", poll: s.patience.Poll, grace: s.patience.Call, done: isReady,
	}
	return s.await(ctx, w)
}

func isReady(vs *volumesnapshotv1.VolumeSnapshot) bool {
	return vs.Status != nil && vs.Status.ReadyToUse != nil && *vs.Status.ReadyToUse
}

// waiting is what a VolumeSnapshot is waited for to become.
type waiting struct {
	namespace, name, what string
	// bound, poll: see until. grace: how long the status may show an error.
	bound, poll, grace time.Duration
	done               func(*volumesnapshotv1.VolumeSnapshot) bool
	// fatal makes an error of a status's error that need not be waited for; nil: none is.
	fatal func(text string) error
}

func (s *Snapshotter) await(ctx context.Context, w waiting) (*volumesnapshotv1.VolumeSnapshot, error) {
	var last *volumesnapshotv1.VolumeSnapshot
	var trouble complaint
	object := "VolumeSnapshot " + w.namespace + "/" + w.name
	err := s.until(ctx, w.bound, w.poll, func(ctx context.Context) (bool, error) {
		vs, err := s.readSnapshot(ctx, w.namespace, w.name)
		if err != nil {
			return false, err
		}
		if vs.DeletionTimestamp != nil {
			return false, fmt.Errorf("%s: %w: somebody is deleting it", object, snapshot.ErrFailed)
		}
		last = vs
		if w.done(vs) {
			return true, nil
		}
		text := statusError(vs)
		if w.fatal != nil && text != "" {
			if err := w.fatal(text); err != nil {
				return false, err
			}
		}
		if trouble.lasts(s.clock.Now(), text, w.grace) {
			return false, fmt.Errorf("%s: %w: not %s: %s", object, snapshot.ErrFailed, w.what, trouble.text)
		}
		return false, nil
	})
	switch {
	case errors.Is(err, errLate):
		return nil, fmt.Errorf("%s: %w: not %s after %s: %s", object, snapshot.ErrUnreachable, w.what, w.bound, standsAt(last))
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%s: not %s: %s: %w", object, w.what, standsAt(last), err)
	case err != nil:
		return nil, err
	}
	return last, nil
}

// standsAt says how far a VolumeSnapshot has come, and who has to act next.
func standsAt(vs *volumesnapshotv1.VolumeSnapshot) string {
	switch {
	case vs == nil:
		return "it could not be read"
	case statusError(vs) != "":
		return statusError(vs)
	case contentName(vs) == "":
		return "the snapshot-controller has not taken it up; is it running?"
	case cutAt(vs, nil).IsZero():
		return "the driver has not answered; is the csi-snapshotter beside it running?"
	}
	return "the driver has cut it and is still copying"
}

// WaitReady implements [snapshot.Snapshotter]. Where the VolumeSnapshot is
// gone, is another one now, or is in a namespace that we may not look into, its
// content is asked, if we may look for that: ErrNotFound when there is none.
// Even then a driver may still have the snapshot; only Prepare and Provision
// can ask it.
func (s *Snapshotter) WaitReady(ctx context.Context, r snapshot.Ref) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("wait for VolumeSnapshot %s/%s: %w", r.Namespace, r.Name, err)
	}
	vs, err := s.readSnapshot(ctx, r.Namespace, r.Name)
	if err == nil {
		same, isErr := s.isOf(ctx, vs, r)
		if same {
			_, err := s.awaitReady(ctx, r.Namespace, r.Name)
			return err
		}
		if err = isErr; err == nil {
			err = fmt.Errorf("VolumeSnapshot %s/%s: %w: what has its name now is another volume snapshot than that of %s",
				r.Namespace, r.Name, snapshot.ErrNotFound, r.CutAt.Format(time.RFC3339))
		}
	}
	if !missing(err) && !denied(err) {
		return err
	}
	content, lookErr := s.contentOf(ctx, r)
	switch {
	case content != nil:
		return s.awaitContent(ctx, content)
	case lookErr != nil && (denied(err) || !denied(lookErr)):
		return lookErr
	case denied(err):
		return fmt.Errorf("VolumeSnapshot %s/%s: %w: no VolumeSnapshotContent has the handle %s", r.Namespace, r.Name, snapshot.ErrNotFound, r.ID)
	}
	return err
}

// contentOf finds the content of r's snapshot without its VolumeSnapshot; nil
// if there is none.
func (s *Snapshotter) contentOf(ctx context.Context, r snapshot.Ref) (*volumesnapshotv1.VolumeSnapshotContent, error) {
	list, err := s.snapshots.SnapshotV1().VolumeSnapshotContents().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(err, "look for the VolumeSnapshotContent of snapshot "+r.ID)
	}
	for i := range list.Items {
		c := &list.Items[i]
		if c.Spec.Driver == r.Driver && c.DeletionTimestamp == nil && !bearsPurpose(c, purposeRestore) && (handleOf(c) == r.ID || contentPrefix+c.Name == r.ID) {
			return c, nil
		}
	}
	return nil, nil
}

// awaitContent waits until a content's snapshot can be provisioned from.
func (s *Snapshotter) awaitContent(ctx context.Context, content *volumesnapshotv1.VolumeSnapshotContent) error {
	var trouble complaint
	object := "VolumeSnapshotContent " + content.Name
	return s.until(ctx, 0, s.patience.Poll, func(ctx context.Context) (bool, error) {
		now, err := s.readContent(ctx, content.Name)
		if err != nil {
			return false, err
		}
		status := now.Status
		if status == nil || status.ReadyToUse != nil && *status.ReadyToUse {
			return status != nil, nil
		}
		text := ""
		if status.Error != nil && status.Error.Message != nil {
			text = *status.Error.Message
		}
		if trouble.lasts(s.clock.Now(), text, s.patience.Call) {
			return false, fmt.Errorf("%s: %w: not ready to use: %s", object, snapshot.ErrFailed, trouble.text)
		}
		return false, nil
	})
}

// isOf says whether a VolumeSnapshot is the one that r was made of, and not
// another one of the same name. Creation times in its status are whole seconds.
func (s *Snapshotter) isOf(ctx context.Context, vs *volumesnapshotv1.VolumeSnapshot, r snapshot.Ref) (bool, error) {
	if at := cutAt(vs, nil); at.IsZero() || at.Unix() != r.CutAt.Unix() {
		return false, nil
	}
	content, err := s.boundContent(ctx, vs)
	if err != nil {
		return false, err
	}
	id := idOf(vs, content)
	return id == r.ID || content == nil && id != "" || r.ID == contentPrefix+contentName(vs), nil
}
