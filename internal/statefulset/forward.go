package statefulset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// DialPod connects to a port of a pod of the namespace through the API server,
// as kubectl port-forward does: from a machine that the pods' network does not
// reach. The address is host:port, where host is the pod's IP address or the
// name that its set's Service gives it. The server in the pod sees a connection
// of its own machine. A port that nobody listens at is only noticed at the first
// Read. It needs the right to create pods/portforward.
func (c *Client) DialPod(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.dialPod(ctx, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return conn, nil
}

func (c *Client) dialPod(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	pod, err := c.podAt(ctx, host)
	if err != nil {
		return nil, err
	}
	dialer, err := c.forwarder(pod)
	if err != nil {
		return nil, err
	}
	dialed := make(chan forwarded, 1)
	go func() {
		conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		dialed <- forwarded{conn, err}
	}()
	select {
	case d := <-dialed:
		if d.err != nil {
			return nil, explain(d.err, "forward port "+port+" of "+c.ref("pod", pod))
		}
		return openForward(d.conn, port)
	case <-ctx.Done():
		go func() { // client-go's Dial knows no context
			if d := <-dialed; d.err == nil {
				_ = d.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

type forwarded struct {
	conn httpstream.Connection
	err  error
}

// podAt finds the pod that a host is. Names of pods are <pod>.<service>, in the
// namespace that may follow.
func (c *Client) podAt(ctx context.Context, host string) (string, error) {
	if net.ParseIP(host) == nil {
		labels := strings.Split(host, ".")
		if len(labels) < 2 || len(labels) > 2 && labels[2] != c.namespace || len(validation.IsDNS1123Label(labels[0])) > 0 {
			return "", fmt.Errorf("%s is no pod of namespace %s: only those are reached through the API server", host, c.namespace)
		}
		return labels[0], nil
	}
	pods, err := c.kube.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", explain(err, "list the pods of namespace "+c.namespace)
	}
	for _, p := range pods.Items {
		if p.Status.PodIP == host && p.Status.Phase == corev1.PodRunning {
			return p.Name, nil
		}
	}
	return "", fmt.Errorf("no running pod of namespace %s has the address %s: only those are reached through the API server", c.namespace, host)
}

// forwarder prefers a websocket, like Exec.
func (c *Client) forwarder(pod string) (httpstream.Dialer, error) {
	url := c.kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.namespace).Name(pod).SubResource("portforward").URL()
	socket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, c.upgrade)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.upgrade)
	if err != nil {
		return nil, err
	}
	plain := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	return portforward.NewFallbackDialerForStreaming(socket, plain, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// openForward opens the one pair of streams that a connection carries: errors,
// and data.
func openForward(conn httpstream.Connection, port string) (net.Conn, error) {
	headers := http.Header{}
	headers.Set(corev1.PortHeader, port)
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failures, err := conn.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = failures.Close() // we write nothing to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	// The streams know no deadlines; a pipe does.
	near, far := net.Pipe()
	f := &forward{Conn: near, connection: conn, refused: make(chan struct{})}
	go func() {
		defer close(f.refused)
		text, err := io.ReadAll(io.LimitReader(failures, 4<<10))
		if err == nil && len(text) > 0 {
			f.reason = strings.TrimSpace(string(text))
		}
	}()
	go func() {
		_, _ = io.Copy(far, data) // why it ended is said by the stream of errors
		_ = far.Close()
	}()
	go func() {
		_, _ = io.Copy(data, far)
		_ = data.Close()
	}()
	return f, nil
}

// forward is a connection through the API server.
type forward struct {
	net.Conn
	connection httpstream.Connection
	// refused is closed when the other end has nothing more to say of errors,
	// which reason then is.
	refused chan struct{}
	reason  string
}

// Read says why there is nothing to read, where the node has told.
func (f *forward) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-f.refused:
		if f.reason != "" {
			return 0, errors.New(f.reason)
		}
	case <-timer.C:
	}
	return 0, err
}

// Close ends the connection to the API server as well.
func (f *forward) Close() error { return errors.Join(f.Conn.Close(), f.connection.Close()) }
