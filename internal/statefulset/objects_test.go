package statefulset

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

// usedSet is a set that has been in use for a while, as the API server shows it.
const usedSet = `
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {name: db, namespace: shop, uid: u1, resourceVersion: "7", generation: 3, labels: {team: shop}, finalizers: [a/b],
   annotations: {mine: "1", keepset/released-at: now, kubectl.kubernetes.io/last-applied-configuration: "{}"},
   ownerReferences: [{apiVersion: v1, kind: Thing, name: x, uid: u0}], managedFields: [{manager: kubectl}]}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      serviceAccountName: db
      imagePullSecrets: [{name: registry}]
      initContainers:
        - {name: init, image: i, envFrom: [{configMapRef: {name: env}}, {secretRef: {name: maybe, optional: true}}]}
      containers:
        - name: mysql
          image: i
          env:
            - {name: A, valueFrom: {secretKeyRef: {name: root, key: password}}}
            - {name: B, valueFrom: {configMapKeyRef: {name: one, key: k}}}
            - {name: C, valueFrom: {configMapKeyRef: {name: perhaps, key: k, optional: true}}}
      volumes:
        - {name: a, configMap: {name: mounted}}
        - {name: b, secret: {secretName: cert}}
        - {name: c, projected: {sources: [{configMap: {name: projected}}, {configMap: {name: kube-root-ca.crt}}, {secret: {name: token}}]}}
        - {name: d, persistentVolumeClaim: {claimName: scripts}}
  volumeClaimTemplates:
    - {metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
status: {replicas: 2, readyReplicas: 2}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop, uid: u2}, spec: {clusterIP: None, clusterIPs: [None], selector: {app: db}}}
---
{apiVersion: v1, kind: Service, metadata: {name: db-0, namespace: shop}, spec: {type: NodePort, clusterIP: 10.0.0.7, clusterIPs: [10.0.0.7], ipFamilies: [IPv4], selector: {app: db, statefulset.kubernetes.io/pod-name: db-0}, ports: [{port: 3306, nodePort: 30001}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db-7, namespace: shop}, spec: {selector: {app: db, statefulset.kubernetes.io/pod-name: db-7}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}}}
---
{apiVersion: v1, kind: Service, metadata: {name: everything, namespace: shop}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: env, namespace: shop}, data: {k: v}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: one, namespace: shop}, data: {k: v}, immutable: true}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: mounted, namespace: shop}, binaryData: {k: AAE=}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: strangers, namespace: shop}, data: {k: v}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-root-ca.crt, namespace: shop}, data: {k: v}}
---
{apiVersion: v1, kind: Secret, metadata: {name: root, namespace: shop, annotations: {kubectl.kubernetes.io/last-applied-configuration: "in plain text"}}, type: Opaque, data: {password: c2VjcmV0}}
---
{apiVersion: v1, kind: Secret, metadata: {name: cert, namespace: shop}, type: kubernetes.io/tls, data: {tls.key: c2VjcmV0}}
---
{apiVersion: v1, kind: Secret, metadata: {name: token, namespace: shop}, type: kubernetes.io/service-account-token, data: {token: c2VjcmV0}}
---
{apiVersion: v1, kind: Secret, metadata: {name: strangers, namespace: shop}, data: {password: c2VjcmV0}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: db, namespace: shop, annotations: {eks.amazonaws.com/role-arn: arn}}, secrets: [{name: db-token}], imagePullSecrets: [{name: other-registry}]}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: db, namespace: shop}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: db}}}, status: {currentHealthy: 2}}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: all, namespace: shop}, spec: {maxUnavailable: 1, selector: {}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-db-0, namespace: shop, annotations: {pv.kubernetes.io/bind-completed: "yes"}}, spec: {volumeName: pv-0, resources: {requests: {storage: 1Gi}}}, status: {phase: Bound}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-db-1, namespace: shop}, spec: {volumeName: pv-1, resources: {requests: {storage: 3Gi}}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-db-2, namespace: shop}, spec: {volumeName: pv-2, resources: {requests: {storage: 9Gi}}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: scripts, namespace: shop}, spec: {volumeName: pv-3}}
`

// usedCluster holds usedSet; change sees each object before.
func usedCluster(t testing.TB) *fake.Clientset {
	t.Helper()
	var objects []runtime.Object
	for doc := range strings.SplitSeq(usedSet, "\n---\n") {
		data, err := yaml.YAMLToJSON([]byte(doc))
		require.NoError(t, err)
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(data, nil, nil)
		require.NoError(t, err, doc)
		objects = append(objects, o)
	}
	return fake.NewClientset(objects...)
}

