package statefulset

import (
	"context"
	"fmt"
	"maps"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// JobRef names a Job that was created.
type JobRef struct{ Name, UID string }

// CreateJobFrom does what `kubectl create job NAME --from=cronjob/CRONJOB`
// does, and sets variables of its container, which take precedence over the
// ConfigMap that the template reads. The template has to run the subcommand for
// which they were meant, "run" for example: another one would do something else
// with them. ErrNotFound says what it runs, or lists the CronJobs that exist.
// The name stays the user's: a second Job of the same name is refused.
func (c *Client) CreateJobFrom(ctx context.Context, cronJob, name string, env map[string]string, subcommand string) (JobRef, error) {
	from, err := c.getCronJob(ctx, cronJob)
	if err != nil {
		return JobRef{}, err
	}
	if words := commandOf(from); !slices.Contains(words, subcommand) {
		return JobRef{}, fmt.Errorf("%s: the subcommand %q: %w; its pods run %q: if that is what you want, make the Job with kubectl create job NAME --from=cronjob/%s, else name another with --cronjob",
			c.ref("cronjob", cronJob), subcommand, ErrNotFound, words, cronJob)
	}
	job := jobFrom(from, name, env)
	created, err := c.kube.BatchV1().Jobs(c.namespace).Create(ctx, job, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		return JobRef{}, fmt.Errorf("create %s: it exists already; choose another name or delete it", c.ref("job", name))
	}
	if err != nil {
		return JobRef{}, explain(err, "create "+c.ref("job", name))
	}
	return JobRef{Name: created.Name, UID: string(created.UID)}, nil
}

func (c *Client) getCronJob(ctx context.Context, name string) (*batchv1.CronJob, error) {
	o, err := c.kube.BatchV1().CronJobs(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return o, explain(err, "read "+c.ref("cronjob", name))
	}
	list, err := c.kube.BatchV1().CronJobs(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w; install deploy/cronjob first", c.ref("cronjob", name), ErrNotFound)
	}
	names := make([]string, 0, len(list.Items))
	for _, o := range list.Items {
		names = append(names, o.Name)
	}
	return nil, fmt.Errorf("%s: %w; namespace %s has %v; name one with --cronjob or install deploy/cronjob", c.ref("cronjob", name), ErrNotFound, c.namespace, names)
}

// commandOf are the words that the containers of a template run.
func commandOf(from *batchv1.CronJob) (words []string) {
	for _, c := range from.Spec.JobTemplate.Spec.Template.Spec.Containers {
		words = append(append(words, c.Command...), c.Args...)
	}
	return words
}

// jobFrom is kubectl's way to make a Job of a template.
func jobFrom(from *batchv1.CronJob, name string, env map[string]string) *batchv1.Job {
	template := from.Spec.JobTemplate.DeepCopy()
	annotations := map[string]string{annotationInstantiate: "manual"}
	maps.Copy(annotations, template.Annotations)
	yes := true
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: from.Namespace, Labels: template.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "CronJob", Name: from.Name, UID: from.UID, Controller: &yes,
			}},
		},
		Spec: template.Spec,
	}
	for i := range job.Spec.Template.Spec.Containers {
		setEnv(&job.Spec.Template.Spec.Containers[i], env)
	}
	return job
}

// setEnv sets variables in a stable order; existing ones are replaced.
func setEnv(container *corev1.Container, env map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		container.Env = slices.DeleteFunc(container.Env, func(e corev1.EnvVar) bool { return e.Name == name })
		container.Env = append(container.Env, corev1.EnvVar{Name: name, Value: env[name]})
	}
}
