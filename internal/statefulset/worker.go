package statefulset

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// workerTTL is how long a worker that has ended stays when the run that would
// have removed it is gone.
const workerTTL = 3600

// workerRetries of a worker's pod. What one that was killed has stored, the next
// one finds.
const workerRetries = 2

// removeGrace bounds the wait for a worker's pods to go.
const removeGrace = 2 * time.Minute

// Workers read the files of a set's claims, one Job for each ordinal, where the
// claim is. They belong to the run's own Job, and go with it at the latest.
type Workers struct {
	client   *Client
	set      Set
	template ClaimTemplate
	run      Run
	spec     WorkerSpec
	own      *batchv1.Job
	who      identity
	anchor   string // the node where workers have to run beside us, if any
	// StartTimeout bounds the wait for a worker's pod to start.
	startTimeout time.Duration
}

// NewWorkers reads the run's own Job, which the workers are made of, and finds out
// whose the files are. It changes nothing.
func (c *Client) NewWorkers(ctx context.Context, set Set, spec WorkerSpec, run Run, startTimeout time.Duration) (*Workers, error) {
	t, err := set.ClaimTemplate(spec.Template)
	if err != nil {
		return nil, err
	}
	w := &Workers{client: c, set: set, template: t, run: run, spec: spec, startTimeout: startTimeout}
	if w.who, err = spec.identity(set.object, t.Name); err != nil {
		return nil, err
	}
	if run.Local { // for a plan
		return w, nil
	}
	if w.own, err = c.ownJob(ctx, run); err != nil {
		return nil, err
	}
	w.anchor, err = c.anchor(ctx, run, w.own.Spec.Template.Spec)
	return w, err
}

// Claim is the one of a member that its worker reads.
func (w *Workers) Claim(m Member) Claim {
	i := slices.IndexFunc(m.Claims, func(c Claim) bool { return c.Template == w.template.Name })
	return m.Claims[i] // a member has a claim, there or not, of each template
}

// ClaimUser is a pod that uses a claim, and where.
type ClaimUser struct{ Pod, Node string }

// ClaimUsers are the pods, of whatever owner, that have the claims of the namespace
// mounted or are about to, by claim, but for workers, which read only.
func (c *Client) ClaimUsers(ctx context.Context) (map[string][]ClaimUser, error) {
	list, err := c.kube.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(err, "list the pods of namespace "+c.namespace)
	}
	users := map[string][]ClaimUser{}
	for i := range list.Items {
		pod := &list.Items[i]
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.Labels[labelWorker] != "" {
			continue
		}
		for _, v := range pod.Spec.Volumes {
			if v.PersistentVolumeClaim != nil {
				name := v.PersistentVolumeClaim.ClaimName
				users[name] = append(users[name], ClaimUser{pod.Name, pod.Spec.NodeName})
			}
		}
	}
	return users, nil
}

// name of an ordinal's worker: the same for every pod of the run's Job, so that
// one that was started anew finds it.
func (w *Workers) name(ordinal int) string {
	sum := sha256.Sum256([]byte(w.run.JobUID))
	return fmt.Sprintf("%.36s-files-%d-%x", w.set.Name, ordinal, sum[:4])
}

// labels of an ordinal's worker.
func (w *Workers) labels(ordinal int) map[string]string {
	labels := labelsOf(w.set.Name, componentBackup)
	labels[LabelOrdinal], labels[LabelRun], labels[labelWorker] = strconv.Itoa(ordinal), w.run.ID, workerOfFiles
	return labels
}

// job is the worker of a member. node is where it has to run; empty: anywhere.
func (w *Workers) job(m Member, node string, env map[string]string) *batchv1.Job {
	claim := w.Claim(m).Name
	if w.spec.Temporary {
		claim = w.name(m.Ordinal)
	}
	pod := workerPod(w.own.Spec.Template, w.who, claim, false)
	labels := w.labels(m.Ordinal)
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	maps.Copy(pod.Labels, labels)
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, w.set.object.Spec.Template.Spec.Tolerations...)
	if node != "" {
		pin(&pod.Spec, node)
	}
	setEnv(&pod.Spec.Containers[0], env)
	retries, ttl := int32(workerRetries), int32(workerTTL)
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: w.name(m.Ordinal), Namespace: w.client.namespace, Labels: labels, OwnerReferences: w.run.owner()},
		Spec: batchv1.JobSpec{
			Template: pod, BackoffLimit: &retries, TTLSecondsAfterFinished: &ttl,
			PodFailurePolicy: workerFailures(pod.Spec.Containers[0].Name),
		},
	}
	if limit := w.own.Spec.ActiveDeadlineSeconds; limit != nil {
		left := *limit - int64(w.client.clock.Since(w.run.Created).Seconds())
		left = max(left, 1)
		job.Spec.ActiveDeadlineSeconds = &left
	}
	return job
}

