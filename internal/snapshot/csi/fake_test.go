package csi

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	snapshotfake "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned/fake"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
)

const (
	driver    = "csi.example.com"
	className = "fast"
)

// fakeCluster is a fake at object level: clientsets without an API server, and
// behind them a few lines that play the snapshot-controller, the csi-snapshotter,
// the provisioner and the driver. They take one step whenever somebody reads,
// so that whoever waits sees every state on the way.
type fakeCluster struct {
	kube  *fake.Clientset
	snaps *snapshotfake.Clientset
	clock *hurriedClock

	mu sync.Mutex
	// disks and cuts are the driver's, by handle.
	disks map[string]string
	cuts  map[string]*fakeCut
	// number of the next handle or UID.
	number int
	// still: the controllers do nothing. mute: the csi-snapshotter does nothing.
	still, mute bool
	// failure of snapshots after they were cut, and of volumes that are to be
	// made; empty: none.
	failCuts, failVolumes string
	// unlisted: the driver knows no ListSnapshots, so that any handle is ready.
	unlisted bool
	// consumers are the claims, namespace/name, that a pod uses.
	consumers map[string]bool
	// zone that volumes are made in.
	zone string
	// refused are the rights that nobody has, as "verb resource".
	refused map[string]bool
	// allowed, if not nil, are the only rights that somebody has.
	allowed map[string]bool
	// before is called ahead of a request, "verb resource". An error is the
	// request's answer.
	before func(request string) error
	// kill, if not nil, says how the n-th request from here on ends; see killAt.
	kill func(n int) death
	// requests counts what kill has seen.
	requests int
}

// death is what becomes of a request.
type death int

const (
	lives death = iota
	// diesBefore and diesAfter: it is not carried out, or it is and nobody hears of it.
	diesBefore
	diesAfter
)

type fakeCut struct {
	content string
	size    int64
	at      time.Time
}

func newFakeCluster(t *testing.T) *fakeCluster {
	t.Helper()
	f := &fakeCluster{
		kube: fake.NewClientset(), snaps: snapshotfake.NewSimpleClientset(), //nolint:staticcheck // the module has no other: it generates no apply configurations
		clock: &hurriedClock{now: time.Now()}, disks: map[string]string{}, cuts: map[string]*fakeCut{}, consumers: map[string]bool{}, refused: map[string]bool{}, zone: "zone-a",
	}
	f.snaps.PrependReactor("delete", "volumesnapshots", f.deleteSoon)
	f.snaps.PrependReactor("delete", "volumesnapshotcontents", f.deleteSoon)
	for _, c := range []*clienttesting.Fake{&f.kube.Fake, &f.snaps.Fake} {
		c.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) { return f.react(c, a) })
	}
	f.addStorageClass(t, className, driver, storagev1.VolumeBindingImmediate)
	f.addClass(t, "snapshots", driver, volumesnapshotv1.VolumeSnapshotContentDelete, false)
	return f
}

// snapshotter is one over the fake, with all its patience, and a clock on which
// waiting takes no time.
func (f *fakeCluster) snapshotter(change ...func(*Options)) *Snapshotter {
	o := Options{Kube: f.kube, Snapshots: f.snaps, Clock: f.clock}
	for _, c := range change {
		c(&o)
	}
	return New(o)
}

// hurriedClock jumps ahead whenever somebody waits.
type hurriedClock struct {
	clock.RealClock

	mu  sync.Mutex
	now time.Time
}

func (c *hurriedClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *hurriedClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	fired := make(chan time.Time, 1)
	fired <- c.now
	return fired
}

// react comes before every request: it refuses what is refused, gives what is
// created a UID, and lets the controllers take a step.
func (f *fakeCluster) react(c *clienttesting.Fake, a clienttesting.Action) (bool, runtime.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resource, request := a.GetResource().Resource, a.GetVerb()+" "+a.GetResource().Resource
	name := ""
	if named, ok := a.(interface{ GetName() string }); ok {
		name = named.GetName()
	}
	if f.before != nil {
		if err := f.before(request); err != nil {
			return true, nil, err
		}
	}
	end := lives
	if f.kill != nil {
		f.requests++
		end = f.kill(f.requests)
	}
	if end == diesBefore {
		return true, nil, errNoAnswer
	}
	if f.refused[request] || f.allowed != nil && !f.allowed[request] {
		return true, nil, f.denial(a, name)
	}
	if f.refused["crds"] && a.GetResource().Group == volumesnapshotv1.GroupName {
		return true, nil, apierrors.NewGenericServerResponse(http.StatusNotFound, a.GetVerb(), schema.GroupResource{Group: a.GetResource().Group, Resource: resource}, name, "404 page not found", 0, true)
	}
	if create, ok := a.(clienttesting.CreateAction); ok && a.GetSubresource() == "" {
		object, err := meta.Accessor(create.GetObject())
		if err != nil {
			return true, nil, err
		}
		object.SetUID(types.UID(f.next("uid")))
		object.SetCreationTimestamp(metav1.Now().Rfc3339Copy())
	}
	if !f.still && (a.GetVerb() == "get" || a.GetVerb() == "list") {
		if err := f.step(); err != nil {
			return true, nil, fmt.Errorf("the fake's controllers: %w", err)
		}
	}
	if end == diesAfter {
		for _, r := range c.ReactionChain[1:] {
			if !r.Handles(a) {
				continue
			}
			if handled, _, _ := r.React(a); handled {
				break
			}
		}
		return true, nil, errNoAnswer
	}
	return false, nil, nil
}

