package statefulset

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

// shipped reads the objects of a file of deploy/cronjob/base.
func shipped[T any](t *testing.T, file string) []T {
	t.Helper()
	text, err := os.ReadFile("../../deploy/cronjob/base/" + file)
	require.NoError(t, err)
	var list []T
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		var object T
		require.NoError(t, yaml.UnmarshalStrict([]byte(doc), &object))
		list = append(list, object)
	}
	return list
}

// chosen tells whether a selector takes a pod with these labels.
func chosen(t *testing.T, by *metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(by)
	require.NoError(t, err)
	return selector.Matches(labels.Set(of))
}

// reaches are the ports that a pod may open connections to, anywhere, where the
// network denies by default. Every policy that takes the pod must deny the rest.
func reaches(t *testing.T, policies []networkingv1.NetworkPolicy, pod map[string]string) map[string]bool {
	t.Helper()
	open := map[string]bool{}
	for _, p := range policies {
		if !chosen(t, &p.Spec.PodSelector, pod) {
			continue
		}
		require.ElementsMatch(t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}, p.Spec.PolicyTypes, p.Name)
		for _, rule := range p.Spec.Egress {
			require.Empty(t, rule.To, "%s: databases and stores may be anywhere", p.Name)
			require.NotEmpty(t, rule.Ports, "%s: a rule without ports opens them all", p.Name)
			for _, port := range rule.Ports {
				require.Nil(t, port.EndPort)
				open[string(*port.Protocol)+" "+port.Port.String()] = true
			}
		}
	}
	return open
}

// enters tells whether a pod is let in on a port of another one that a policy
// denies all the rest.
func enters(t *testing.T, policies []networkingv1.NetworkPolicy, from, to map[string]string, port int32) bool {
	t.Helper()
	for _, p := range policies {
		if !chosen(t, &p.Spec.PodSelector, to) {
			continue
		}
		for _, rule := range p.Spec.Ingress {
			open := len(rule.Ports) == 0
			for _, r := range rule.Ports {
				open = open || *r.Port == intstr.FromInt32(port)
			}
			known := len(rule.From) == 0
			for _, peer := range rule.From {
				require.Nil(t, peer.IPBlock)
				require.Nil(t, peer.NamespaceSelector, "the restore runs beside the seed")
				known = known || chosen(t, peer.PodSelector, from)
			}
			if open && known {
				return true
			}
		}
	}
	return false
}

// Where a namespace denies all traffic by default, the shipped NetworkPolicies
// let every pod of Keepset do its work, and nothing more; and they take no pod
// of the set, which would be cut off. That this is so on a network is shown by
// test/e2e's TestDefaultDenyNetwork; here is every port, for both sets.
func TestNetworkPoliciesFitThePods(t *testing.T) {
	policies := shipped[networkingv1.NetworkPolicy](t, "networkpolicy.yaml")
	backup := shipped[batchv1.CronJob](t, "cronjob-backup.yaml")[0].Spec.JobTemplate.Spec.Template.Labels
	restore := shipped[batchv1.CronJob](t, "cronjob-restore.yaml")[0].Spec.JobTemplate.Spec.Template.Labels
	const database = "TCP 3306"
	names, api := []string{"UDP 53", "TCP 53"}, []string{"TCP 443", "TCP 6443"} // 443 is S3's port, too
	ports := func(lists ...[]string) map[string]bool {
		all := map[string]bool{database: true}
		for _, list := range lists {
			for _, port := range list {
				all[port] = true
			}
		}
		return all
	}
	for name, pod := range map[string]map[string]string{"backup": backup, "restore": restore} {
		require.Equal(t, ports(names, api), reaches(t, policies, pod), name)
		for _, other := range []map[string]string{backup, restore, nil} {
			require.False(t, enters(t, policies, other, pod, 443), "nothing talks to a %s", name)
		}
	}
	for _, file := range []string{"mysql-replicated.yaml", "mysql-standalone.yaml"} {
		set := readSet(t, file)
		require.Empty(t, reaches(t, policies, set.Spec.Template.Labels), "%s: the set's own pods are cut off", file)
		_, seed := buildSeed(t, set, SeedSpec{Ordinal: 1})
		require.Equal(t, ports(names), reaches(t, policies, seed.Labels), "%s: a seed follows a server, and has no business with the store", file)
		require.True(t, opens(seed, 3306), file)
		require.True(t, enters(t, policies, restore, seed.Labels, 3306), "%s: the restore fills it", file)
		require.False(t, enters(t, policies, backup, seed.Labels, 3306), file)
		require.False(t, enters(t, policies, set.Spec.Template.Labels, seed.Labels, 3306), file)
	}
}

