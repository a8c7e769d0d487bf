package job_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	core "k8s.io/client-go/testing"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// cluster is the API server as a restore sees it: finalizers hold, a seed pod
// starts, and the set's controller makes claims and pods. What a restore must
// never bring about is noted in wrong.
type cluster struct {
	t       *testing.T
	kube    *fake.Clientset
	tracker core.ObjectTracker
	// steps are the writes in their order, and what happened in databases.
	mu    sync.Mutex
	steps []string
	wrong []string
	// fail, if not nil, is asked before write number n.
	fail func(n int, a core.Action) error
	n    int
	uids int
	// refuses is what is said of a pod that is only tried.
	refuses error
	// filler is the exit code of seed pods that fill their claims by themselves.
	filler int32
	// process makes the requests, where they are those of one that is killed.
	process **process
}

const namespace = "shop"

// fillerContainer is that of the run's own Job, which such seed pods are made of.
const fillerContainer = "keepset"

func newCluster(t *testing.T, replicas int32) *cluster {
	t.Helper()
	no := false
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: namespace, UID: "set-uid"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "mysql", Ports: []corev1.ContainerPort{{ContainerPort: 3306}},
					VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/var/lib/mysql"}},
				}}},
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
		},
	}
	c := &cluster{t: t, kube: &fake.Clientset{}, tracker: core.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())}
	c.add(set)
	c.add(&batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "nightly", Namespace: namespace, Labels: map[string]string{statefulset.LabelSet: "db"}},
		Spec:       batchv1.CronJobSpec{Suspend: &no},
	})
	for i := range int(replicas) {
		c.add(c.claim(i, "pv-of-users"))
		c.add(c.pod(set, i))
	}
	c.kube.AddReactor("*", "*", c.react)
	return c
}

func (c *cluster) add(o runtime.Object) { require.NoError(c.t, c.tracker.Add(o)) }

func (c *cluster) claim(ordinal int, volume string) *corev1.PersistentVolumeClaim {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("data-db-%d", ordinal), Namespace: namespace, UID: c.uid()},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: volume},
	}
	if volume != "" {
		claim.Status.Phase = corev1.ClaimBound
	}
	return claim
}

func (c *cluster) pod(set *appsv1.StatefulSet, ordinal int) *corev1.Pod {
	yes := true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("db-%d", ordinal), Namespace: namespace, UID: c.uid(), Labels: set.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{{Kind: "StatefulSet", Name: set.Name, UID: set.UID, Controller: &yes}},
		},
	}
	running(pod)
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return pod
}

func running(pod *corev1.Pod) {
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: "10.0.0.7",
		ContainerStatuses: []corev1.ContainerStatus{{Name: "mysql", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
	}
}

func (c *cluster) uid() types.UID { c.uids++; return types.UID(fmt.Sprintf("uid-%d", c.uids)) }

func (c *cluster) step(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, fmt.Sprintf(format, args...))
}

// react is the API server's answer to one request. The clientset makes them
// one after the other.
func (c *cluster) react(a core.Action) (bool, runtime.Object, error) {
	if create, ok := a.(core.CreateActionImpl); ok && len(create.CreateOptions.DryRun) > 0 {
		return true, create.Object, c.refuses
	}
	scale := a.GetSubresource() == "scale"
	if verb := a.GetVerb(); verb == "get" || verb == "list" || verb == "watch" {
		if scale {
			return true, &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: *c.set().Spec.Replicas}}, nil
		}
		return core.ObjectReaction(c.tracker)(a)
	}
	if c.renewal(a) {
		return core.ObjectReaction(c.tracker)(a)
	}
	c.n++
	if c.fail != nil {
		if err := c.fail(c.n, a); err != nil {
			return true, nil, err
		}
	}
	name := nameOf(a)
	c.step("%s %s %s", a.GetVerb(), a.GetResource().Resource, name)
	switch {
	case scale:
		set := c.set()
		_, err := fmt.Sscanf(string(a.(core.PatchAction).GetPatch()[strings.Index(string(a.(core.PatchAction).GetPatch()), `"replicas"`):]), `"replicas":%d`, set.Spec.Replicas) //nolint:errcheck,forcetypeassert // only patches scale
		require.NoError(c.t, err)
		require.NoError(c.t, c.tracker.Update(a.GetResource(), set, namespace))
	case a.GetVerb() == "delete" && c.held(a, name):
		c.control()
		return true, nil, nil
	default:
		if create, ok := a.(core.CreateAction); ok && a.GetVerb() == "create" {
			c.born(create.GetObject())
		}
		handled, object, err := core.ObjectReaction(c.tracker)(a)
		if err == nil && a.GetVerb() == "patch" {
			c.letGo(a, object)
		}
		c.reclaim()
		c.control()
		return handled, object, err
	}
	c.control()
	return true, c.set(), nil
}

