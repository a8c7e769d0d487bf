package pains

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	core "k8s.io/client-go/testing"

	"keepset/internal/job"
	"keepset/internal/statefulset"
)

// cluster is a Kubernetes with the StatefulSet db in the namespace shop: finalizers hold, pods run as soon as they are
// made, and the set's controller makes claims and pods, whatever is in them. What the users find is [cluster.found].
type cluster struct {
	t       *testing.T
	kube    *fake.Clientset
	tracker core.ObjectTracker
	// found are the rows of the database in the set's own pod, by ordinal, when that was last started.
	found map[int]int
	// changed are pods and claims that were made or deleted.
	changed []string
	// seed is the database in the latest seed pod; deaf lets it take a load in without a word, and drop it.
	seed *database
	deaf bool
	made int
}

const (
	namespace = "shop"
	before    = 7 // rows on a volume that the cluster begins with
)

var (
	setsResource   = appsv1.SchemeGroupVersion.WithResource("statefulsets")
	podsResource   = corev1.SchemeGroupVersion.WithResource("pods")
	claimsResource = corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")
)

// newCluster has a set of so many replicas, and bound claims of the ordinals below claims.
func newCluster(t *testing.T, replicas int32, claims int) *cluster {
	t.Helper()
	c := &cluster{
		t: t, kube: &fake.Clientset{}, tracker: core.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder()),
		found: map[int]int{}, seed: newDatabase(0),
	}
	require.NoError(t, c.tracker.Add(statefulSet(replicas, "data")))
	for ordinal := range claims {
		claim := claimOf("data", ordinal)
		claim.Spec.VolumeName, claim.Status.Phase = fmt.Sprintf("pv-%d", ordinal), corev1.ClaimBound
		require.NoError(t, c.tracker.Add(c.identified(claim)))
	}
	c.control()
	c.changed = nil
	c.kube.AddReactor("*", "*", c.react)
	return c
}

// statefulSet is the set db with a database in it, and a claim for each template.
func statefulSet(replicas int32, templates ...string) *appsv1.StatefulSet {
	labels := map[string]string{"app": "db"}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: namespace, UID: "uid-of-db"}}
	set.Spec.Replicas, set.Spec.ServiceName, set.Spec.Selector = &replicas, "db", &metav1.LabelSelector{MatchLabels: labels}
	database := corev1.Container{Name: "mysql", Ports: []corev1.ContainerPort{{ContainerPort: 3306}}}
	for _, name := range templates {
		claim := claimOf(name, 0)
		claim.ObjectMeta = metav1.ObjectMeta{Name: name}
		set.Spec.VolumeClaimTemplates = append(set.Spec.VolumeClaimTemplates, *claim)
		database.VolumeMounts = append(database.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
	}
	set.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{database}}}
	return set
}

// claimOf is an ordinal's claim as the set's controller makes it.
func claimOf(template string, ordinal int) *corev1.PersistentVolumeClaim {
	class := className
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Name: statefulset.ClaimName(template, "db", ordinal), Namespace: namespace, Labels: map[string]string{"app": "db"},
	}}
	claim.Spec.StorageClassName, claim.Spec.AccessModes = &class, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	return claim
}

// podOf is the set's own pod of an ordinal, Ready as its probe takes an empty database for a good one.
func podOf(ordinal int) *corev1.Pod {
	yes := true
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprintf("db-%d", ordinal), Namespace: namespace, Labels: map[string]string{"app": "db"},
		OwnerReferences: []metav1.OwnerReference{{Kind: "StatefulSet", Name: "db", UID: "uid-of-db", Controller: &yes}},
	}}
	running(pod)
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return pod
}

func running(pod *corev1.Pod) {
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.7", ContainerStatuses: []corev1.ContainerStatus{
		{Name: "mysql", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
	}}
}

// identified gives an object a UID, as the API server does.
func (c *cluster) identified(o runtime.Object) runtime.Object {
	object, err := meta.Accessor(o)
	require.NoError(c.t, err)
	c.made++
	object.SetUID(types.UID(fmt.Sprintf("uid-%d", c.made)))
	return o
}

// react answers a request. The clientset makes them one after the other.
func (c *cluster) react(a core.Action) (bool, runtime.Object, error) {
	if create, ok := a.(core.CreateActionImpl); ok && len(create.CreateOptions.DryRun) > 0 {
		return true, create.Object, nil
	}
	if a.GetSubresource() == "scale" {
		return c.scale(a)
	}
	switch a.GetVerb() {
	case "create":
		if create, ok := a.(core.CreateAction); ok {
			c.born(c.identified(create.GetObject()))
		}
	case "delete":
		if c.held(a) {
			return true, nil, nil
		}
	}
	handled, object, err := core.ObjectReaction(c.tracker)(a)
	if err == nil && a.GetVerb() == "patch" {
		c.letGo(a, object)
	}
	c.control()
	return handled, object, err
}

