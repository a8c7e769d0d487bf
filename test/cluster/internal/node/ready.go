package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

func (n *Node) etcdReady(ctx context.Context) error { return healthy(ctx, etcdURL+"/health") }

// kubeletReady asks the kubelet itself: the node's status lags behind.
func (n *Node) kubeletReady(ctx context.Context) error {
	return healthy(ctx, "http://"+Address+":10248/healthz")
}

// healthy asks a daemon for its health.
func healthy(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// Not http.DefaultClient: a proxy of the environment must not be asked.
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

func (n *Node) apiReady(ctx context.Context) error {
	_, err := n.kubectl(ctx, nil, "get", "--raw", "/readyz", "--request-timeout", "5s")
	return err
}

func (n *Node) containerdReady(ctx context.Context) error {
	_, err := n.run(ctx, "ctr", "--address", n.socket(), "--timeout", "5s", "version")
	return err
}

func (n *Node) nodeReady(ctx context.Context) error {
	out, err := n.kubectl(ctx, nil, "get", "node", n.place().name, "--request-timeout", "5s",
		"-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].message}`)
	if err != nil {
		return err
	}
	if status, message, _ := strings.Cut(out, " "); status != "True" {
		return fmt.Errorf("node %s is not ready: %s", n.place().name, message)
	}
	return nil
}

// accountReady waits for what no pod starts without.
func (n *Node) accountReady(ctx context.Context) error {
	if _, err := n.kubectl(ctx, nil, "get", "serviceaccount", "default", "--request-timeout", "5s"); err != nil {
		return err
	}
	_, err := n.kubectl(ctx, nil, "get", "configmap", "kube-root-ca.crt", "--request-timeout", "5s")
	return err
}

// policiesReady looks for the last of the rules that the first round of
// kube-router writes: those of the policies are there from then on.
func (n *Node) policiesReady(ctx context.Context) error {
	rules, err := n.run(ctx, "iptables", "--wait", "-S", "KUBE-ROUTER-FORWARD")
	if err != nil {
		return fmt.Errorf("look for the rules of NetworkPolicies: %w", err)
	}
	if !strings.Contains(rules, "-j ACCEPT") {
		return errors.New("the rules of NetworkPolicies are not written yet")
	}
	return nil
}

// dnsReady resolves a name of the cluster.
func (n *Node) dnsReady(ctx context.Context) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, Address+":53")
	}}
	const host = "kubernetes.default.svc." + domain + "."
	found, err := resolver.LookupHost(ctx, host)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", host, err)
	}
	if len(found) != 1 || found[0] != apiService {
		return fmt.Errorf("resolve %s: got %v, want %s", host, found, apiService)
	}
	return nil
}

// kubectl runs kubectl as administrator and returns its standard output.
func (n *Node) kubectl(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := n.command(ctx, "kubectl", append([]string{"--kubeconfig", n.Kubeconfig(), "--cache-dir", n.path("kubectl-cache")}, args...)...)
	cmd.Stdin = strings.NewReader(string(stdin))
	return output(cmd)
}

// run runs one of the node's tools and returns its standard output.
func (n *Node) run(ctx context.Context, tool string, args ...string) (string, error) {
	return output(n.command(ctx, tool, args...))
}

func (n *Node) command(ctx context.Context, tool string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.Tools.Path(tool), args...)
	cmd.Env = append(os.Environ(), n.Tools.Env()...)
	return cmd
}

// output runs a command; what it says on standard error is in the error.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if err != nil {
		var stderr string
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			stderr = ": " + strings.TrimSpace(string(exit.Stderr))
		}
		return "", fmt.Errorf("%s: %w%s", strings.Join(cmd.Args, " "), err, stderr)
	}
	return string(out), nil
}
