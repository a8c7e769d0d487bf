package statefulset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Who may have suspended a CronJob, beside a restore run by its ID.
const (
	// SuspendUser is `backup suspend`.
	SuspendUser = "user"
	// AnyRestore stands for every restore run.
	AnyRestore = "any-restore"
)

// CronJob is one that backs up a set.
type CronJob struct {
	Name, Schedule, TimeZone string
	Suspended                bool
	// SuspendedByRestore is the run that suspended it; SuspendedByUser is set
	// by `backup suspend`. Both are empty when somebody else did.
	SuspendedByRestore, SuspendedByUser string
	// Active are the names of its unfinished Jobs.
	Active                    []string
	LastSchedule, LastSuccess *time.Time
}

// BackupCronJobs finds the CronJobs that back up a set: by their label
// keepset/set, else by the set that their containers name.
func (c *Client) BackupCronJobs(ctx context.Context, set string) ([]CronJob, error) {
	objects, err := c.backupCronJobs(ctx, set)
	if err != nil || len(objects) == 0 {
		return nil, err
	}
	jobs, err := c.activeBackups(ctx, set, objects)
	if err != nil {
		return nil, err
	}
	list := make([]CronJob, len(objects))
	for i, o := range objects {
		list[i] = newCronJob(o)
		for _, j := range jobs {
			if ownedBy(&j, o.UID) {
				list[i].Active = append(list[i].Active, j.Name)
			}
		}
	}
	return list, nil
}

// PruneCronJobs finds the CronJobs that prune a set: those with the component's
// label that name the set, or none.
func (c *Client) PruneCronJobs(ctx context.Context, set string) ([]CronJob, error) {
	return c.cronJobsOf(ctx, componentPrune, set)
}

// VerifyCronJobs finds those that verify a set's backups, in the same way.
func (c *Client) VerifyCronJobs(ctx context.Context, set string) ([]CronJob, error) {
	return c.cronJobsOf(ctx, componentVerify, set)
}

func (c *Client) cronJobsOf(ctx context.Context, component, set string) ([]CronJob, error) {
	list, err := c.kube.BatchV1().CronJobs(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(err, "list the cronjobs of namespace "+c.namespace)
	}
	var found []CronJob
	for _, o := range list.Items {
		if o.Labels[labelComponent] != component && o.Spec.JobTemplate.Labels[labelComponent] != component {
			continue
		}
		if named, ok := o.Labels[LabelSet]; !ok || named == set {
			found = append(found, newCronJob(o))
		}
	}
	return found, nil
}

func newCronJob(o batchv1.CronJob) CronJob {
	j := CronJob{
		Name: o.Name, Schedule: o.Spec.Schedule, TimeZone: deref(o.Spec.TimeZone), Suspended: deref(o.Spec.Suspend),
		SuspendedByRestore: o.Annotations[AnnotationSuspendedByRestore], SuspendedByUser: o.Annotations[AnnotationSuspendedByUser],
	}
	if t := o.Status.LastScheduleTime; t != nil {
		j.LastSchedule = &t.Time
	}
	if t := o.Status.LastSuccessfulTime; t != nil {
		j.LastSuccess = &t.Time
	}
	return j
}

func (c *Client) backupCronJobs(ctx context.Context, set string) ([]batchv1.CronJob, error) {
	list, err := c.kube.BatchV1().CronJobs(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(err, "list the cronjobs of namespace "+c.namespace)
	}
	return slices.DeleteFunc(list.Items, func(o batchv1.CronJob) bool { return !c.backsUp(o, set) }), nil
}

// backsUp recognises a CronJob that backs up the set. A CronJob whose
// parameters come from a ConfigMap needs the label, because nothing here may
// read ConfigMaps.
func (c *Client) backsUp(o batchv1.CronJob, set string) bool {
	template := o.Spec.JobTemplate
	for _, other := range notBackups {
		if o.Labels[labelComponent] == other || template.Labels[labelComponent] == other {
			return false
		}
	}
	if named, ok := o.Labels[LabelSet]; ok {
		return named == set
	}
	for _, container := range template.Spec.Template.Spec.Containers {
		if named := setArgument(container); named == set || named == c.namespace+"/"+set {
			return o.Labels[labelName] == product || o.Labels[labelComponent] == componentBackup || runsBackup(container)
		}
	}
	return false
}

// setArgument is the set that a container of ours is told to work on.
func setArgument(container corev1.Container) string {
	words := append(slices.Clone(container.Command), container.Args...)
	for i, w := range words {
		if value, ok := strings.CutPrefix(w, "--set="); ok {
			return value
		}
		if w == "--set" && i+1 < len(words) {
			return words[i+1]
		}
	}
	for _, e := range container.Env {
		if e.Name == "KEEPSET_SET" {
			return e.Value
		}
	}
	return ""
}

func runsBackup(container corev1.Container) bool {
	return slices.ContainsFunc(container.Command, func(w string) bool { return w == "backup" || strings.HasSuffix(w, "/backup") })
}

// SuspendBackups suspends the CronJobs that back up the set, and records on
// each, in the same write, who did it. CronJobs that were suspended already by
// somebody else are left as they are. It returns the names of those that are
// now suspended by us. A CronJob that could not be changed does not keep the
// others from it.
func (c *Client) SuspendBackups(ctx context.Context, set, by string) ([]string, error) {
	return c.eachBackup(ctx, set, suspendBy(by))
}