// renewal tells the Lease's regular renewals, which come when they come, from
// its being taken and given back.
func (c *cluster) renewal(a core.Action) bool {
	update, ok := a.(core.UpdateAction)
	if !ok || a.GetVerb() != "update" || a.GetResource().Resource != "leases" {
		return false
	}
	now := update.GetObject().(*coordinationv1.Lease) //nolint:errcheck,forcetypeassert // of a Lease
	o, err := c.tracker.Get(a.GetResource(), namespace, now.Name)
	require.NoError(c.t, err)
	before := o.(*coordinationv1.Lease) //nolint:errcheck,forcetypeassert // what is asked for
	return *before.Spec.HolderIdentity == *now.Spec.HolderIdentity && *before.Spec.LeaseTransitions == *now.Spec.LeaseTransitions
}

func nameOf(a core.Action) string {
	switch a := a.(type) {
	case core.CreateAction: // an update is one, too
		o, _ := a.GetObject().(metav1.Object)
		return o.GetName()
	case interface{ GetName() string }:
		return a.GetName()
	}
	return ""
}

// born gives a new object what the API server and the kubelet would.
func (c *cluster) born(o runtime.Object) {
	switch o := o.(type) {
	case *corev1.Pod:
		o.UID = c.uid()
		running(o)
		if o.Spec.Containers[0].Name == fillerContainer {
			c.step("fill with %s", strings.Join(o.Spec.Containers[0].Args, " "))
			o.Status.ContainerStatuses = []corev1.ContainerStatus{{
				Name: fillerContainer, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: c.filler}},
			}}
		}
		if init := o.Spec.InitContainers; len(init) > 0 && init[0].Name == "keepset-fill" {
			c.step("fill with %s", strings.Join(init[0].Args, " "))
			for _, name := range []string{"keepset-fill", "keepset-adopt"} {
				o.Status.InitContainerStatuses = append(o.Status.InitContainerStatuses, corev1.ContainerStatus{
					Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: c.filler}},
				})
			}
		}
	case *corev1.PersistentVolumeClaim:
		o.UID = c.uid()
	case *appsv1.StatefulSet:
		o.UID = c.uid()
	}
}

// held keeps a deleted object that has finalizers.
func (c *cluster) held(a core.Action, name string) bool {
	o, err := c.tracker.Get(a.GetResource(), namespace, name)
	if err != nil {
		return false
	}
	object, _ := o.(metav1.Object)
	if len(object.GetFinalizers()) == 0 {
		return false
	}
	now := metav1.Now()
	object.SetDeletionTimestamp(&now)
	require.NoError(c.t, c.tracker.Update(a.GetResource(), o, namespace))
	return true
}

// letGo removes a deleted object that has lost its last finalizer.
func (c *cluster) letGo(a core.Action, o runtime.Object) {
	object, ok := o.(metav1.Object)
	if ok && object.GetDeletionTimestamp() != nil && len(object.GetFinalizers()) == 0 {
		require.NoError(c.t, c.tracker.Delete(a.GetResource(), namespace, object.GetName()))
	}
}

var (
	setsResource   = appsv1.SchemeGroupVersion.WithResource("statefulsets")
	podsResource   = corev1.SchemeGroupVersion.WithResource("pods")
	claimsResource = corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")
)

func (c *cluster) set() *appsv1.StatefulSet {
	o, err := c.tracker.Get(setsResource, namespace, "db")
	require.NoError(c.t, err)
	return o.(*appsv1.StatefulSet) //nolint:errcheck,forcetypeassert // what is asked for
}

// control is the set's controller: for every ordinal that the set asks for it
// makes the claim, and the pod, unless the claim is going or the name is taken.
func (c *cluster) control() {
	if _, err := c.tracker.Get(setsResource, namespace, "db"); err != nil {
		return // it is not there yet
	}
	set := c.set()
	for i := range int(*set.Spec.Replicas) {
		o, err := c.tracker.Get(claimsResource, namespace, fmt.Sprintf("data-db-%d", i))
		if err != nil {
			c.add(c.claim(i, ""))
			continue // it comes back later for the pod
		}
		claim := o.(*corev1.PersistentVolumeClaim) //nolint:errcheck,forcetypeassert // what is asked for
		if _, err := c.tracker.Get(podsResource, namespace, fmt.Sprintf("db-%d", i)); err == nil || claim.DeletionTimestamp != nil {
			continue
		}
		if claim.Annotations[statefulset.AnnotationSeeding] != "" || claim.Annotations[statefulset.AnnotationSeeded] == "" && claim.Spec.VolumeName == "" {
			c.mu.Lock()
			c.wrong = append(c.wrong, fmt.Sprintf("db-%d was started on a claim without its data", i))
			c.mu.Unlock()
		}
		c.add(c.pod(set, i))
	}
}

// ended is the kubelet seeing the seed's database end.
func (c *cluster) ended(ordinal, code int) {
	o, err := c.tracker.Get(podsResource, namespace, fmt.Sprintf("db-%d", ordinal))
	require.NoError(c.t, err)
	pod := o.(*corev1.Pod)                                                                                                             //nolint:errcheck,forcetypeassert // what is asked for
	pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: int32(code)}} //nolint:gosec // an exit code
	require.NoError(c.t, c.tracker.Update(podsResource, pod, namespace))
}