func (c *cluster) scale(a core.Action) (bool, runtime.Object, error) {
	set := c.set()
	if patch, ok := a.(core.PatchAction); ok {
		var scale autoscalingv1.Scale
		require.NoError(c.t, json.Unmarshal(patch.GetPatch(), &scale))
		set.Spec.Replicas = &scale.Spec.Replicas
		require.NoError(c.t, c.tracker.Update(setsResource, set, namespace))
		c.control()
		return true, set, nil
	}
	return true, &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: *set.Spec.Replicas}}, nil
}

// born starts what was made.
func (c *cluster) born(o runtime.Object) {
	switch o := o.(type) {
	case *corev1.Pod: // nobody but a restore makes pods here
		running(o)
		c.seed = newDatabase(0)
		c.seed.deaf = c.deaf
		c.seed.ended = func() { c.end(o.Name) }
		c.changed = append(c.changed, "seed "+o.Name)
	case *corev1.PersistentVolumeClaim:
		c.changed = append(c.changed, "claim "+o.Name)
	}
}

// end is the kubelet seeing a pod's database end well.
func (c *cluster) end(pod string) {
	o, err := c.tracker.Get(podsResource, namespace, pod)
	require.NoError(c.t, err)
	p, ok := o.(*corev1.Pod)
	require.True(c.t, ok)
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	require.NoError(c.t, c.tracker.Update(podsResource, p, namespace))
}

// held keeps what is deleted and has finalizers.
func (c *cluster) held(a core.Action) bool {
	deletion, ok := a.(core.DeleteAction)
	require.True(c.t, ok)
	name := deletion.GetName()
	o, err := c.tracker.Get(a.GetResource(), namespace, name)
	if err != nil {
		return false
	}
	if a.GetResource() == podsResource || a.GetResource() == claimsResource {
		c.changed = append(c.changed, "delete "+name)
	}
	object, err := meta.Accessor(o)
	require.NoError(c.t, err)
	if len(object.GetFinalizers()) == 0 {
		return false
	}
	now := metav1.Now()
	object.SetDeletionTimestamp(&now)
	require.NoError(c.t, c.tracker.Update(a.GetResource(), o, namespace))
	return true
}

// letGo removes what is deleted and has lost its last finalizer.
func (c *cluster) letGo(a core.Action, o runtime.Object) {
	object, err := meta.Accessor(o)
	require.NoError(c.t, err)
	if object.GetDeletionTimestamp() != nil && len(object.GetFinalizers()) == 0 {
		require.NoError(c.t, c.tracker.Delete(a.GetResource(), namespace, object.GetName()))
	}
}

func (c *cluster) set() *appsv1.StatefulSet {
	o, err := c.tracker.Get(setsResource, namespace, "db")
	require.NoError(c.t, err)
	set, ok := o.(*appsv1.StatefulSet)
	require.True(c.t, ok)
	return set
}

// control is the set's controller. It makes the claims and pods that are missing, in an instant, and asks nobody.
func (c *cluster) control() {
	for ordinal := range int(*c.set().Spec.Replicas) {
		o, err := c.tracker.Get(claimsResource, namespace, statefulset.ClaimName("data", "db", ordinal))
		if err != nil {
			require.NoError(c.t, c.tracker.Add(c.identified(claimOf("data", ordinal))))
			continue // it comes back later for the pod
		}
		claim, ok := o.(*corev1.PersistentVolumeClaim)
		require.True(c.t, ok)
		pod := podOf(ordinal)
		if _, err := c.tracker.Get(podsResource, namespace, pod.Name); err == nil || claim.DeletionTimestamp != nil {
			continue
		}
		require.NoError(c.t, c.tracker.Add(c.identified(pod)))
		switch {
		case claim.Annotations[statefulset.AnnotationSeeded] != "":
			c.found[ordinal] = c.seed.rows()
		case claim.Spec.VolumeName != "":
			c.found[ordinal] = before
		default:
			c.found[ordinal] = 0
		}
	}
}

// seeds is how many of the set's ordinals are held by seed pods.
func (c *cluster) seeds() int {
	left, err := c.client().Leftovers(c.t.Context(), "db")
	require.NoError(c.t, err)
	return len(left.Seeds)
}

func (c *cluster) client() *statefulset.Client { return statefulset.New(c.kube, namespace, nil) }

// restore is `restore run` of the set, from a backup of the servers of d.
func (c *cluster) restore(d *days, q job.Request) *job.Restore {
	if q.Base == 0 {
		q.Base = -1
	}
	return &job.Restore{
		Repository: d.repository, Cluster: c.client(), Set: "db", From: daysSet, Request: q, Servers: databases{c},
		Run:   statefulset.Run{ID: "run-1", PodUID: "pod-1", Local: true, Index: -1, Completions: 1},
		Seed:  statefulset.SeedSpec{DiscoverOptions: statefulset.DiscoverOptions{DefaultPort: 3306}, StartTimeout: 10 * time.Second},
		Lease: statefulset.LeaseOptions{Duration: time.Minute}, ReadyWait: 10 * time.Second, ServerWait: 10 * time.Second,
		Clock: d.now, Log: slog.New(slog.DiscardHandler),
	}
}
