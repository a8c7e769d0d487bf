package statefulset

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

// drilled is a cluster with a set of three, and one drill of it.
type drilled struct {
	t    *testing.T
	set  *appsv1.StatefulSet
	kube *fake.Clientset
	c    *Client
	run  Run
}

func newDrilled(t *testing.T, more ...runtime.Object) *drilled {
	t.Helper()
	set := readSet(t, "mysql-replicated.yaml")
	objects := append([]runtime.Object{set}, more...)
	for i := range 3 {
		objects = append(objects,
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: podName(set.Name, i), Namespace: set.Namespace, UID: "p", Labels: set.Spec.Template.Labels}},
			&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: claimName("data", set.Name, i), Namespace: set.Namespace, UID: "c"}})
	}
	kube := fake.NewClientset(objects...)
	version := 0 // which the fake does not count, and by which a Lease is watched
	kube.PrependReactor("*", "leases", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if update, ok := a.(clienttesting.UpdateAction); ok {
			version++
			update.GetObject().(metav1.Object).SetResourceVersion(strconv.Itoa(version)) //nolint:errcheck,forcetypeassert // every object is one
		}
		return false, nil, nil
	})
	return &drilled{t: t, set: set, kube: kube, c: New(kube, set.Namespace, nil), run: Run{ID: "5A0e1234-77", JobName: "drill-1", JobUID: "5A0e1234-77", PodUID: "pod-1"}}
}

func (d *drilled) drill(spec DrillSpec) *DrillPod {
	d.t.Helper()
	spec.DefaultPort = 3306
	pod, err := d.c.NewDrill(newSet(d.set), spec, d.run)
	require.NoError(d.t, err)
	return pod
}

// there are the pods and claims of a namespace.
func (d *drilled) there(namespace string) (names []string) {
	d.t.Helper()
	pods, err := d.kube.CoreV1().Pods(namespace).List(d.t.Context(), metav1.ListOptions{})
	require.NoError(d.t, err)
	for _, o := range pods.Items {
		names = append(names, "pod "+o.Name)
	}
	claims, err := d.kube.CoreV1().PersistentVolumeClaims(namespace).List(d.t.Context(), metav1.ListOptions{})
	require.NoError(d.t, err)
	for _, o := range claims.Items {
		names = append(names, "claim "+o.Name)
	}
	return names
}

var ofTheSet = []string{"pod mysql-0", "pod mysql-1", "pod mysql-2", "claim data-mysql-0", "claim data-mysql-1", "claim data-mysql-2"}

// The pod of a drill is the set's in all that the database needs, and in nothing by which others would take it for one.
func TestDrillPod(t *testing.T) {
	d := newDrilled(t)
	template := &d.set.Spec.Template
	template.Spec.PriorityClassName, template.Spec.ServiceAccountName = "production", "mysql"
	template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{}, NodeAffinity: &corev1.NodeAffinity{}}
	template.Spec.Volumes = append(template.Spec.Volumes, corev1.Volume{Name: "shared", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "everybody"}}})
	drill := d.drill(DrillSpec{Ordinal: 2, StorageClass: "cheap", Sizes: map[string]string{"data": "700Gi"}})
	pod := drill.seed.pod
	require.Equal(t, "mysql-drill-r50e12347", pod.Name)
	require.Equal(t, "mysql-2", pod.Spec.Hostname)
	require.Equal(t, []string{"mysql"}, names(pod.Spec.Containers))
	for key, value := range template.Labels {
		require.NotEqual(t, value, pod.Labels[key])
	}
	require.Empty(t, pod.Finalizers)
	require.Equal(t, "drill-1", pod.OwnerReferences[0].Name)
	require.Nil(t, pod.OwnerReferences[0].Controller)
	require.False(t, *pod.Spec.AutomountServiceAccountToken)
	require.Empty(t, pod.Spec.PriorityClassName)
	require.Nil(t, pod.Spec.Affinity.PodAntiAffinity)
	require.NotNil(t, pod.Spec.Affinity.NodeAffinity)
	require.Equal(t, corev1.RestartPolicyNever, pod.Spec.RestartPolicy)
	_, ordinal := suffixOrdinal(pod.Name, "mysql-drill-")
	require.False(t, ordinal, "it is no pod of a set mysql-drill")
	for _, v := range pod.Spec.Volumes {
		require.NotEqual(t, "everybody", claimOf(v))
		if v.Name == "data" {
			require.Equal(t, "data-mysql-drill-r50e12347", claimOf(v))
		}
	}
	require.Len(t, drill.claims, 1)
	claim := drill.claims[0]
	require.Equal(t, "data-mysql-drill-r50e12347", claim.Name)
	require.Equal(t, "cheap", *claim.Spec.StorageClassName)
	require.Equal(t, resource.MustParse("700Gi"), claim.Spec.Resources.Requests[corev1.ResourceStorage])
	require.Equal(t, template.Spec.Containers[0].Image, pod.Spec.Containers[0].Image)

	elsewhere := d.drill(DrillSpec{Namespace: "drills"})
	require.Equal(t, "drills", elsewhere.seed.pod.Namespace)
	require.Equal(t, "drills", elsewhere.claims[0].Namespace)
	require.Empty(t, elsewhere.seed.pod.OwnerReferences, "no owner is in another namespace")
	require.Empty(t, elsewhere.seed.pod.Spec.ServiceAccountName)
}