// suspendBy is what SuspendBackups makes of one CronJob.
func suspendBy(by string) change {
	return func(o batchv1.CronJob) (*suspension, bool) {
		key, other := suspendKeys(by)
		if !deref(o.Spec.Suspend) {
			// Somebody has resumed it past us: a mark that is still there says nothing
			// any more, and would keep it suspended when we let it go.
			return &suspension{suspend: true, annotations: map[string]any{key: by, other: nil}}, true
		}
		if o.Annotations[key] == by {
			return nil, true
		}
		if o.Annotations[key] == "" && o.Annotations[other] == "" {
			return nil, false
		}
		return &suspension{suspend: true, annotations: map[string]any{key: by}}, true
	}
}

// ResumeBackups resumes exactly the CronJobs that by has suspended: a run's
// ID, AnyRestore, or SuspendUser. One that the user suspended as well stays
// suspended. It returns the names of those that by no longer suspends.
func (c *Client) ResumeBackups(ctx context.Context, set, by string) ([]string, error) {
	return c.eachBackup(ctx, set, resumeBy(by))
}

// resumeBy is what ResumeBackups makes of one CronJob.
func resumeBy(by string) change {
	return func(o batchv1.CronJob) (*suspension, bool) {
		key, other := suspendKeys(by)
		mark := o.Annotations[key]
		if mark == "" || by != AnyRestore && mark != by {
			return nil, false
		}
		// One that somebody has resumed meanwhile is not suspended again.
		return &suspension{suspend: deref(o.Spec.Suspend) && o.Annotations[other] != "", annotations: map[string]any{key: nil}}, true
	}
}

// PlanSuspend tells what SuspendBackups(set, by) would return, and with it the
// CronJobs as they would then be. It changes nothing.
func (c *Client) PlanSuspend(ctx context.Context, set, by string) (names []string, after []CronJob, err error) {
	return c.planBackups(ctx, set, suspendBy(by))
}

// PlanResume is PlanSuspend for ResumeBackups.
func (c *Client) PlanResume(ctx context.Context, set, by string) (names []string, after []CronJob, err error) {
	return c.planBackups(ctx, set, resumeBy(by))
}

// planBackups does what eachBackup does, on copies.
func (c *Client) planBackups(ctx context.Context, set string, change change) (names []string, after []CronJob, err error) {
	objects, err := c.backupCronJobs(ctx, set)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range objects {
		to, counts := change(o)
		if counts {
			names = append(names, o.Name)
		}
		j := newCronJob(o)
		if to != nil {
			to.apply(&j)
		}
		after = append(after, j)
	}
	return names, after, nil
}

// suspendKeys are the annotation that by leaves, and the other one.
func suspendKeys(by string) (key, other string) {
	if by == SuspendUser {
		return AnnotationSuspendedByUser, AnnotationSuspendedByRestore
	}
	return AnnotationSuspendedByRestore, AnnotationSuspendedByUser
}

// change decides on one CronJob: what to write, nil for nothing, and whether
// it counts among those that the caller suspends or resumes.
type change func(batchv1.CronJob) (to *suspension, counts bool)

// suspension is a change of one CronJob: what it is to be, and who did it.
type suspension struct {
	suspend     bool
	annotations map[string]any
}

// apply does to a copy what the patch does to the object.
func (s suspension) apply(j *CronJob) {
	j.Suspended = s.suspend
	for key, value := range s.annotations {
		by, _ := value.(string) // nil takes the annotation away
		switch key {
		case AnnotationSuspendedByRestore:
			j.SuspendedByRestore = by
		case AnnotationSuspendedByUser:
			j.SuspendedByUser = by
		}
	}
}

// patch is the merge patch for an object of this version.
func (s suspension) patch(version string) ([]byte, error) {
	return json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": s.annotations, "resourceVersion": version},
		"spec":     map[string]any{"suspend": s.suspend},
	})
}

// eachBackup patches the CronJobs of a set as change says. The object's
// version travels with the patch, so that a change made meanwhile is seen.
func (c *Client) eachBackup(ctx context.Context, set string, change change) ([]string, error) {
	objects, err := c.backupCronJobs(ctx, set)
	if err != nil {
		return nil, err
	}
	var names []string
	var failed []error
	for _, o := range objects {
		counts, err := c.changeCronJob(ctx, o, change)
		if err != nil {
			failed = append(failed, err)
		} else if counts {
			names = append(names, o.Name)
		}
	}
	return names, errors.Join(failed...)
}

func (c *Client) changeCronJob(ctx context.Context, o batchv1.CronJob, change change) (bool, error) {
	cronJobs := c.kube.BatchV1().CronJobs(c.namespace)
	for {
		to, counts := change(o)
		if to == nil {
			return counts, nil
		}
		data, err := to.patch(o.ResourceVersion)
		if err != nil {
			return false, fmt.Errorf("patch %s: %w", c.ref("cronjob", o.Name), err)
		}
		_, err = cronJobs.Patch(ctx, o.Name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: fieldManager})
		if !apierrors.IsConflict(err) {
			return counts, explain(err, "patch "+c.ref("cronjob", o.Name))
		}
		latest, err := cronJobs.Get(ctx, o.Name, metav1.GetOptions{})
		if err != nil {
			return false, explain(err, "read "+c.ref("cronjob", o.Name))
		}
		o = *latest
	}
}