// errNoAnswer is what a client says when the line is cut.
var errNoAnswer = &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}

// killAt ends the process that talks to the cluster at its n-th request from
// here on, before or after that is carried out: stop is called, and no later
// request gets through. It returns whether it has come to that.
func (f *fakeCluster) killAt(n int, how death, stop func()) (killed func() bool) {
	dead := false
	f.set(func() {
		f.requests = 0
		f.kill = func(i int) death {
			switch {
			case i < n:
				return lives
			case i == n:
				dead = true
				stop()
				return how
			default:
				return diesBefore
			}
		}
	})
	return func() (was bool) {
		f.set(func() { was, f.kill = dead, nil })
		return was
	}
}

// denial is what the API server's authorizer answers.
func (f *fakeCluster) denial(a clienttesting.Action, name string) error {
	gr := schema.GroupResource{Group: a.GetResource().Group, Resource: a.GetResource().Resource}
	scope := "at the cluster scope"
	if a.GetNamespace() != "" {
		scope = fmt.Sprintf("in the namespace %q", a.GetNamespace())
	}
	return apierrors.NewForbidden(gr, name, fmt.Errorf("User %q cannot %s resource %q in API group %q %s",
		"system:serviceaccount:shop:keepset-backup", a.GetVerb(), gr.Resource, gr.Group, scope))
}

func (f *fakeCluster) next(prefix string) string {
	f.number++
	return fmt.Sprintf("%s-%d", prefix, f.number)
}

// refuse takes rights away: "get persistentvolumes".
func (f *fakeCluster) refuse(requests ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range requests {
		f.refused[r] = true
	}
}

// allow leaves these rights only; nil: all.
func (f *fakeCluster) allow(rights map[string]bool) { f.set(func() { f.allowed = rights }) }

// blind takes away every right on objects of the cluster.
func (f *fakeCluster) blind() {
	for _, resource := range []string{"persistentvolumes", "storageclasses", "volumesnapshotclasses", "volumesnapshotcontents"} {
		for _, verb := range []string{"get", "list", "create", "patch", "delete"} {
			f.refuse(verb + " " + resource)
		}
	}
}

func (f *fakeCluster) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeCluster) addStorageClass(t *testing.T, name, provisioner string, mode storagev1.VolumeBindingMode) {
	t.Helper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
	require.NoError(t, f.kube.Tracker().Add(class))
}

func (f *fakeCluster) addClass(t *testing.T, name, driver string, policy volumesnapshotv1.DeletionPolicy, isDefault bool) {
	t.Helper()
	class := &volumesnapshotv1.VolumeSnapshotClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Driver: driver, DeletionPolicy: policy}
	if isDefault {
		class.Annotations = map[string]string{annotationDefaultClass: "true"}
	}
	require.NoError(t, f.snaps.Tracker().Add(class))
}

// dropClass removes the class that the fake begins with.
func (f *fakeCluster) dropClass(t *testing.T) {
	t.Helper()
	require.NoError(t, f.snaps.Tracker().Delete(classesResource, "", "snapshots"))
}

// The resources that the fake's controllers work on.
var (
	claimsResource    = corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")
	volumesResource   = corev1.SchemeGroupVersion.WithResource("persistentvolumes")
	eventsResource    = corev1.SchemeGroupVersion.WithResource("events")
	storageResource   = storagev1.SchemeGroupVersion.WithResource("storageclasses")
	snapshotsResource = volumesnapshotv1.SchemeGroupVersion.WithResource("volumesnapshots")
	contentsResource  = volumesnapshotv1.SchemeGroupVersion.WithResource("volumesnapshotcontents")
	classesResource   = volumesnapshotv1.SchemeGroupVersion.WithResource("volumesnapshotclasses")
)

// inventory names everything that there is.
func (f *fakeCluster) inventory(t *testing.T) []string {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	names := []string{}
	for handle := range f.disks {
		names = append(names, "disk "+handle)
	}
	for handle := range f.cuts {
		names = append(names, "cut "+handle)
	}
	for _, c := range f.claims(t) {
		names = append(names, "claim "+c.Namespace+"/"+c.Name)
	}
	for _, v := range f.volumes(t) {
		names = append(names, "volume "+v.Name)
	}
	for _, v := range f.volumeSnapshots(t) {
		names = append(names, "volumesnapshot "+v.Namespace+"/"+v.Name)
	}
	for _, c := range f.contents(t) {
		names = append(names, "content "+c.Name)
	}
	slices.Sort(names)
	return names
}