func claimOf(v corev1.Volume) string {
	if v.PersistentVolumeClaim == nil {
		return ""
	}
	return v.PersistentVolumeClaim.ClaimName
}

// A drill makes its pod and claims and removes them, with no right that its Role does not have, and nothing of the set is
// written. What a killed drill has left goes first.
func TestDrillRemovesWhatItMakes(t *testing.T) {
	d := newDrilled(t)
	dead := d.drill(DrillSpec{})
	dead.seed.pod.Name, dead.seed.pod.UID = "mysql-drill-rdead", "dead"
	require.NoError(t, d.kube.Tracker().Add(dead.seed.pod))
	d.kube.ClearActions()

	drill := d.drill(DrillSpec{})
	steps, err := drill.Plan(t.Context())
	require.NoError(t, err)
	require.Contains(t, strings.Join(steps, "\n"), "create pod mysql/mysql-drill-r50e12347")
	require.NoError(t, drill.Place(t.Context(), LeaseOptions{}))
	require.ElementsMatch(t, append([]string{"pod mysql-drill-r50e12347", "claim data-mysql-drill-r50e12347"}, ofTheSet...), d.there("mysql"))

	info, err := d.c.Drills(t.Context(), "mysql", "")
	require.NoError(t, err)
	require.True(t, info.Live)
	require.Equal(t, d.run.ID, info.Run)
	steps, err = d.c.AbortDrills(t.Context(), "mysql", "", Run{ID: "other"}, AbortOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{"leave the drill of run " + d.run.ID + ", which is under way"}, steps)
	_, err = d.c.CheckFree(t.Context(), "mysql")
	require.NoError(t, err, "backups go on")

	second := d.drill(DrillSpec{})
	second.seed.run = Run{ID: "another", PodUID: "pod-2"}
	require.ErrorIs(t, second.Place(t.Context(), LeaseOptions{}), ErrBusy)
	require.NoError(t, second.Remove(t.Context()))
	require.Contains(t, d.there("mysql"), "pod mysql-drill-r50e12347", "whoever was refused removes nothing")

	require.NoError(t, drill.Remove(t.Context()))
	require.ElementsMatch(t, ofTheSet, d.there("mysql"))
	info, err = d.c.Drills(t.Context(), "mysql", "")
	require.NoError(t, err)
	require.False(t, info.Live)
	require.Empty(t, info.Objects)
	require.NoError(t, drill.Place(t.Context(), LeaseOptions{}), "the Lease is free")
	require.NoError(t, drill.Remove(t.Context()))

	role := component[rbacv1.Role](t, "rbac.yaml")[0]
	for _, a := range d.kube.Actions() {
		require.True(t, allowed(role, a), "%s %s/%s", a.GetVerb(), a.GetResource().Resource, a.GetSubresource())
		if name := written(a); name != "" {
			require.NotContains(t, ofTheSet, strings.TrimSuffix(a.GetResource().Resource, "s")+" "+name)
			require.NotEqual(t, LeaseName("mysql"), name)
		}
	}
}

// component reads the objects of a file of the component drill.
func component[T any](t *testing.T, file string) []T {
	t.Helper()
	text, err := os.ReadFile("../../deploy/cronjob/components/drill/" + file)
	require.NoError(t, err)
	var list []T
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		var object T
		require.NoError(t, yaml.Unmarshal([]byte(doc), &object))
		list = append(list, object)
	}
	return list
}

