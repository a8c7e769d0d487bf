package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keepset/internal/statefulset"
)

// cluster is the real Kubernetes that a test runs on, and a namespace of its
// own in it.
type cluster struct {
	t          *testing.T
	config     *rest.Config
	kube       kubernetes.Interface
	kubeconfig string
	kubectlBin string
	ns         string
}

// cacheRoot is where `make cluster-up` puts everything.
func cacheRoot() string {
	if dir := os.Getenv("KEEPSET_CACHE"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "keepset")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "keepset-cache-without-a-home"
	}
	return filepath.Join(home, ".cache", "keepset")
}

// newCluster connects and makes a namespace, with the labels given as k=v,
// which goes with the test.
func newCluster(t *testing.T, labels ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, kubeconfig: os.Getenv("KUBECONFIG"), kubectlBin: filepath.Join(cacheRoot(), "bin", "kubectl")}
	if c.kubeconfig == "" {
		c.kubeconfig = filepath.Join(cacheRoot(), "cluster", "admin.kubeconfig")
	}
	var err error
	c.config, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	require.NoError(t, err, "no cluster to test on: run make cluster-up")
	c.config.QPS, c.config.Burst = 100, 200
	c.kube, err = kubernetes.NewForConfig(c.config)
	require.NoError(t, err)
	_, err = c.kube.Discovery().ServerVersion()
	require.NoError(t, err, "the cluster of %s does not answer: run make cluster-up", c.kubeconfig)
	c.ns = c.newNamespace(labels...)
	return c
}

// newNamespace makes one more namespace, in the same cluster.
func (c *cluster) newNamespace(labels ...string) string {
	c.t.Helper()
	base := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(strings.TrimPrefix(c.t.Name(), "Test")))
	name := fmt.Sprintf("e2e-%.40s-%04x", strings.Trim(base, "-"), rand.IntN(1<<16))
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		ns.Labels[k] = v
	}
	_, err := c.kube.CoreV1().Namespaces().Create(c.t.Context(), ns, metav1.CreateOptions{})
	require.NoError(c.t, err)
	c.t.Cleanup(func() { c.cleanup(name) })
	return name
}

// cleanup removes a namespace and what our finalizers would keep alive in it.
// After a failure it first says what was there.
func (c *cluster) cleanup(ns string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if c.t.Failed() {
		for _, what := range []string{"pods,pvc,jobs,cronjobs,leases,statefulsets", "events"} {
			out, _ := exec.CommandContext(ctx, c.kubectlBin, "--kubeconfig", c.kubeconfig, "-n", ns, "get", what, "-o", "wide").CombinedOutput()
			c.t.Logf("%s in %s:\n%s", what, ns, out)
		}
		if os.Getenv("KEEPSET_E2E_KEEP") != "" {
			c.t.Logf("namespace %s is kept", ns)
			return
		}
	}
	if err := c.kube.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
		c.t.Errorf("delete namespace %s: %v", ns, err)
	}
	// Nothing new comes into a namespace that is going. What a test left held on
	// purpose would keep it forever.
	c.dropFinalizers(ctx, ns)
}

func (c *cluster) dropFinalizers(ctx context.Context, ns string) {
	none := []byte(`{"metadata":{"finalizers":null}}`)
	pods, _ := c.kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	for _, p := range pods.Items {
		if slices.Contains(p.Finalizers, statefulset.Finalizer) {
			_, _ = c.kube.CoreV1().Pods(ns).Patch(ctx, p.Name, types.MergePatchType, none, metav1.PatchOptions{})
		}
	}
	claims, _ := c.kube.CoreV1().PersistentVolumeClaims(ns).List(ctx, metav1.ListOptions{})
	for _, p := range claims.Items {
		if slices.Contains(p.Finalizers, statefulset.Finalizer) {
			// What is being deleted takes no finalizer any more, not even one that it had.
			others := slices.DeleteFunc(slices.Clone(p.Finalizers), func(f string) bool { return f == statefulset.Finalizer })
			keep, _ := json.Marshal(map[string]any{"metadata": map[string]any{"finalizers": others}})
			_, _ = c.kube.CoreV1().PersistentVolumeClaims(ns).Patch(ctx, p.Name, types.MergePatchType, keep, metav1.PatchOptions{})
		}
	}
}

// try runs kubectl in the namespace and returns what it said, output and
// complaints together.
func (c *cluster) try(args ...string) (string, error) { return c.tryInput("", args...) }

func (c *cluster) tryInput(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.kubectlBin, append([]string{"--kubeconfig", c.kubeconfig, "-n", c.ns}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// kubectl is try for what has to succeed.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	require.NoError(c.t, err, "kubectl %s: %s", strings.Join(args, " "), out)
	return out
}

// apply applies YAML to the namespace.
func (c *cluster) apply(yaml string) {
	c.t.Helper()
	out, err := c.tryInput(yaml, "apply", "-f", "-")
	require.NoError(c.t, err, "kubectl apply: %s", out)
}

// in is the same cluster with another namespace.
func (c *cluster) in(ns string) *cluster {
	other := *c
	other.ns = ns
	return &other
}

// as is a configuration that acts as a service account of the namespace, by a
// token like the one that its pods get.
func (c *cluster) as(account string) *rest.Config {
	c.t.Helper()
	token, err := c.kube.CoreV1().ServiceAccounts(c.ns).CreateToken(c.t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	config := rest.AnonymousClientConfig(c.config)
	config.BearerToken = token.Status.Token
	config.QPS, config.Burst = 100, 200
	return config
}

const patience = 2

// until waits for a condition. Asking takes at most a quarter of the time, since
// the cluster and its pods need the rest.
func (c *cluster) until(timeout time.Duration, what string, done func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience * timeout)
	for {
		asked := time.Now()
		if done() {
			return
		}
		if time.Now().After(deadline) {
			require.FailNow(c.t, "not in time", "%s: not within %s", what, patience*timeout)
		}
		time.Sleep(max(200*time.Millisecond, 3*time.Since(asked)))
	}
}

// pod reads a pod; nil when there is none.
func (c *cluster) pod(name string) *corev1.Pod {
	pod, err := c.kube.CoreV1().Pods(c.ns).Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return pod
}

// ready reports whether a pod is the set's own, and Ready.
func ready(pod *corev1.Pod) bool {
	if pod == nil || pod.DeletionTimestamp != nil || metav1.GetControllerOf(pod) == nil {
		return false
	}
	for _, cond := range pod.Status.Conditions {
		if cond.Type == corev1.PodReady {
			return cond.Status == corev1.ConditionTrue
		}
	}
	return false
}

// soak is true in `make soak`: full size instead of a sample.
func soak() bool { return os.Getenv("KEEPSET_SOAK") != "" }

// imageTag is the image of Keepset that is tested: dev, which `make
// cluster-image` builds, or another one beside it.
func imageTag() string { return cmp.Or(os.Getenv("KEEPSET_E2E_TAG"), "dev") }
