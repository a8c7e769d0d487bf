package statefulset

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// boundClaim is a claim with its volume, which goes by policy.
func boundClaim(name string, policy corev1.PersistentVolumeReclaimPolicy) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "mysql", UID: types.UID("uid-" + name)},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv-" + name},
	}
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: policy,
			ClaimRef:                      &corev1.ObjectReference{Namespace: "mysql", Name: name, UID: claim.UID},
		},
	}
	return claim, pv
}

func policyOf(t *testing.T, c *Client, name string) corev1.PersistentVolumeReclaimPolicy {
	t.Helper()
	pv, err := c.kube.CoreV1().PersistentVolumes().Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return pv.Spec.PersistentVolumeReclaimPolicy
}

// The volume that an ordinal had is kept under a label and goes back to its
// policy; one that another ordinal, set or namespace has kept stays.
func TestVolumesAreKeptAndReturned(t *testing.T) {
	for _, policy := range []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain} {
		claim, pv := boundClaim("data-mysql-1", policy)
		other, otherPV := boundClaim("data-mysql-2", corev1.PersistentVolumeReclaimDelete)
		c := New(fake.NewClientset(claim, pv, other, otherPV), "mysql", nil)
		require.NoError(t, c.keepVolume(t.Context(), "mysql", 1, claim))
		require.NoError(t, c.keepVolume(t.Context(), "mysql", 1, claim), "a second time, as after a crash")
		require.NoError(t, c.keepVolume(t.Context(), "mysql", 2, other))
		require.Equal(t, corev1.PersistentVolumeReclaimRetain, policyOf(t, c, pv.Name))
		kept, err := c.KeptVolumes(t.Context(), "mysql")
		require.NoError(t, err)
		require.Contains(t, kept, KeptVolume{Name: pv.Name, Ordinal: 1, Claim: "data-mysql-1", Policy: string(policy)})
		require.Len(t, kept, 2)

		names, err := c.ReturnVolumes(t.Context(), "mysql", 1)
		require.NoError(t, err)
		require.Equal(t, []string{pv.Name}, names)
		require.Equal(t, policy, policyOf(t, c, pv.Name))
		require.Equal(t, corev1.PersistentVolumeReclaimRetain, policyOf(t, c, otherPV.Name))
		again, err := c.ReturnVolumes(t.Context(), "mysql", 1)
		require.NoError(t, err)
		require.Empty(t, again)
		kept, err = New(c.kube, "elsewhere", nil).KeptVolumes(t.Context(), "mysql")
		require.NoError(t, err)
		require.Empty(t, kept)
	}
}

// Somebody has put a kept volume to use again, and its policy back by hand, but not the
// note: the next restore keeps it all the same.
func TestVolumeThatIsNotedAsKeptIsKept(t *testing.T) {
	claim, pv := boundClaim("data-mysql-1", corev1.PersistentVolumeReclaimDelete)
	pv.Annotations = map[string]string{annotationReclaim: "Retain"}
	c := New(fake.NewClientset(claim, pv), "mysql", nil)
	require.NoError(t, c.keepVolume(t.Context(), "mysql", 1, claim))
	require.Equal(t, corev1.PersistentVolumeReclaimRetain, policyOf(t, c, pv.Name))
	kept, err := c.KeptVolumes(t.Context(), "mysql")
	require.NoError(t, err)
	require.Equal(t, []KeptVolume{{Name: pv.Name, Ordinal: 1, Claim: claim.Name, Policy: "Delete"}}, kept)
}

// What was half filled goes, whatever its policy; a volume that another claim
// has by now does not.
func TestHalfFilledVolumesAreDisposedOf(t *testing.T) {
	claim, pv := boundClaim("data-mysql-1", corev1.PersistentVolumeReclaimRetain)
	c := New(fake.NewClientset(claim, pv), "mysql", nil)
	stranger := claim.DeepCopy()
	stranger.UID = "another"
	require.NoError(t, c.disposeVolume(t.Context(), stranger))
	require.Equal(t, corev1.PersistentVolumeReclaimRetain, policyOf(t, c, pv.Name))
	require.NoError(t, c.disposeVolume(t.Context(), claim))
	require.Equal(t, corev1.PersistentVolumeReclaimDelete, policyOf(t, c, pv.Name))
}