// workerFailures repeats what another try may mend: neither a suspect tree, nor a
// set that is held, nor a wrong configuration.
func workerFailures(container string) *batchv1.PodFailurePolicy {
	return &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
			ContainerName: &container, Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{4, 5, 64},
		}},
		{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
			{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
		}},
	}}
}

// Work has a worker read the member's claim, copies its log to out, waits until
// it has ended, and removes it. The worker is the run's own program with its own
// arguments and, besides, these variables. One that an earlier pod of the run has
// started is waited for. What the worker did, the repository says.
func (w *Workers) Work(ctx context.Context, m Member, node string, env map[string]string, out io.Writer) (result JobResult, err error) {
	switch {
	case node == "":
		node = w.anchor
	case w.anchor != "" && w.anchor != node:
		return result, fmt.Errorf("%s is in use on node %s, and the repository's claim, which can be mounted on one node only, on node %s: no pod can have both; take a claim for the repository that is ReadWriteMany, or a bucket",
			w.client.ref("claim", w.Claim(m).Name), node, w.anchor)
	}
	job, err := w.start(ctx, w.job(m, node, env))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.Remove(context.WithoutCancel(ctx), m.Ordinal)) }()
	return w.follow(ctx, job, out)
}

// start makes the worker, or finds it.
func (w *Workers) start(ctx context.Context, job *batchv1.Job) (*batchv1.Job, error) {
	jobs := w.client.kube.BatchV1().Jobs(w.client.namespace)
	for {
		created, err := jobs.Create(ctx, job, metav1.CreateOptions{FieldManager: fieldManager})
		if err == nil {
			w.client.log.Info("worker started", "job", job.Name, "ordinal", job.Labels[LabelOrdinal])
			return created, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			if err = explain(err, "create the worker "+w.client.ref("job", job.Name)); errors.Is(err, ErrForbidden) {
				err = fmt.Errorf("%w: add the component files (deploy/cronjob/components/files)", err)
			}
			return nil, err
		}
		there, err := jobs.Get(ctx, job.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return nil, explain(err, "read "+w.client.ref("job", job.Name))
		case there.Labels[LabelRun] != w.run.ID:
			return nil, fmt.Errorf("%s is none of this run's workers: delete it", w.client.ref("job", job.Name))
		case there.DeletionTimestamp == nil && !finished(there):
			w.client.log.Info("worker of an earlier attempt goes on", "job", job.Name)
			return there, nil
		}
		if err := w.remove(ctx, job.Name); err != nil {
			return nil, err
		}
	}
}

// follow waits for the end of a worker. One whose pod cannot start would be
// waited for until the run's own deadline, and nobody would know why.
func (w *Workers) follow(ctx context.Context, job *batchv1.Job, out io.Writer) (JobResult, error) {
	f := follower{
		client: w.client, ref: JobRef{job.Name, string(job.UID)}, out: out, seen: map[string]bool{},
		container: ownContainer(job.Spec.Template.Spec.Containers),
	}
	started := w.client.clock.Now()
	for {
		now, err := w.client.kube.BatchV1().Jobs(w.client.namespace).Get(ctx, job.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && now.UID != job.UID {
			return JobResult{ExitCode: 1, Message: "somebody has deleted it"}, nil
		}
		if err != nil {
			return JobResult{}, explain(err, "follow the worker "+w.client.ref("job", job.Name))
		}
		before := len(f.seen)
		if err := f.pods(ctx); err != nil {
			return JobResult{}, err
		}
		if finished(now) {
			return f.result(ctx, now)
		}
		if len(f.seen) > before || deref(now.Status.Ready) > 0 {
			started = w.client.clock.Now()
		}
		if w.client.clock.Since(started) > w.startTimeout {
			return JobResult{}, fmt.Errorf("the pod of the worker %s: %w: it has not started within %s: %s",
				w.client.ref("job", job.Name), ErrTimeout, w.startTimeout, orElse(f.told, "kubectl describe says why"))
		}
		if err := w.client.sleep(ctx, w.client.poll); err != nil {
			return JobResult{}, err
		}
	}
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// Remove deletes the worker of an ordinal, if there is one, and waits until its
// pods are gone: the claim may be wanted elsewhere. A temporary claim stays.
func (w *Workers) Remove(ctx context.Context, ordinal int) error {
	return w.remove(ctx, w.name(ordinal))
}

func (w *Workers) remove(ctx context.Context, name string) error {
	jobs := w.client.kube.BatchV1().Jobs(w.client.namespace)
	foreground := metav1.DeletePropagationForeground
	err := jobs.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &foreground})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return explain(err, "delete the worker "+w.client.ref("job", name))
	}
	err = w.client.until(ctx, removeGrace, func(ctx context.Context) (bool, error) {
		_, err := jobs.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, explain(err, "look whether "+w.client.ref("job", name)+" is gone")
	})
	return describeTimeout(err, removeGrace, "the worker "+w.client.ref("job", name)+" does not go")
}
