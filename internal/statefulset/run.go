package statefulset

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Run is who we are: the Job that this process works for, which stays the same
// over its retries, and the pod that it runs in, which does not.
type Run struct {
	// ID is the Job's UID, or random outside of a Job.
	ID                               string
	JobName, JobUID, PodName, PodUID string
	// CronJob that the Job came from, if any.
	CronJob string
	// Created is when the Job was made; now, outside of a Job.
	Created time.Time
	// Scheduled is the tick that a CronJob's Job stands for, in UTC. Jobs made
	// by hand have none.
	Scheduled *time.Time
	// Index of an Indexed Job's pod, -1 otherwise, and how many there are.
	Index, Completions int
	// Local: not in a Job's pod.
	Local bool
}

// Self reads the pod's environment, which the CronJob's downward API fills,
// and the Job. Without KEEPSET_JOB_NAME it makes up a local run.
func (c *Client) Self(ctx context.Context, getenv func(string) string) (Run, error) {
	name := getenv("KEEPSET_JOB_NAME")
	if name == "" {
		id := make([]byte, 16)
		if _, err := rand.Read(id); err != nil {
			return Run{}, fmt.Errorf("make a run ID: %w", err)
		}
		return Run{ID: hex.EncodeToString(id), Created: c.clock.Now().UTC(), Index: -1, Completions: 1, Local: true}, nil
	}
	namespace := getenv("KEEPSET_POD_NAMESPACE")
	if namespace == "" {
		namespace = c.namespace
	}
	job, err := c.kube.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Run{}, explain(err, "read our own job "+namespace+"/"+name)
	}
	return newRun(job, getenv)
}

func newRun(job *batchv1.Job, getenv func(string) string) (Run, error) {
	r := Run{
		ID: string(job.UID), JobName: job.Name, JobUID: string(job.UID), Created: job.CreationTimestamp.UTC(),
		PodName: getenv("KEEPSET_POD_NAME"), PodUID: getenv("KEEPSET_POD_UID"), Index: -1, Completions: 1,
	}
	if uid := getenv("KEEPSET_JOB_UID"); uid != "" && uid != r.JobUID {
		return Run{}, fmt.Errorf("job %s/%s has UID %s, but this pod belongs to one with UID %s: it was replaced", job.Namespace, job.Name, r.JobUID, uid)
	}
	for _, o := range job.OwnerReferences {
		if o.Kind == "CronJob" {
			r.CronJob = o.Name
		}
	}
	// The annotation is in the CronJob's own zone.
	if at, err := time.Parse(time.RFC3339, job.Annotations[annotationScheduled]); err == nil {
		at = at.UTC()
		r.Scheduled = &at
	}
	if job.Spec.Completions != nil {
		r.Completions = int(*job.Spec.Completions)
	}
	index := getenv("JOB_COMPLETION_INDEX")
	if index == "" {
		return r, nil
	}
	n, err := strconv.Atoi(index)
	if err != nil || n < 0 || n >= r.Completions {
		return Run{}, fmt.Errorf("JOB_COMPLETION_INDEX %q does not fit job %s/%s with %d completions", index, job.Namespace, job.Name, r.Completions)
	}
	r.Index = n
	return r, nil
}

// holder identifies the process in a Lease: the run, and which of its pods.
func (r Run) holder() string { return r.ID + "/" + r.PodUID }

// owner makes an object the Job's, so that it goes with the Job. Never as its
// controller: the Job controller removes such a reference from a pod that its
// selector does not match.
func (r Run) owner() []metav1.OwnerReference {
	if r.JobUID == "" {
		return nil
	}
	return []metav1.OwnerReference{{APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job", Name: r.JobName, UID: types.UID(r.JobUID)}}
}