// A restore that was killed when the ordinal's claim was deleted, and had not begun
// to fill another, has lost nothing yet: the volume is the last one with the
// ordinal's data. Who aborts it does not have that thrown away, nor go by a policy
// that would do so; what was half filled goes.
func TestAbortKeepsTheVolumeThatTheOrdinalHad(t *testing.T) {
	for name, tc := range map[string]struct {
		policy  corev1.PersistentVolumeReclaimPolicy
		seed    bool
		change  func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)
		want    corev1.PersistentVolumeReclaimPolicy
		settles string
	}{
		"not placed, Retain": {corev1.PersistentVolumeReclaimRetain, false, nil, corev1.PersistentVolumeReclaimRetain, "Retain"},
		"not placed, Delete": {corev1.PersistentVolumeReclaimDelete, false, nil, corev1.PersistentVolumeReclaimRetain, "Delete"},
		"placed, Retain":     {corev1.PersistentVolumeReclaimRetain, true, nil, corev1.PersistentVolumeReclaimRetain, "Retain"},
		"kept by the restore": {corev1.PersistentVolumeReclaimRetain, true, func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) {
			pv.Labels = map[string]string{labelManagedBy: product, LabelSet: "mysql", labelNamespace: "mysql", LabelOrdinal: "2"}
			pv.Annotations = map[string]string{annotationReclaim: "Delete"}
		}, corev1.PersistentVolumeReclaimRetain, "Delete"},
		"held, of several": {corev1.PersistentVolumeReclaimRetain, true, func(claim *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			claim.DeletionTimestamp = nil
		}, corev1.PersistentVolumeReclaimRetain, "Retain"},
		"made for the seed": {corev1.PersistentVolumeReclaimRetain, true, func(claim *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			claim.DeletionTimestamp, claim.Finalizers = nil, nil
		}, corev1.PersistentVolumeReclaimDelete, ""},
		"half filled": {corev1.PersistentVolumeReclaimRetain, true, func(claim *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			claim.Annotations = map[string]string{AnnotationSeeding: "run-1"}
		}, corev1.PersistentVolumeReclaimDelete, ""},
	} {
		t.Run(name, func(t *testing.T) {
			set := readSet(t, "mysql-replicated.yaml")
			set.Name, set.Namespace = "mysql", "mysql"
			claim, pv := boundClaim("data-mysql-2", tc.policy)
			claim.Finalizers, claim.DeletionTimestamp = []string{Finalizer}, &metav1.Time{Time: metav1.Now().Time}
			if tc.change != nil {
				tc.change(claim, pv)
			}
			kube := fake.NewClientset(set, pv)
			require.NoError(t, kube.Tracker().Add(claim))
			if tc.seed {
				_, pod := buildSeed(t, set, SeedSpec{Ordinal: 2})
				require.NoError(t, kube.Tracker().Add(pod))
			}
			finishDeletions(kube)
			c := New(kube, "mysql", nil)
			steps, err := c.Abort(t.Context(), "mysql", Run{ID: "abort", PodUID: "p", Local: true}, AbortOptions{ReleaseEmpty: true})
			require.NoError(t, err)
			require.Equal(t, tc.want, policyOf(t, c, pv.Name), "%q", steps)
			gone, err := c.getClaim(t.Context(), claim.Name)
			require.NoError(t, err)
			require.Nil(t, gone)
			kept, err := c.KeptVolumes(t.Context(), "mysql")
			require.NoError(t, err)
			if tc.settles == "" {
				require.Empty(t, kept)
				require.Contains(t, steps, "delete half-loaded claim data-mysql-2")
				return
			}
			require.Equal(t, []KeptVolume{{Name: pv.Name, Ordinal: 2, Claim: claim.Name, Policy: tc.settles}}, kept, "and found again")
			require.NotContains(t, steps, "delete half-loaded claim data-mysql-2", "which it is not")
		})
	}
}

