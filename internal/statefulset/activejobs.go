package statefulset

import (
	"context"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// WaitBackups waits until no backup Job of the set is at work, whether a
// CronJob's or made by hand. ErrTimeout names those that are left.
func (c *Client) WaitBackups(ctx context.Context, set string, timeout time.Duration) error {
	var left []string
	err := c.until(ctx, timeout, func(ctx context.Context) (bool, error) {
		objects, err := c.backupCronJobs(ctx, set)
		if err != nil {
			return false, err
		}
		jobs, err := c.activeBackups(ctx, set, objects)
		if err != nil {
			return false, err
		}
		left = left[:0]
		for _, j := range jobs {
			left = append(left, j.Name)
		}
		return len(left) == 0, nil
	})
	return describeTimeout(err, timeout, "backup jobs of "+c.ref("statefulset", set)+" are still running: "+strings.Join(left, ", "))
}

// activeBackups finds backup Jobs that have a pod at work, by their owner and by
// their label. The CronJob's status.active does not list Jobs made by hand.
func (c *Client) activeBackups(ctx context.Context, set string, cronJobs []batchv1.CronJob) ([]batchv1.Job, error) {
	list, err := c.kube.BatchV1().Jobs(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(err, "list the jobs of namespace "+c.namespace)
	}
	return slices.DeleteFunc(list.Items, func(j batchv1.Job) bool {
		if finished(&j) || idle(&j) || j.Labels[labelComponent] == componentRestore {
			return true
		}
		labelled := j.Labels[LabelSet] == set && (j.Labels[labelComponent] == componentBackup || j.Labels[labelComponent] == "")
		owned := slices.ContainsFunc(cronJobs, func(o batchv1.CronJob) bool { return ownedBy(&j, o.UID) })
		return !labelled && !owned
	}), nil
}

func ownedBy(o metav1.Object, uid types.UID) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == uid })
}

// idle: the Job has no pod just now, because it waits to try again or has only
// been made. Its next pod will find the set's Lease taken, and must not be
// waited for: it may be this restore that makes it fail.
func idle(j *batchv1.Job) bool {
	dying := slices.ContainsFunc(j.Status.Conditions, func(cond batchv1.JobCondition) bool { return cond.Type == batchv1.JobFailureTarget })
	return j.Status.Active == 0 && deref(j.Status.Terminating) == 0 && !dying
}

// finished reports whether a Job has ended. A Job on a dead node whose
// deadline has passed is only FailureTarget: its pod may still be writing.
func finished(j *batchv1.Job) bool {
	return slices.ContainsFunc(j.Status.Conditions, func(cond batchv1.JobCondition) bool {
		return (cond.Type == batchv1.JobComplete || cond.Type == batchv1.JobFailed) && cond.Status == corev1.ConditionTrue
	})
}