// Who deletes and who verifies reach the store and nothing else, have no token for
// the API server, and are no backups: no restore suspends them or waits for them.
func TestThePrunerHasNoRights(t *testing.T) {
	for _, name := range []string{"prune", "verify"} {
		component := "../components/" + name + "/"
		job := shipped[batchv1.CronJob](t, component+"cronjob.yaml")[0]
		pod := job.Spec.JobTemplate.Spec.Template
		policies := append(shipped[networkingv1.NetworkPolicy](t, "networkpolicy.yaml"), shipped[networkingv1.NetworkPolicy](t, component+"networkpolicy.yaml")...)
		require.Equal(t, map[string]bool{"UDP 53": true, "TCP 53": true, "TCP 443": true}, reaches(t, policies, pod.Labels))
		require.False(t, enters(t, policies, nil, pod.Labels, 443))
		require.False(t, *pod.Spec.AutomountServiceAccountToken)
		requireOwn(t, component, name, job)
	}
}

// requireOwn: a component's Job is no backup, runs as its own account, and holds no
// key and no password of anybody else.
func requireOwn(t *testing.T, component, name string, job batchv1.CronJob) {
	t.Helper()
	pod := job.Spec.JobTemplate.Spec.Template
	agent := shipped[networkingv1.NetworkPolicy](t, "../overlays/mysql-ebs/pod-identity.yaml")
	require.True(t, chosen(t, &agent[0].Spec.PodSelector, pod.Labels), "it may ask Pod Identity's agent")
	account := shipped[corev1.ServiceAccount](t, component+"serviceaccount.yaml")[0]
	require.Equal(t, account.Name, pod.Spec.ServiceAccountName)
	require.Equal(t, "keepset-"+name, account.Name)
	require.False(t, (&Client{namespace: "mysql"}).backsUp(job, job.Labels[LabelSet]))
	for _, labels := range []map[string]string{job.Labels, job.Spec.JobTemplate.Labels, pod.Labels} {
		require.Equal(t, name, labels[labelComponent])
		require.Equal(t, "mysql", labels[LabelSet])
	}
	for _, container := range pod.Spec.Containers {
		for _, from := range container.EnvFrom {
			require.False(t, from.SecretRef != nil && from.SecretRef.Name != account.Name, "it holds no key and no password")
		}
	}
}

// Who looks at the backups reaches the API server as well, and its Role is what a
// look takes: without one of its rights it says so, and it asks for no other.
func TestTheRightsOfStatus(t *testing.T) {
	const component = "../components/status/"
	job := shipped[batchv1.CronJob](t, component+"cronjob.yaml")[0]
	labels := job.Spec.JobTemplate.Spec.Template.Labels
	policies := append(shipped[networkingv1.NetworkPolicy](t, "networkpolicy.yaml"), shipped[networkingv1.NetworkPolicy](t, component+"networkpolicy.yaml")...)
	require.Equal(t, map[string]bool{"UDP 53": true, "TCP 53": true, "TCP 443": true, "TCP 6443": true}, reaches(t, policies, labels))
	require.False(t, enters(t, policies, nil, labels, 443))
	requireOwn(t, component, "status", job)

	text, err := os.ReadFile("../../deploy/cronjob/base/" + component + "rbac.yaml")
	require.NoError(t, err)
	var role rbacv1.Role
	require.NoError(t, yaml.UnmarshalStrict([]byte(strings.Split(string(text), "\n---\n")[0]), &role))
	kube := fake.NewClientset(&batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly", Namespace: "mysql", Labels: map[string]string{LabelSet: "mysql"}}})
	used := map[string]bool{}
	kube.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		require.True(t, allowed(role, a), "%s %s", a.GetVerb(), a.GetResource().Resource)
		used[a.GetVerb()+" "+a.GetResource().Resource] = true
		return false, nil, nil
	})
	c := New(kube, "mysql", nil)
	for _, look := range []func(context.Context, string) ([]CronJob, error){c.BackupCronJobs, c.PruneCronJobs, c.VerifyCronJobs} {
		_, err := look(t.Context(), "mysql")
		require.NoError(t, err)
	}
	require.Equal(t, map[string]bool{"list cronjobs": true, "list jobs": true}, used, "a right that is not used is not given")
	require.Len(t, role.Rules, 1)
}

// opens tells whether a pod declares a port.
func opens(pod *corev1.Pod, port int32) bool {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.ContainerPort == port {
				return true
			}
		}
	}
	return false
}