func TestWithoutRightsOnVolumesReclaimPoliciesDecide(t *testing.T) {
	claim, pv := boundClaim("data-mysql-1", corev1.PersistentVolumeReclaimDelete)
	kube := fake.NewClientset(claim, pv)
	kube.PrependReactor("*", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("persistentvolumes"), "",
			fmt.Errorf("User %q cannot get resource %q in API group %q at the cluster scope", "system:serviceaccount:mysql:keepset-restore", "persistentvolumes", ""))
	})
	c := New(kube, "mysql", nil)
	require.NoError(t, c.withoutRights(c.keepVolume(t.Context(), "mysql", 1, claim), claim))
	names, err := c.ReturnVolumes(t.Context(), "mysql", 1)
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestSeedPodThatAdoptsFiles(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	set.Spec.Template.Spec.Containers[0].Args = []string{"--innodb-buffer-pool-size=1G"}
	none := func(context.Context, *corev1.PersistentVolumeClaim) error { return nil }
	_, pod := buildSeed(t, set, SeedSpec{
		Ordinal: 2, MakeClaim: none, Adopt: &Adoption{Script: "rm -f auto.cnf", Arguments: []string{"--loose-skip-slave-start"}},
		Patch: []byte("spec: {containers: [{name: mysql, image: 'mysql:patched'}]}"),
	})
	init := pod.Spec.InitContainers[len(pod.Spec.InitContainers)-1]
	database := pod.Spec.Containers[0]
	require.Equal(t, "keepset-adopt", init.Name, "after those that write the configuration")
	require.Equal(t, "mysql:patched", init.Image)
	require.Equal(t, []string{"/bin/sh", "-ec", "rm -f auto.cnf", "keepset"}, init.Command[:4])
	require.Equal(t, "data", init.VolumeMounts[0].Name)
	require.Equal(t, []string{"/var/lib/mysql"}, init.Command[4:])
	require.Len(t, init.VolumeMounts, 1, "what is not a claim is none of its business")
	require.Equal(t, []string{"--innodb-buffer-pool-size=1G", "--loose-skip-slave-start"}, database.Args)
	require.Equal(t, []corev1.PodSchedulingGate{{Name: "keepset/claims"}}, pod.Spec.SchedulingGates)

	_, pod = buildSeed(t, set, SeedSpec{Ordinal: 2})
	require.Empty(t, pod.Spec.SchedulingGates)
	require.NotContains(t, names(pod.Spec.InitContainers), "keepset-adopt")
}

// The controller may be quicker with an empty claim.
func TestEmptyClaimOfTheControllerIsTakenAway(t *testing.T) {
	set := readSet(t, "mysql-replicated.yaml")
	empty := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data-mysql-2", Namespace: set.Namespace, UID: "empty"}}
	kube := fake.NewClientset(set, empty)
	finishDeletions(kube)
	c := New(kube, set.Namespace, nil)
	calls := 0
	seed, err := c.NewSeed(newSet(set), SeedSpec{
		Ordinal: 2, DiscoverOptions: DiscoverOptions{DefaultPort: 3306},
		MakeClaim: func(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
			calls++
			require.Equal(t, "run-1", claim.Annotations[AnnotationSeeding])
			claim.UID = "filled"
			_, err := kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(ctx, claim, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("%w: %w", ErrClaimInUse, err)
			}
			return err
		},
	}, Run{ID: "run-1"}, func(context.Context) error { return nil })
	require.NoError(t, err)
	pod := seed.pod.DeepCopy()
	_, err = kube.CoreV1().Pods(set.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, seed.makeFilledClaims(t.Context()))
	require.Equal(t, 2, calls)
	claim, err := c.getClaim(t.Context(), "data-mysql-2")
	require.NoError(t, err)
	require.EqualValues(t, "filled", claim.UID)
	now, err := c.getPod(t.Context(), pod.Name)
	require.NoError(t, err)
	require.Empty(t, now.Spec.SchedulingGates)
}

