package statefulset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// JobResult is how a Job ended.
type JobResult struct {
	Succeeded bool
	// ExitCode of its last pod's container, and the message that it left.
	ExitCode int
	Message  string
	// Reason that the Job gives for a failure, for example BackoffLimitExceeded.
	Reason string
}

// FollowJob copies the logs of the Job's pods to out, one after the other, and
// returns once the Job has ended. A pod that cannot start is reported to out,
// since the Job itself would say nothing. Leaving off (a cancelled context)
// does not stop the Job.
func (c *Client) FollowJob(ctx context.Context, ref JobRef, out io.Writer) (JobResult, error) {
	f := follower{client: c, ref: ref, out: out, seen: map[string]bool{}}
	for {
		job, err := c.kube.BatchV1().Jobs(c.namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil {
			return JobResult{}, explain(err, "follow "+c.ref("job", ref.Name))
		}
		if string(job.UID) != ref.UID {
			return JobResult{}, fmt.Errorf("follow %s: it was replaced by another one of the same name", c.ref("job", ref.Name))
		}
		f.container = ownContainer(job.Spec.Template.Spec.Containers)
		if err := f.pods(ctx); err != nil {
			return JobResult{}, err
		}
		if finished(job) {
			return f.result(ctx, job)
		}
		if err := c.sleep(ctx, c.poll); err != nil {
			return JobResult{}, fmt.Errorf("follow %s, which goes on: %w", c.ref("job", ref.Name), err)
		}
	}
}

// follower is one call of FollowJob.
type follower struct {
	client *Client
	ref    JobRef
	out    io.Writer
	// container of the Job's template: its pods may have been given others, by
	// a service mesh for example, whose logs and ends say nothing of the Job's.
	container string
	seen      map[string]bool
	told      string
}

// ownContainer names the container that does a Job's work.
func ownContainer(list []corev1.Container) string {
	if len(list) == 0 {
		return ""
	}
	return list[0].Name
}

func (f *follower) list(ctx context.Context) ([]corev1.Pod, error) {
	list, err := f.client.kube.CoreV1().Pods(f.client.namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.ControllerUidLabel + "=" + f.ref.UID})
	if err != nil {
		return nil, explain(err, "list the pods of "+f.client.ref("job", f.ref.Name))
	}
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return list.Items, nil
}

// pods copies the log of every pod that has one and was not copied yet.
func (f *follower) pods(ctx context.Context) error {
	pods, err := f.list(ctx)
	if err != nil {
		return err
	}
	for i := range pods {
		pod := &pods[i]
		if f.seen[pod.Name] {
			continue
		}
		if pod.Status.Phase == corev1.PodPending {
			if err := f.tell(pod); err != nil {
				return err
			}
			continue
		}
		f.seen[pod.Name] = true
		if err := f.copyLog(ctx, pod.Name); err != nil {
			return err
		}
	}
	return nil
}

// tell says once why a pod does not start.
func (f *follower) tell(pod *corev1.Pod) error {
	reason := podReason(pod)
	if reason == "" || reason == f.told {
		return nil
	}
	f.told = reason
	_, err := fmt.Fprintf(f.out, "pod %s waits: %s\n", pod.Name, reason)
	return err
}

func (f *follower) copyLog(ctx context.Context, pod string) error {
	body, err := f.client.kube.CoreV1().Pods(f.client.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: f.container, Follow: true}).Stream(ctx)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsForbidden(err) {
		// Such as of a pod that was evicted before its container started.
		f.client.log.Warn("log of the pod cannot be read", "pod", pod, "error", err)
		return nil
	}
	if err != nil {
		return explain(err, "read the log of "+f.client.ref("pod", pod))
	}
	_, err = io.Copy(f.out, body)
	if err := errors.Join(err, body.Close()); err != nil {
		// The Job goes on without us listening; its end is read from its status.
		f.client.log.Warn("log of the pod broke off", "pod", pod, "error", err)
	}
	return ctx.Err()
}

func (f *follower) result(ctx context.Context, job *batchv1.Job) (JobResult, error) {
	var r JobResult
	for _, cond := range job.Status.Conditions {
		if cond.Status != corev1.ConditionTrue {
			continue
		}
		r.Succeeded = r.Succeeded || cond.Type == batchv1.JobComplete
		if cond.Type == batchv1.JobFailed {
			r.Reason = cond.Reason
		}
	}
	pods, err := f.list(ctx)
	if err != nil {
		return r, err
	}
	for _, pod := range pods {
		for _, s := range pod.Status.ContainerStatuses {
			if t := s.State.Terminated; t != nil && s.Name == f.container {
				r.ExitCode, r.Message = int(t.ExitCode), t.Message
			}
		}
	}
	if !r.Succeeded && r.ExitCode == 0 {
		r.ExitCode = 1
	}
	return r, nil
}