func objectNames(o Objects) string {
	names := make([]string, 0, len(o.Items))
	for _, item := range o.Items {
		names = append(names, item.Kind+"/"+item.Name)
	}
	return strings.Join(names, " ")
}

func omitted(o Objects) string {
	var all []string
	for _, m := range o.Omitted {
		all = append(all, m.String())
	}
	return strings.Join(all, "\n")
}

// TestObjectsOfASet: what the pod template names or is selected by, and nothing
// else of the namespace; without what a cluster has written into it.
func TestObjectsOfASet(t *testing.T) {
	c := New(usedCluster(t), "shop", nil)
	objects, err := c.Objects(t.Context(), "db", true)
	require.NoError(t, err)
	assert.Equal(t, "ServiceAccount/db Secret/cert Secret/root ConfigMap/env ConfigMap/mounted ConfigMap/one Service/db Service/db-0 PodDisruptionBudget/db "+
		"PersistentVolumeClaim/data-db-0 PersistentVolumeClaim/data-db-1 PersistentVolumeClaim/scripts StatefulSet/db", objectNames(objects))
	assert.Equal(t, "ConfigMap projected: is named by the set and not there\nSecret token: is of the type kubernetes.io/service-account-token, which a cluster makes for itself", omitted(objects))

	data, err := objects.Encode()
	require.NoError(t, err)
	for _, gone := range []string{
		`"uid"`, "resourceVersion", "generation", "finalizers", "ownerReferences", "managedFields", "last-applied", "keepset/", `"status"`, "creationTimestamp",
		"10.0.0.7", "30001", "IPv4", "bind-completed", "pv-0", "db-token", `"namespace": "shop"` + "\n  }",
	} {
		assert.NotContains(t, string(data), gone)
	}
	for _, stays := range []string{`"clusterIP": "None"`, "role-arn", `"team": "shop"`, `"mine": "1"`, `"replicas": 2`, "AAE=", "c2VjcmV0"} {
		assert.Contains(t, string(data), stays)
	}
	read, err := ParseObjects(data)
	require.NoError(t, err)
	again, err := read.Encode()
	require.NoError(t, err)
	assert.Equal(t, string(data), string(again))
}

// TestObjectsWithoutRights: what may not be read is left out, with the right
// that is missing; a server that fails is an error.
func TestObjectsWithoutRights(t *testing.T) {
	kube := usedCluster(t)
	denied := map[string]bool{"configmaps": true, "secrets": true, "services": true, "poddisruptionbudgets": true, "serviceaccounts": true}
	kube.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		resource := a.GetResource().Resource
		if !denied[resource] {
			return false, nil, nil
		}
		text := fmt.Sprintf("User \"system:serviceaccount:shop:keepset-backup\" cannot %s resource %q in API group \"\" in the namespace \"shop\"", a.GetVerb(), resource)
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", fmt.Errorf("%s", text))
	})
	objects, err := New(kube, "shop", nil).Objects(t.Context(), "db", true)
	require.NoError(t, err)
	assert.Equal(t, "PersistentVolumeClaim/data-db-0 PersistentVolumeClaim/data-db-1 PersistentVolumeClaim/scripts StatefulSet/db", objectNames(objects))
	for _, want := range []string{
		"ConfigMap one: read configmap shop/one: not allowed: service account shop/keepset-backup may not get configmaps in namespace shop; the rule is in deploy/cronjob/base/rbac-backup.yaml",
		"may not get secrets in namespace shop; the rule is in deploy/cronjob/components/secrets", "may not list services", "may not list poddisruptionbudgets", "may not get serviceaccounts",
	} {
		assert.Contains(t, omitted(objects), want)
	}
	for _, o := range objects.Omitted {
		assert.False(t, o.ByChoice, o)
	}

	kube.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewInternalError(fmt.Errorf("etcd is away"))
	})
	_, err = New(kube, "shop", nil).Objects(t.Context(), "db", true)
	require.ErrorContains(t, err, "etcd is away")
}

// TestSecretsOnlyWhereAskedFor: nobody reads a Secret otherwise.
func TestSecretsOnlyWhereAskedFor(t *testing.T) {
	kube := usedCluster(t)
	kube.PrependReactor("*", "secrets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		assert.Fail(t, "a Secret is read", "%v", a)
		return false, nil, nil
	})
	objects, err := New(kube, "shop", nil).Objects(t.Context(), "db", false)
	require.NoError(t, err)
	assert.NotContains(t, objectNames(objects), "Secret/")
	assert.Contains(t, omitted(objects), "Secret root: Secrets were not asked for")
	for _, o := range objects.Omitted {
		assert.Equal(t, o.Kind == "Secret", o.ByChoice, o)
	}
}