// finishDeletions makes the fake treat finalizers as an API server does: a
// claim that is deleted stays until the last one goes.
func finishDeletions(kube *fake.Clientset) {
	tracker := kube.Tracker()
	resource := corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")
	get := func(namespace, name string) *corev1.PersistentVolumeClaim {
		object, err := tracker.Get(resource, namespace, name)
		claim, ok := object.(*corev1.PersistentVolumeClaim)
		if err != nil || !ok {
			return nil
		}
		return claim
	}
	kube.PrependReactor("delete", "persistentvolumeclaims", func(a clienttesting.Action) (bool, runtime.Object, error) {
		deletion, ok := a.(clienttesting.DeleteAction)
		if !ok {
			return false, nil, nil
		}
		claim := get(a.GetNamespace(), deletion.GetName())
		if claim == nil || len(claim.Finalizers) == 0 {
			return false, nil, nil
		}
		claim = claim.DeepCopy()
		claim.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Time}
		return true, claim, tracker.Update(resource, claim, claim.Namespace)
	})
	kube.PrependReactor("patch", "persistentvolumeclaims", func(a clienttesting.Action) (bool, runtime.Object, error) {
		patch, ok := a.(clienttesting.PatchAction)
		if !ok {
			return false, nil, nil
		}
		claim := get(a.GetNamespace(), patch.GetName())
		if claim == nil || claim.DeletionTimestamp == nil || len(claim.Finalizers) > 1 {
			return false, nil, nil
		}
		return true, claim, tracker.Delete(resource, claim.Namespace, claim.Name)
	})
}

func TestZoneFor(t *testing.T) {
	node := func(name, zone string, ready corev1.ConditionStatus, unschedulable bool) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}},
			Spec:       corev1.NodeSpec{Unschedulable: unschedulable},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}},
		}
	}
	set := newSet(readSet(t, "mysql-replicated.yaml"))
	set.Members = []Member{
		{Ordinal: 0, Pod: PodInfo{Exists: true, Node: "a1"}},
		{Ordinal: 1, Pod: PodInfo{Exists: true, Node: "b1"}},
		{Ordinal: 2, Pod: PodInfo{Exists: true, Node: "b1"}},
	}
	claim, pv := boundClaim("data-mysql-1", corev1.PersistentVolumeReclaimDelete)
	pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "topology.ebs.csi.aws.com/zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"b"}}},
	}}}}
	for name, tc := range map[string]struct {
		nodes   []runtime.Object
		ordinal int
		want    string
	}{
		"where its volume is":                     {[]runtime.Object{node("a1", "a", "True", false), node("b1", "b", "True", false)}, 1, "b"},
		"not where no node is left":               {[]runtime.Object{node("a1", "a", "True", false), node("b1", "b", "Unknown", false)}, 1, "a"},
		"where the fewest of the set are":         {[]runtime.Object{node("a1", "a", "True", false), node("b1", "b", "True", false), node("c1", "c", "True", false)}, 3, "c"},
		"not where nothing may be scheduled":      {[]runtime.Object{node("a1", "a", "True", false), node("b1", "b", "True", false), node("c1", "c", "True", true)}, 3, "a"},
		"nowhere in particular":                   {[]runtime.Object{node("a1", "", "True", false)}, 3, ""},
		"where its volume is, no zone known else": {[]runtime.Object{node("a1", "", "True", false)}, 1, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			c := New(fake.NewClientset(append(tc.nodes, claim, pv)...), "mysql", nil)
			set := set
			set.Namespace = "mysql"
			zone, err := c.ZoneFor(t.Context(), set, tc.ordinal, nil)
			require.NoError(t, err)
			require.Equal(t, tc.want, zone)
		})
	}
}