func (c *cluster) client() *statefulset.Client { return statefulset.New(c.kube, namespace, nil) }

// databases are the servers of a restore: the seed's is empty when its pod is new.
type databases struct {
	c    *cluster
	exit int
	// lose is how many rows of each table a load drops.
	lose int
	// at is called at "load", "follow" and "shutdown"; its error is the server's.
	at func(step string) error
	// ready answers the first login, check the upstream, unfit whether files are the server's.
	ready, check, unfit error
}

type database struct {
	*fakeServer
	d *databases
}

func (d *databases) Target(string, bool) (dbdump.Engine, error) {
	return &database{&fakeServer{tables: map[string][]string{}, lose: d.lose}, d}, nil
}
func (d *databases) Ready(context.Context, string) error { return d.ready }
func (d *databases) Upstream(string) (dbdump.Upstream, error) {
	return dbdump.Upstream{Host: "db-0.db", Port: 3306}, nil
}

func (d *databases) did(step string) error {
	d.c.step("%s", step)
	if d.at != nil {
		return d.at(step)
	}
	return nil
}

func (s *database) Load(ctx context.Context, src dbdump.Source) (record.Report, error) {
	if err := s.d.did("load"); err != nil {
		return record.Report{}, err
	}
	return s.fakeServer.Load(ctx, src)
}

func (s *database) Check(context.Context, record.Coordinates, dbdump.Upstream) error {
	return s.d.check
}
func (s *database) Admits(context.Context, dbdump.Upstream) error  { return nil }
func (s *database) Lead(context.Context, record.Coordinates) error { return s.d.did("lead") }
func (s *database) Origin(_ context.Context, c record.Coordinates, _ dbdump.Upstream) (record.Coordinates, error) {
	return c, nil
}

func (s *database) Follow(context.Context, record.Coordinates, dbdump.Upstream) error {
	return s.d.did("follow")
}

func (s *database) Shutdown(context.Context) error {
	if err := s.d.did("shutdown"); err != nil {
		return err
	}
	s.d.c.ended(s.d.seeded(), s.d.exit)
	return nil
}

// seeded is the ordinal whose seed pod is there.
func (d *databases) seeded() int {
	for i := range 9 {
		o, err := d.c.tracker.Get(podsResource, namespace, fmt.Sprintf("db-%d", i))
		if pod, ok := o.(*corev1.Pod); err == nil && ok && slices.Contains(pod.Finalizers, statefulset.Finalizer) {
			return i
		}
	}
	return -1
}

// restore is a restore of run, by its pod of that name, from w's only set.
func (c *cluster) restore(w *world, d *databases, q job.Request, run, pod string) *job.Restore {
	d.c = c
	if q.Base == 0 {
		q.Base = -1
	}
	return &job.Restore{
		Repository: w.repo, Cluster: c.client(), Set: "db", From: testSet, Request: q, Servers: d,
		Run:   statefulset.Run{ID: run, JobName: "j", JobUID: run, PodUID: pod, Index: -1, Completions: 1},
		Seed:  statefulset.SeedSpec{DiscoverOptions: statefulset.DiscoverOptions{DefaultPort: 3306}, StartTimeout: 2 * time.Second},
		Lease: statefulset.LeaseOptions{Duration: time.Second}, ReadyWait: time.Second, ServerWait: time.Second,
		Clock: w.clock.Now, Log: slog.New(slog.DiscardHandler),
	}
}

// store leaves the plan that an earlier pod of the Job would have left, changed.
func (c *cluster) store(r *job.Restore, change func(*job.RestorePlan)) {
	plan, err := r.Resolve(c.t.Context())
	require.NoError(c.t, err)
	change(plan)
	data, err := json.Marshal(plan)
	require.NoError(c.t, err)
	_, existed, err := r.Cluster.FreezePlan(c.t.Context(), "db", r.Run, data)
	require.NoError(c.t, err)
	require.False(c.t, existed)
}

// hold makes the set's Lease another run's.
func (c *cluster) hold(run string) {
	resource := coordinationv1.SchemeGroupVersion.WithResource("leases")
	holder, token, seconds, now := run+"/pod-0", int32(7), int32(60), metav1.NewMicroTime(time.Now())
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: statefulset.LeaseName("db"), Namespace: namespace, ResourceVersion: "1"}}
	lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseTransitions: &token, LeaseDurationSeconds: &seconds, RenewTime: &now}
	if c.tracker.Update(resource, lease, namespace) != nil {
		c.add(lease)
	}
}

// backupRuns adds a Job of the CronJob's that has a pod at work.
func (c *cluster) backupRuns() {
	c.add(&batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "nightly-1", Namespace: namespace, Labels: map[string]string{statefulset.LabelSet: "db"}},
		Status:     batchv1.JobStatus{Active: 1},
	})
}
