package statefulset

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
)

// Exec is a program in a container of a pod of the namespace.
type Exec struct {
	Pod, Container string
	Command        []string
	// Stdin may be nil, and is then empty.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// ExitError is a program's status when it is not 0.
type ExitError struct {
	Pod, Container string
	Code           int
}

// Error implements error.
func (e *ExitError) Error() string {
	return fmt.Sprintf("the program in container %s of pod %s ended with exit code %d", e.Container, e.Pod, e.Code)
}

// Exec runs the program, over a websocket or, where something in between knows
// none, SPDY. Nil means that its status came over the same connection, behind
// the output, and is 0. Our connection being cut off is an error. But the API
// server, which goes on to the node, takes a connection that is cut there for
// the program's end and says that all went well, and a websocket that is closed
// in good order counts as that, too: who depends on the end of the output needs
// a proof of its own. When ctx ends, readers and writers may be used a little
// longer. It needs the right to create pods/exec.
func (c *Client) Exec(ctx context.Context, e Exec) error {
	doing := fmt.Sprintf("run a program in container %s of %s", e.Container, c.ref("pod", e.Pod))
	request := c.kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.namespace).Name(e.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: e.Container, Command: e.Command, Stdin: e.Stdin != nil, Stdout: e.Stdout != nil, Stderr: e.Stderr != nil,
		}, scheme.ParameterCodec)
	socket, err := remotecommand.NewWebSocketExecutor(c.upgrade, "GET", request.URL().String())
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	spdy, err := newSPDYExecutor(c.upgrade, request)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	both, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	// Client-go writes to standard error what its error says as well.
	ctx = klog.NewContext(ctx, klog.Logger{})
	err = both.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr})
	if status, ok := errors.AsType[exec.CodeExitError](err); ok {
		return &ExitError{Pod: e.Pod, Container: e.Container, Code: status.Code}
	}
	return explain(err, doing)
}
