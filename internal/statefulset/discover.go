package statefulset

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Discover reads a set and its members. It needs no more than the rights of
// rbac-backup.yaml. Anything that is missing is a Problem of the Set, not an
// error; an error is a set that does not exist (ErrNotFound, with the names of
// those that do), a missing right (ErrForbidden), or a pod template that does
// not tell which container is the database (ErrAmbiguous).
func (c *Client) Discover(ctx context.Context, name string, o DiscoverOptions) (Set, error) {
	object, err := c.getSet(ctx, name)
	if err != nil {
		return Set{}, err
	}
	set := newSet(object)
	at, err := o.find(object.Spec.Template.Spec, templateNames(object))
	if err != nil {
		return Set{}, fmt.Errorf("%s: %w", c.ref("statefulset", name), err)
	}
	pods, err := c.podsOf(ctx, set)
	if err != nil {
		return Set{}, err
	}
	claims, err := c.claims(ctx)
	if err != nil {
		return Set{}, err
	}
	f := found{set: set, at: at, pods: pods, claims: claims, shared: sharedClaims(object.Spec.Template.Spec)}
	for ordinal := set.Start; ordinal < set.Start+set.Replicas; ordinal++ {
		m := f.member(ordinal)
		set.Members = append(set.Members, m)
		set.Problems = append(set.Problems, m.Problems...)
	}
	for _, ordinal := range f.beyond() {
		set.Beyond = append(set.Beyond, f.member(ordinal))
	}
	if set.Replicas == 0 {
		set.Problems = append(set.Problems, Problem{
			Ordinal: -1, Object: c.ref("statefulset", name), What: "has no replicas (spec.replicas is 0)", Fatal: true,
		})
	}
	return set, nil
}

func newSet(object *appsv1.StatefulSet) Set {
	set := Set{
		Namespace: object.Namespace, Name: object.Name, UID: string(object.UID), Replicas: 1,
		ServiceName: object.Spec.ServiceName, Parallel: object.Spec.PodManagementPolicy == appsv1.ParallelPodManagement,
		object: object,
	}
	if object.Spec.Replicas != nil {
		set.Replicas = int(*object.Spec.Replicas)
	}
	if object.Spec.Ordinals != nil {
		set.Start = int(object.Spec.Ordinals.Start)
	}
	if p := object.Spec.PersistentVolumeClaimRetentionPolicy; p != nil {
		set.WhenScaledDelete = p.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		set.WhenDeletedDelete = p.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	}
	for _, t := range object.Spec.VolumeClaimTemplates {
		set.Templates = append(set.Templates, newTemplate(t))
	}
	return set
}

func newTemplate(t corev1.PersistentVolumeClaim) ClaimTemplate {
	out := ClaimTemplate{Name: t.Name, AccessModes: accessModes(t.Spec.AccessModes)}
	if t.Spec.StorageClassName != nil {
		out.Class = *t.Spec.StorageClassName
	}
	if size, ok := t.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
		out.Size = size.String()
	}
	out.Block = t.Spec.VolumeMode != nil && *t.Spec.VolumeMode == corev1.PersistentVolumeBlock
	return out
}

func accessModes(modes []corev1.PersistentVolumeAccessMode) []string {
	out := make([]string, len(modes))
	for i, m := range modes {
		out[i] = string(m)
	}
	return out
}

// getSet reads the StatefulSet. ErrNotFound says which sets exist, as far as
// the Role lets us look.
func (c *Client) getSet(ctx context.Context, name string) (*appsv1.StatefulSet, error) {
	object, err := c.kube.AppsV1().StatefulSets(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return object, explain(err, "read "+c.ref("statefulset", name))
	}
	list, listErr := c.kube.AppsV1().StatefulSets(c.namespace).List(ctx, metav1.ListOptions{})
	if listErr != nil {
		return nil, fmt.Errorf("%s: %w", c.ref("statefulset", name), ErrNotFound)
	}
	names := make([]string, 0, len(list.Items))
	for _, s := range list.Items {
		names = append(names, s.Name)
	}
	there := "there is none in namespace " + c.namespace
	if len(names) > 0 {
		there = "namespace " + c.namespace + " has " + strings.Join(names, ", ")
	}
	return nil, fmt.Errorf("%s: %w; %s", c.ref("statefulset", name), ErrNotFound, there)
}

// podsOf reads the set's pods by its selector, and by name those that the
// selector does not find: a seed pod has no labels of the set.
func (c *Client) podsOf(ctx context.Context, set Set) (map[string]*corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(set.object.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("%s: read the selector: %w", c.ref("statefulset", set.Name), err)
	}
	pods := map[string]*corev1.Pod{}
	seeds := labels.SelectorFromSet(labels.Set{LabelSet: set.Name, labelComponent: componentSeed})
	for _, s := range []labels.Selector{selector, seeds} {
		list, err := c.kube.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: s.String()})
		if err != nil {
			return nil, explain(err, "list the pods of "+c.ref("statefulset", set.Name))
		}
		for i := range list.Items {
			pods[list.Items[i].Name] = &list.Items[i]
		}
	}
	for ordinal := set.Start; ordinal < set.Start+set.Replicas; ordinal++ {
		name := podName(set.Name, ordinal)
		if pods[name] != nil {
			continue
		}
		pod, err := c.kube.CoreV1().Pods(c.namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, explain(err, "read "+c.ref("pod", name))
		}
		pods[name] = pod
	}
	return pods, nil
}

// claims reads every claim of the namespace: those that a scale-down left
// behind may have any label.
func (c *Client) claims(ctx context.Context) (map[string]*corev1.PersistentVolumeClaim, error) {
	list, err := c.kube.CoreV1().PersistentVolumeClaims(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(err, "list the persistentvolumeclaims of namespace "+c.namespace)
	}
	claims := make(map[string]*corev1.PersistentVolumeClaim, len(list.Items))
	for i := range list.Items {
		claims[list.Items[i].Name] = &list.Items[i]
	}
	return claims, nil
}

// beyond finds ordinals outside the set's range that have a pod or a claim.
func (f found) beyond() []int {
	seen := map[int]bool{}
	note := func(name, prefix string) {
		if n, ok := suffixOrdinal(name, prefix); ok && !f.set.Wanted(n) {
			seen[n] = true
		}
	}
	for name := range f.pods {
		note(name, f.set.Name+"-")
	}
	for name := range f.claims {
		for _, t := range f.set.Templates {
			note(name, t.Name+"-"+f.set.Name+"-")
		}
	}
	ordinals := make([]int, 0, len(seen))
	for n := range seen {
		ordinals = append(ordinals, n)
	}
	slices.SortFunc(ordinals, cmp.Compare)
	return ordinals
}

// suffixOrdinal reads the ordinal behind a prefix. Names with dashes make the
// strictness necessary: mysql-2-0 is a pod of mysql-2, not of mysql. The label
// apps.kubernetes.io/pod-index always says the same, and a claim has none.
func suffixOrdinal(name, prefix string) (int, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(rest, 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != rest {
		return 0, false
	}
	return int(n), true
}

func templateNames(object *appsv1.StatefulSet) []string {
	names := make([]string, len(object.Spec.VolumeClaimTemplates))
	for i, t := range object.Spec.VolumeClaimTemplates {
		names[i] = t.Name
	}
	return names
}

// sharedClaims are the claims that the pod template names directly, so that
// every member mounts the same one.
func sharedClaims(pod corev1.PodSpec) []string {
	var names []string
	for _, v := range pod.Volumes {
		if v.PersistentVolumeClaim != nil {
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		}
	}
	return names
}
