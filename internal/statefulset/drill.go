package statefulset

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// DrillSpec says what a drill restores into.
type DrillSpec struct {
	// Ordinal whose pod the drill's is like.
	Ordinal int
	// Endpoint of the database in the pod: see DiscoverOptions.
	DiscoverOptions
	// InitContainers, Containers and Patch are those of SeedSpec.
	InitContainers, Containers []string
	Patch                      []byte
	// Namespace of the pod and its claims; empty: the set's own.
	Namespace string
	// StorageClass in place of the templates'.
	StorageClass string
	// Sizes of the claims by template, where they are larger than the template says.
	Sizes map[string]string
	// StartTimeout bounds the wait for the container, and for what is deleted to
	// go. Default 10 minutes.
	StartTimeout time.Duration
}

// DrillPod is a database that nobody uses, in a pod and on claims that are made
// for one drill. Everything of it bears labels by which the next drill of the set
// finds what a killed one has left, and belongs to the drill's Job, so that
// Kubernetes deletes it when that goes. Drills of one set keep each other away by
// a Lease of their own, which no backup and no restore looks at.
type DrillPod struct {
	seed   *Seed // its pod is the drill's, its client the place's
	claims []*corev1.PersistentVolumeClaim
	hold   *Hold
}

// drillLeases are those of the drills in a namespace, for sets of any namespace.
// Their names never begin as those that backups honour do.
func drillLeases(of string) leaseKind {
	return leaseKind{
		what:   "drill",
		name:   func(set string) string { return "drill.keepset." + of + "." + set },
		labels: func(set string) map[string]string { return drillLabels(of, set) },
	}
}

// drillLabels are on everything that the drills of a set make.
func drillLabels(namespace, set string) map[string]string {
	all := labelsOf(set, componentDrill)
	all[labelNamespace] = namespace
	return all
}

// drills is the Client that makes drills of this namespace's sets in another
// one; empty: in its own.
func (c *Client) drills(namespace string) *Client {
	there := *c
	there.leases = drillLeases(c.namespace)
	if namespace != "" {
		there.namespace = namespace
	}
	return &there
}

// NewDrill builds the pod and the claims of a drill from the set's templates, and
// checks them, without changing anything.
func (c *Client) NewDrill(set Set, spec DrillSpec, run Run) (*DrillPod, error) {
	if spec.StartTimeout == 0 {
		spec.StartTimeout = defaultStartTimeout
	}
	object := set.object
	at, err := spec.find(object.Spec.Template.Spec, templateNames(object))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.ref("statefulset", set.Name), err)
	}
	place := c.drills(spec.Namespace)
	b := drillBuilder{
		builder: builder{set: object, at: at, run: run, spec: SeedSpec{
			Ordinal: spec.Ordinal, InitContainers: spec.InitContainers, Containers: spec.Containers, Patch: spec.Patch,
		}},
		spec: spec, namespace: place.namespace,
	}
	pod, err := b.pod()
	if err != nil {
		return nil, err
	}
	claims, err := b.claims()
	if err != nil {
		return nil, err
	}
	return &DrillPod{
		seed:   &Seed{client: place, set: set, spec: SeedSpec{Ordinal: spec.Ordinal, StartTimeout: spec.StartTimeout}, run: run, at: at, pod: pod, notes: b.notes},
		claims: claims,
	}, nil
}

// Notes are what a log should tell: how the pod differs from the set's.
func (d *DrillPod) Notes() []string { return d.seed.notes }

// Plan says in words what Place and Remove are going to do. It asks only
// whether some Service would send clients to the pod.
func (d *DrillPod) Plan(ctx context.Context) ([]string, error) {
	if err := d.seed.checkServices(ctx); err != nil {
		return nil, err
	}
	var steps []string
	for _, claim := range d.claims {
		size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
		steps = append(steps, fmt.Sprintf("create claim %s/%s of %s", claim.Namespace, claim.Name, size.String()))
	}
	steps = append(steps, fmt.Sprintf("create pod %s/%s with container %s, which no Service selects", d.seed.pod.Namespace, d.seed.pod.Name, d.seed.at.container))
	return append(steps, "delete both when the drill has ended, however it ends"), nil
}

// Place takes the Lease of the set's drills, removes what dead ones have left, and
// creates claims and pod. ErrBusy while another drill of the set is alive.
func (d *DrillPod) Place(ctx context.Context, o LeaseOptions) error {
	c, set := d.seed.client, d.seed.set
	if err := d.seed.checkServices(ctx); err != nil {
		return err
	}
	hold, err := c.Acquire(ctx, set.Name, d.seed.run, o)
	if err != nil {
		return err
	}
	d.hold = hold
	left, err := c.drillLeftovers(ctx, drillLabels(set.Namespace, set.Name))
	if err != nil {
		return err
	}
	if !left.empty() {
		c.log.Info("what a dead drill has left is removed", "objects", left.names())
		if err := c.removeDrills(ctx, left, d.seed.spec.StartTimeout); err != nil {
			return err
		}
	}
	if err := hold.Check(ctx); err != nil {
		return err
	}
	for _, claim := range d.claims {
		_, err := c.kube.CoreV1().PersistentVolumeClaims(c.namespace).Create(ctx, claim, metav1.CreateOptions{FieldManager: fieldManager})
		if err != nil {
			return explain(err, "create "+c.ref("claim", claim.Name))
		}
	}
	_, err = c.kube.CoreV1().Pods(c.namespace).Create(ctx, d.seed.pod, metav1.CreateOptions{FieldManager: fieldManager})
	return explain(err, "create "+c.ref("pod", d.seed.pod.Name))
}

// WaitRunning waits until the database's container runs, and returns its ip:port.
func (d *DrillPod) WaitRunning(ctx context.Context) (string, error) { return d.seed.WaitRunning(ctx) }