// TestCreateObjects: what is missing is made, in a namespace that is made, too;
// the set without replicas, with claims as large as the largest was; what
// exists is compared and never changed.
func TestCreateObjects(t *testing.T) {
	objects := usedObjects(t)
	objects.ForRestore()
	kube := fake.NewClientset()
	c := New(kube, "new", nil)

	result, err := c.CreateObjects(t.Context(), objects, true)
	require.NoError(t, err)
	assert.Contains(t, result, CreatedObject{Kind: "Namespace", Name: "new", Action: ObjectCreated})
	for _, a := range kube.Actions() {
		assert.Equal(t, "get", a.GetVerb(), "a dry run makes nothing")
	}

	kube.ClearActions()
	result, err = c.CreateObjects(t.Context(), objects, false)
	require.NoError(t, err)
	var order []string
	for _, a := range kube.Actions() {
		if a.GetVerb() == "create" {
			order = append(order, a.GetResource().Resource)
		}
	}
	assert.Equal(t, "namespaces serviceaccounts secrets secrets configmaps configmaps configmaps services services poddisruptionbudgets statefulsets", strings.Join(order, " "))
	for _, r := range result {
		want := ObjectCreated
		if r.Kind == kindClaim {
			want = ObjectLeft
		}
		assert.Equal(t, want, r.Action, r)
	}
	assert.Contains(t, result, CreatedObject{Kind: kindClaim, Name: "scripts", Action: ObjectLeft, Note: "all pods mount it, and the backup does not hold what is in it: make and fill it yourself"})
	set, err := kube.AppsV1().StatefulSets("new").Get(t.Context(), "db", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Zero(t, *set.Spec.Replicas)
	assert.Equal(t, "3Gi", set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage().String())

	// Its replicas are there, somebody has changed a ConfigMap, and the cluster has given a Service its address.
	replicas := int32(2)
	set.Spec.Replicas, set.Annotations = &replicas, map[string]string{"mine": "1", AnnotationReleased: "now"}
	_, err = kube.AppsV1().StatefulSets("new").Update(t.Context(), set, metav1.UpdateOptions{})
	require.NoError(t, err)
	_, err = kube.CoreV1().ConfigMaps("new").Update(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "env"}, Data: map[string]string{"k": "w"}}, metav1.UpdateOptions{})
	require.NoError(t, err)
	service, err := kube.CoreV1().Services("new").Get(t.Context(), "db-0", metav1.GetOptions{})
	require.NoError(t, err)
	service.Spec.ClusterIP, service.Spec.ClusterIPs, service.Spec.Ports[0].NodePort = "10.0.0.9", []string{"10.0.0.9"}, 30007
	_, err = kube.CoreV1().Services("new").Update(t.Context(), service, metav1.UpdateOptions{})
	require.NoError(t, err)
	kube.ClearActions()
	result, err = c.CreateObjects(t.Context(), objects, false)
	require.NoError(t, err)
	for _, r := range result {
		switch {
		case r.Kind == kindClaim:
		case r.Name == "env":
			assert.Equal(t, ObjectDiffers, r.Action, r)
		default:
			assert.Equal(t, ObjectSame, r.Action, r)
		}
	}
	for _, a := range kube.Actions() {
		assert.Equal(t, "get", a.GetVerb())
	}
}

// usedObjects are those of usedSet, out of a backup.
func usedObjects(t testing.TB) Objects {
	t.Helper()
	objects, err := New(usedCluster(t), "shop", nil).Objects(t.Context(), "db", true)
	require.NoError(t, err)
	data, err := objects.Encode()
	require.NoError(t, err)
	objects, err = ParseObjects(data)
	require.NoError(t, err)
	return objects
}

