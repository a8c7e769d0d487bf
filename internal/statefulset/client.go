package statefulset

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
)

// Client speaks to one namespace of one cluster.
type Client struct {
	kube   kubernetes.Interface
	config *rest.Config
	// upgrade is config for connections that become streams: those are no
	// requests that could be repeated.
	upgrade   *rest.Config
	namespace string
	origin    func() (string, error)
	log       *slog.Logger
	clock     clock.WithTicker
	poll      time.Duration
	// leases is which of a set's Leases the Client takes.
	leases leaseKind
}

// Options say which cluster and namespace. Empty fields take the pod's own
// service account inside a cluster, and kubectl's rules outside.
type Options struct {
	Kubeconfig, Context, Namespace string
	Log                            *slog.Logger
}

// Connect makes a Client. It does not reach for the API server yet.
// ErrNoCluster when nothing says where one is.
func Connect(o Options) (*Client, error) {
	config, namespace, err := o.load()
	if err != nil {
		return nil, err
	}
	// The default of 5 requests a second would make a set of twenty members
	// wait for itself.
	config.QPS, config.Burst = 50, 100
	config.UserAgent = "keepset"
	// Warnings of the API server are about our own requests, and no user's.
	config.WarningHandler = rest.NoWarnings{}
	upgrade := rest.CopyConfig(config)
	config.Wrap(patientWith(o.Log))
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a Kubernetes client: %w", err)
	}
	client := New(kube, namespace, o.Log)
	client.config, client.upgrade = config, upgrade
	client.origin = func() (string, error) { return originOf(config) }
	return client, nil
}

func (o Options) load() (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	if o.Kubeconfig == "" && o.Context == "" && os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		// In a pod a stray kubeconfig of the image must not decide.
		rules = &clientcmd.ClientConfigLoadingRules{}
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.Context})
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, "", fmt.Errorf("%w: run in a pod, set KUBECONFIG or give --kubeconfig", ErrNoCluster)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the Kubernetes configuration: %w", err)
	}
	namespace := o.Namespace
	if namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, "", fmt.Errorf("read the namespace from the Kubernetes configuration: %w", err)
		}
	}
	return config, namespace, nil
}

// New makes a Client from an existing clientset.
func New(kube kubernetes.Interface, namespace string, log *slog.Logger) *Client {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	unknown := func() (string, error) { return "", nil }
	return &Client{kube: kube, namespace: namespace, origin: unknown, log: log, clock: clock.RealClock{}, poll: 500 * time.Millisecond, leases: restoreLeases}
}

// Connection is what other packages reach the same cluster with, as the same
// account.
func (c *Client) Connection() (kubernetes.Interface, *rest.Config) { return c.kube, c.config }

// Namespace is the one that the Client is bound to.
func (c *Client) Namespace() string { return c.namespace }

// ref is how messages name an object of the namespace.
func (c *Client) ref(kind, name string) string {
	return fmt.Sprintf("%s %s/%s", kind, c.namespace, name)
}