// Alive says why the database can no longer be reached, if its pod is the reason.
func (d *DrillPod) Alive(ctx context.Context) error { return d.seed.Alive(ctx) }

// Remove deletes what this run has made, waits until it is gone, and gives the
// Lease up. It may be called whatever Place has come to.
func (d *DrillPod) Remove(ctx context.Context) error {
	if d.hold == nil {
		return nil // another one's drill is under way, or nothing was begun
	}
	c, set := d.seed.client, d.seed.set
	ours := drillLabels(set.Namespace, set.Name)
	ours[LabelRun] = d.seed.run.ID
	left, err := c.drillLeftovers(ctx, ours)
	if err == nil {
		err = c.removeDrills(ctx, left, d.seed.spec.StartTimeout)
	}
	return errors.Join(err, d.hold.Release(ctx))
}

// drillLeft are the pods and claims of drills.
type drillLeft struct {
	pods   []corev1.Pod
	claims []corev1.PersistentVolumeClaim
}

func (l drillLeft) empty() bool { return len(l.pods)+len(l.claims) == 0 }

func (l drillLeft) names() []string {
	names := []string{}
	for i := range l.pods {
		names = append(names, "pod "+l.pods[i].Name)
	}
	for i := range l.claims {
		names = append(names, "claim "+l.claims[i].Name)
	}
	return names
}

// drillLeftovers finds the pods and claims with these labels, which only drills bear.
func (c *Client) drillLeftovers(ctx context.Context, with map[string]string) (drillLeft, error) {
	o := metav1.ListOptions{LabelSelector: labels.SelectorFromSet(with).String()}
	pods, err := c.kube.CoreV1().Pods(c.namespace).List(ctx, o)
	if err != nil {
		return drillLeft{}, explain(err, "list the pods of drills in namespace "+c.namespace)
	}
	claims, err := c.kube.CoreV1().PersistentVolumeClaims(c.namespace).List(ctx, o)
	if err != nil {
		return drillLeft{}, explain(err, "list the claims of drills in namespace "+c.namespace)
	}
	return drillLeft{pods.Items, claims.Items}, nil
}

// removeDrills deletes them and waits until they are gone. The database is not
// given the time to shut down cleanly: its data is thrown away.
func (c *Client) removeDrills(ctx context.Context, left drillLeft, timeout time.Duration) error {
	grace := int64(1)
	for i := range left.pods {
		pod := &left.pods[i]
		o := metav1.DeleteOptions{GracePeriodSeconds: &grace, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
		err := c.kube.CoreV1().Pods(c.namespace).Delete(ctx, pod.Name, o)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return explain(err, "delete "+c.ref("pod", pod.Name))
		}
	}
	for i := range left.claims {
		claim := &left.claims[i]
		o := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(claim.UID))}
		err := c.kube.CoreV1().PersistentVolumeClaims(c.namespace).Delete(ctx, claim.Name, o)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return explain(err, "delete "+c.ref("claim", claim.Name))
		}
	}
	what := ""
	err := c.until(ctx, timeout, func(ctx context.Context) (bool, error) {
		for i := range left.pods {
			if now, err := c.getPod(ctx, left.pods[i].Name); err != nil || now != nil && now.UID == left.pods[i].UID {
				what = c.ref("pod", left.pods[i].Name) + " on node " + left.pods[i].Spec.NodeName
				return false, err
			}
		}
		for i := range left.claims {
			if now, err := c.getClaim(ctx, left.claims[i].Name); err != nil || now != nil && now.UID == left.claims[i].UID {
				what = c.ref("claim", left.claims[i].Name)
				return false, err
			}
		}
		return true, nil
	})
	return describeTimeout(err, timeout, what+" does not go")
}

// DrillInfo is what drills of a set have made and not removed yet.
type DrillInfo struct {
	// Live: a drill is under way, and it is its.
	Live bool
	Run  string
	// Objects in words: "pod ..." and "claim ...".
	Objects []string
}

// Drills tells what drills of a set there are in a namespace; empty: its own.
func (c *Client) Drills(ctx context.Context, set, namespace string) (DrillInfo, error) {
	there := c.drills(namespace)
	var info DrillInfo
	l, err := there.lease(ctx, set)
	if err != nil {
		return info, err
	}
	if l != nil {
		lease := there.leaseInfo(l)
		info.Live, info.Run = lease.Live, lease.Run()
	}
	left, err := there.drillLeftovers(ctx, drillLabels(c.namespace, set))
	info.Objects = left.names()
	return info, err
}

// AbortDrills removes what dead drills of a set have left in a namespace; empty:
// its own. One that is alive is left alone. The steps come back in words.
func (c *Client) AbortDrills(ctx context.Context, set, namespace string, run Run, o AbortOptions) (steps []string, err error) {
	info, err := c.Drills(ctx, set, namespace)
	if err != nil || len(info.Objects) == 0 {
		return nil, err
	}
	if info.Live {
		return []string{fmt.Sprintf("leave the drill of run %s, which is under way", info.Run)}, nil
	}
	for _, name := range info.Objects {
		steps = append(steps, "delete "+name+" of a dead drill")
	}
	if o.DryRun {
		return steps, nil
	}
	there := c.drills(namespace)
	hold, err := there.Acquire(ctx, set, run, LeaseOptions{Wait: o.Wait})
	if err != nil {
		return nil, err
	}
	left, err := there.drillLeftovers(ctx, drillLabels(c.namespace, set))
	if err == nil {
		timeout := o.Timeout
		if timeout == 0 {
			timeout = defaultStartTimeout
		}
		err = there.removeDrills(ctx, left, timeout)
	}
	return steps, errors.Join(err, hold.Release(context.WithoutCancel(ctx)))
}