// TestHostileObjects: a store is input. What a set has nothing to do with is not
// created, whoever wrote it into a backup; nor does anything say where.
func TestHostileObjects(t *testing.T) {
	base := usedObjects(t)
	for name, c := range map[string]struct {
		add, err string
	}{
		"role":            {`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"db"}}`, "no kind that travels"},
		"pod":             {`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"db-0"}}`, "no kind that travels"},
		"other version":   {`{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"env"}}`, "no kind that travels"},
		"strange config":  {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"coredns"}}`, "has nothing to do with ConfigMap coredns"},
		"root ca":         {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kube-root-ca.crt"}}`, "has nothing to do with"},
		"strange secret":  {`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"strangers"}}`, "has nothing to do with"},
		"token":           {`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"token"},"type":"kubernetes.io/service-account-token"}`, "has nothing to do with"},
		"strange service": {`{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"selector":{"app":"web"}}}`, "has nothing to do with"},
		"open service":    {`{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{}}`, "has nothing to do with"},
		"open budget":     {`{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"all"},"spec":{"selector":{}}}`, "has nothing to do with"},
		"other account":   {`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}`, "has nothing to do with"},
		"other set":       {`{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"zdb"}}`, "has nothing to do with StatefulSet zdb"},
		"twice":           {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"env"}}`, "two of ConfigMap env"},
		"no name":         {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":""}}`, `ConfigMap ""`},
		"path":            {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"../../nodes"}}`, "../../nodes"},
		"no object":       {`17`, "not the objects of a set"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := base.Encode()
			require.NoError(t, err)
			var list map[string]any
			require.NoError(t, json.Unmarshal(data, &list))
			items, ok := list["items"].([]any)
			require.True(t, ok)
			list["items"] = append(items, json.RawMessage(c.add))
			data, err = json.Marshal(list)
			require.NoError(t, err)
			_, err = ParseObjects(data)
			require.ErrorIs(t, err, ErrObjects)
			require.ErrorContains(t, err, c.err)
		})
	}
	for text, want := range map[string]string{
		"":                "not the objects",
		`{"kind":"List"}`: "format 0",
		`{"kind":"Pod"}`:  "kind",
		`{"kind":"List","keepset":{"format":9,"set":{"namespace":"a","name":"b"}}}`:    "knows up to 1",
		`{"kind":"List","keepset":{"format":1,"set":{"namespace":"..","name":"b/c"}}}`: "namespace",
		`{"kind":"List","keepset":{"format":1,"set":{"namespace":"a","name":"b"}}}`:    "StatefulSet b is not among them",
	} {
		_, err := ParseObjects([]byte(text))
		require.ErrorIs(t, err, ErrObjects, text)
		require.ErrorContains(t, err, want, text)
	}

	// Into another namespace, with an owner and a finalizer: what is created has none of it.
	data, err := base.Encode()
	require.NoError(t, err)
	text := strings.Replace(string(data), `"name": "env"`, `"name": "env", "namespace": "kube-system", "finalizers": ["a/b"], "ownerReferences": [{"kind":"Node","name":"n","uid":"u","apiVersion":"v1"}]`, 1)
	require.NotEqual(t, string(data), text)
	objects, err := ParseObjects([]byte(text))
	require.NoError(t, err)
	kube := fake.NewClientset()
	_, err = New(kube, "new", nil).CreateObjects(t.Context(), objects, false)
	require.NoError(t, err)
	for _, a := range kube.Actions() {
		if a.GetVerb() == "create" && a.GetResource().Resource != "namespaces" {
			assert.Equal(t, "new", a.GetNamespace())
		}
	}
	made, err := kube.CoreV1().ConfigMaps("new").Get(t.Context(), "env", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Empty(t, made.Finalizers)
	assert.Empty(t, made.OwnerReferences)
}

// What is parsed has nothing in it but what belongs to its set, survives being
// written, and is at zero replicas once it is ready to be created.
func FuzzObjects(f *testing.F) {
	objects := usedObjects(f)
	data, err := objects.Encode()
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"b"},"spec":{"replicas":2147483647,"ordinals":{"start":-1}}}],"keepset":{"format":1,"set":{"namespace":"a","name":"b"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		read, err := ParseObjects(data)
		if err != nil {
			require.ErrorIs(t, err, ErrObjects)
			return
		}
		again, err := read.Encode()
		require.NoError(t, err)
		second, err := ParseObjects(again)
		require.NoError(t, err)
		require.Equal(t, objectNames(read), objectNames(second))
		second.ForRestore()
		set := second.set()
		require.Zero(t, *set.Spec.Replicas)
		of := relationsOf(read.set())
		for _, item := range second.Items {
			require.Empty(t, item.object.GetNamespace())
			require.Empty(t, item.object.GetOwnerReferences())
			if o, ok := item.object.(*corev1.ConfigMap); ok {
				require.Contains(t, of.configMaps, o.Name)
			}
			if o, ok := item.object.(*appsv1.StatefulSet); ok {
				require.Equal(t, read.Set.Name, o.Name)
			}
		}
	})
}
