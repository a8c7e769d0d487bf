package statefulset

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Owner is what makes an object go with the run's Job; nothing outside of a Job.
func (r Run) Owner() []metav1.OwnerReference { return r.owner() }

// TemporaryClaim is the claim that a member's worker reads in the place of the
// member's own: like that, for one node, and the run's. It belongs to the run's Job,
// as no claim of a set ever does, and bears the labels of its worker and its name.
// Nothing is made here; who makes it fills it.
func (w *Workers) TemporaryClaim(ctx context.Context, m Member) (*corev1.PersistentVolumeClaim, error) {
	name := w.Claim(m).Name
	theirs, err := w.client.getClaim(ctx, name)
	if err != nil {
		return nil, err
	}
	if theirs == nil {
		return nil, fmt.Errorf("%s: %w", w.client.ref("claim", name), ErrNotFound)
	}
	class := theirs.Spec.StorageClassName
	if w.spec.Class != "" {
		class = &w.spec.Class
	}
	size := theirs.Spec.Resources.Requests[corev1.ResourceStorage]
	if has := theirs.Status.Capacity[corev1.ResourceStorage]; has.Cmp(size) > 0 {
		size = has
	}
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: w.name(m.Ordinal), Namespace: w.client.namespace, Labels: w.labels(m.Ordinal), OwnerReferences: w.run.owner()},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class, VolumeMode: theirs.Spec.VolumeMode,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		},
	}, nil
}

// RemoveClaim deletes the temporary claim of an ordinal, if there is one, and waits
// until it is gone. Its worker has to be gone already.
func (w *Workers) RemoveClaim(ctx context.Context, ordinal int) error {
	claim, err := w.client.getClaim(ctx, w.name(ordinal))
	if err != nil || claim == nil {
		return err
	}
	if claim.Labels[labelWorker] != workerOfFiles || claim.Labels[LabelRun] != w.run.ID {
		return fmt.Errorf("%s: %w: it is none of this run's: find out whose it is, and delete it", w.client.ref("claim", claim.Name), ErrClaimInUse)
	}
	return w.removeClaim(ctx, claim)
}

func (w *Workers) removeClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	ref := w.client.ref("claim", claim.Name)
	o := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(claim.UID))}
	err := w.client.kube.CoreV1().PersistentVolumeClaims(w.client.namespace).Delete(ctx, claim.Name, o)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		if err = explain(err, "delete "+ref); errors.Is(err, ErrForbidden) {
			err = fmt.Errorf("%w: add the component files-snapshots (deploy/cronjob/components/files-snapshots)", err)
		}
		return err
	}
	err = w.client.until(ctx, removeGrace, func(ctx context.Context) (bool, error) {
		now, err := w.client.getClaim(ctx, claim.Name)
		return err == nil && (now == nil || now.UID != claim.UID), err
	})
	return describeTimeout(err, removeGrace, ref+" does not go")
}

// RemoveLeft removes the temporary claims that runs of this set have left whose
// Jobs have ended or are gone, and before each the worker that may still read it.
// Another run that is under way keeps its own. The names come back.
func (w *Workers) RemoveLeft(ctx context.Context) (removed []string, err error) {
	with := map[string]string{labelManagedBy: product, LabelSet: w.set.Name, labelWorker: workerOfFiles}
	list, err := w.client.kube.CoreV1().PersistentVolumeClaims(w.client.namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(with).String()})
	if err != nil {
		return nil, explain(err, "list the temporary claims of "+w.client.ref("statefulset", w.set.Name))
	}
	for i := range list.Items {
		claim := &list.Items[i]
		if len(claim.OwnerReferences) == 0 { // none of ours, whatever it bears
			continue
		}
		ended, err := w.Ended(ctx, claim.OwnerReferences[0].Name, claim.Labels[LabelRun])
		if err != nil {
			return removed, err
		}
		if !ended {
			continue
		}
		if err := w.remove(ctx, claim.Name); err != nil {
			return removed, err
		}
		if err := w.removeClaim(ctx, claim); err != nil {
			return removed, err
		}
		removed = append(removed, claim.Name)
	}
	return removed, nil
}

// Ended tells of another run whether its Job has ended or is gone.
func (w *Workers) Ended(ctx context.Context, job, id string) (bool, error) {
	if id == w.run.ID {
		return false, nil
	}
	return w.client.jobEnded(ctx, RunInfo{ID: id, Job: job})
}