// TestZoneForSeveral: the ordinals of one restore are spread as pods would be,
// where nobody runs yet, and beside those that run or move.
func TestZoneForSeveral(t *testing.T) {
	var nodes []runtime.Object
	for _, zone := range []string{"a", "b", "c"} {
		nodes = append(nodes, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "node-" + zone, Labels: map[string]string{corev1.LabelTopologyZone: zone}},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		})
	}
	c := New(fake.NewClientset(nodes...), "mysql", nil)
	set := newSet(readSet(t, "mysql-replicated.yaml"))
	set.Namespace = "mysql"
	zones := func(ordinals ...int) string {
		placed, all := map[int]string{}, ""
		for _, ordinal := range ordinals {
			zone, err := c.ZoneFor(t.Context(), set, ordinal, placed)
			require.NoError(t, err)
			placed[ordinal] = zone
			all += zone
		}
		return all
	}
	set.Members = nil
	require.Equal(t, "abca", zones(0, 1, 2, 3), "a whole set of which nothing runs")
	set.Members = []Member{{Ordinal: 0, Pod: PodInfo{Exists: true, Node: "node-a"}}, {Ordinal: 1, Pod: PodInfo{Exists: true, Node: "node-b"}}}
	require.Equal(t, "ca", zones(2, 3), "two beside two")
	require.Equal(t, "bc", zones(1, 2), "one that moves is counted once")
}

// TestZoneForLooksAtTaintsAndAffinity: a volume in a zone that the pod cannot go
// to would keep it Pending.
func TestZoneForLooksAtTaintsAndAffinity(t *testing.T) {
	node := func(zone string, taints ...corev1.Taint) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "node-" + zone, Labels: map[string]string{corev1.LabelTopologyZone: zone}},
			Spec:       corev1.NodeSpec{Taints: taints},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		}
	}
	gpu := corev1.Taint{Key: "gpu", Value: "yes", Effect: corev1.TaintEffectNoSchedule}
	soft := corev1.Taint{Key: "spot", Effect: corev1.TaintEffectPreferNoSchedule}
	zones := func(operator corev1.NodeSelectorOperator, names ...string) *corev1.Affinity {
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelTopologyZone, Operator: operator, Values: names},
			}}},
		}}}
	}
	// One of the set's pods is in b, so that a would be taken if nothing spoke against it.
	for name, tc := range map[string]struct {
		a    *corev1.Node
		pod  func(*corev1.PodSpec)
		want string
	}{
		"nothing speaks against it": {node("a"), nil, "a"},
		"tainted":                   {node("a", gpu), nil, "b"},
		"tainted softly":            {node("a", soft), nil, "a"},
		"tolerated":                 {node("a", gpu), func(p *corev1.PodSpec) { p.Tolerations = []corev1.Toleration{{Key: "gpu", Value: "yes"}} }, "a"},
		"tolerated whatever it is":  {node("a", gpu), func(p *corev1.PodSpec) { p.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} }, "a"},
		"of another value":          {node("a", gpu), func(p *corev1.PodSpec) { p.Tolerations = []corev1.Toleration{{Key: "gpu", Value: "no"}} }, "b"},
		"of another effect": {node("a", gpu), func(p *corev1.PodSpec) {
			p.Tolerations = []corev1.Toleration{{Key: "gpu", Value: "yes", Effect: corev1.TaintEffectNoExecute}}
		}, "b"},
		"affinity to the other": {node("a"), func(p *corev1.PodSpec) { p.Affinity = zones(corev1.NodeSelectorOpIn, "b") }, "b"},
		"affinity to both":      {node("a"), func(p *corev1.PodSpec) { p.Affinity = zones(corev1.NodeSelectorOpIn, "a", "b") }, "a"},
		"affinity to none of a": {node("a"), func(p *corev1.PodSpec) { p.Affinity = zones(corev1.NodeSelectorOpNotIn, "a") }, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			object := readSet(t, "mysql-replicated.yaml").DeepCopy()
			if tc.pod != nil {
				tc.pod(&object.Spec.Template.Spec)
			}
			set := newSet(object)
			set.Namespace = "mysql"
			set.Members = []Member{{Ordinal: 0, Pod: PodInfo{Exists: true, Node: "node-b"}}}
			zone, err := New(fake.NewClientset(tc.a, node("b")), "mysql", nil).ZoneFor(t.Context(), set, 1, nil)
			require.NoError(t, err)
			require.Equal(t, tc.want, zone)
		})
	}
}