func allowed(role rbacv1.Role, a clienttesting.Action) bool {
	name := a.GetResource().Resource
	if sub := a.GetSubresource(); sub != "" {
		name += "/" + sub
	}
	for _, rule := range role.Rules {
		if slices.Contains(rule.Resources, name) && slices.Contains(rule.Verbs, a.GetVerb()) && slices.Contains(rule.APIGroups, a.GetResource().Group) {
			return true
		}
	}
	return false
}

// written is the name of what an action changes.
func written(a clienttesting.Action) string {
	switch a := a.(type) {
	case clienttesting.DeleteAction:
		return a.GetName()
	case clienttesting.PatchAction:
		return a.GetName()
	case clienttesting.UpdateAction:
		return a.GetObject().(metav1.Object).GetName() //nolint:errcheck,forcetypeassert // every object is one
	}
	return ""
}

// What a drill that is dead for good has left, abort removes; a dry run says so.
func TestAbortRemovesDeadDrills(t *testing.T) {
	d := newDrilled(t)
	drill := d.drill(DrillSpec{Namespace: "drills"})
	require.NoError(t, drill.Place(t.Context(), LeaseOptions{}))
	require.NoError(t, drill.hold.Release(t.Context())) // as a Lease that has expired
	require.Len(t, d.there("drills"), 2)
	for _, dry := range []bool{true, false} {
		steps, err := d.c.AbortDrills(t.Context(), "mysql", "drills", Run{ID: "abort"}, AbortOptions{DryRun: dry})
		require.NoError(t, err)
		require.Equal(t, []string{"delete pod mysql-drill-r50e12347 of a dead drill", "delete claim data-mysql-drill-r50e12347 of a dead drill"}, steps)
		require.Equal(t, dry, len(d.there("drills")) == 2)
	}
	require.ElementsMatch(t, ofTheSet, d.there("mysql"))
	steps, err := d.c.AbortDrills(t.Context(), "mysql", "drills", Run{ID: "abort"}, AbortOptions{})
	require.NoError(t, err)
	require.Empty(t, steps)
}

// A Service that would send clients to the pod ends the drill before it begins.
func TestDrillRefusesServices(t *testing.T) {
	d := newDrilled(t, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "all", Namespace: "mysql"}, Spec: corev1.ServiceSpec{Selector: map[string]string{labelManagedBy: product}},
	})
	require.ErrorContains(t, d.drill(DrillSpec{}).Place(t.Context(), LeaseOptions{}), "service mysql/all selects")
	require.ElementsMatch(t, ofTheSet, d.there("mysql"))
}

// The database of a drill is let in by nobody but the drill, and reaches nobody but the name service: without that it would ask for
// the name of whoever connects for longer than they wait. The drill's own pod is none of those that a drill deletes.
func TestDrillNetworkPolicies(t *testing.T) {
	policies := component[networkingv1.NetworkPolicy](t, "networkpolicy.yaml")
	d := newDrilled(t)
	server := d.drill(DrillSpec{}).seed.pod.Labels
	job := component[batchv1.CronJob](t, "cronjob.yaml")[0].Spec.JobTemplate.Spec.Template.Labels
	require.True(t, enters(t, policies, job, server, 3306))
	for _, other := range []map[string]string{d.set.Spec.Template.Labels, server, {labelName: product, labelComponent: componentRestore}} {
		require.False(t, enters(t, policies, other, server, 3306), fmt.Sprint(other))
	}
	require.Equal(t, map[string]bool{"UDP 53": true, "TCP 53": true}, reaches(t, policies, server))
	agent := shipped[networkingv1.NetworkPolicy](t, "../overlays/mysql-ebs/pod-identity.yaml")
	require.True(t, chosen(t, &agent[0].Spec.PodSelector, job), "it may ask Pod Identity's agent")
	require.False(t, (&Client{namespace: "mysql"}).backsUp(component[batchv1.CronJob](t, "cronjob.yaml")[0], "mysql"), "no restore suspends it, or waits for it")
	require.True(t, reaches(t, policies, job)["TCP 3306"])
	require.NotEqual(t, drillLabels("mysql", "mysql")[labelComponent], job[labelComponent])
}
