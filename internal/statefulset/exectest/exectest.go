// Package exectest is what stands behind pods/exec: the API server, which
// speaks websocket or SPDY, and the container's runtime behind it.
//
// Its central type is [Server], an http.Handler. It also fails as they do: see
// [How]. Of the two sides of a connection that breaks, it imitates the worse one:
// the program in the container sees an end of its input.
package exectest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
)

// How a connection ends that is cut.
type How int

const (
	// Dropped is a TCP connection that is gone.
	Dropped How = iota
	// Closed in good order, without a status, as by a proxy that shuts down.
	Closed
	// Denied is an API server that has lost the node behind it, and says "Success".
	Denied
)

// Program runs a program in a container and returns its status. stdin is nil
// when none was asked for.
type Program func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) int

// Server serves exec requests, whatever their path.
type Server struct {
	Run Program
	// NoWebSocket is an API server, or a proxy, that knows SPDY only.
	NoWebSocket bool
	// CutOutput and CutInput cut the connection after so many bytes; 0: never.
	CutOutput, CutInput int64
	How                 How
}

// channels are an exec connection, whatever it is made of.
type channels struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	status         io.Writer
	// end closes the connection in good order, drop at once.
	end, drop func()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	open := openWebSocket
	if r.Header.Get("Upgrade") != "websocket" {
		open = openSPDY
	} else if s.NoWebSocket {
		http.Error(w, "no websockets here", http.StatusForbidden)
		return
	}
	c, err := open(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	cut := sync.OnceFunc(func() { s.cut(c, cancel) })
	stdout := &counter{limit: s.CutOutput, w: c.stdout, cut: cut}
	var stdin io.Reader
	if c.stdin != nil {
		stdin = &cutReader{counter: counter{limit: s.CutInput, cut: cut}, r: c.stdin}
	}
	status := s.Run(ctx, r.URL.Query()["command"], stdin, stdout, c.stderr)
	if ctx.Err() != nil {
		return // it was cut
	}
	// That the client has gone is not an error of this side.
	_ = json.NewEncoder(c.status).Encode(statusOf(status))
	c.end()
}

func (s *Server) cut(c *channels, cancel func()) {
	switch s.How {
	case Dropped:
		c.drop()
	case Closed:
		c.end()
	case Denied:
		_ = json.NewEncoder(c.status).Encode(statusOf(0))
		c.end()
	}
	cancel()
}

// statusOf is what the API server says of a program's end.
func statusOf(code int) metav1.Status {
	if code == 0 {
		return metav1.Status{Status: metav1.StatusSuccess}
	}
	return metav1.Status{
		Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
		Message: "command terminated with non-zero exit code",
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(code)}}},
	}
}

var errCut = errors.New("the connection is cut")

// counter passes bytes on until it cuts.
type counter struct {
	n, limit int64
	w        io.Writer
	cut      func()
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	if c.limit > 0 && c.n+int64(len(p)) > c.limit {
		n, err := c.w.Write(p[:c.limit-c.n])
		c.n += int64(n)
		c.cut()
		return n, errors.Join(errCut, err)
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// cutReader passes bytes on until it cuts: the program sees an end.
type cutReader struct {
	counter
	r io.Reader
}

// Read implements io.Reader.
func (c *cutReader) Read(p []byte) (int, error) {
	if c.limit > 0 && c.n >= c.limit {
		c.cut()
		return 0, io.EOF
	}
	if c.limit > 0 {
		p = p[:min(int64(len(p)), c.limit-c.n)]
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Here is a container whose programs run on this machine, with env, each in a
// session of its own as runtimes make it. What the end of the connection leaves
// of a program goes on until its own end; Wait waits for that.
type Here struct {
	Env []string

	mu      sync.Mutex
	running int
	idle    *sync.Cond // made by who waits
}

// Wait waits for the end of all programs, while others may be started.
func (h *Here) Wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle == nil {
		h.idle = sync.NewCond(&h.mu)
	}
	for h.running > 0 {
		h.idle.Wait()
	}
}

// start runs f in a goroutine that Wait waits for.
func (h *Here) start(f func()) {
	h.mu.Lock()
	h.running++
	h.mu.Unlock()
	go func() {
		f()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.running--; h.running == 0 && h.idle != nil {
			h.idle.Broadcast()
		}
	}()
}

// Run implements Program.
func (h *Here) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(argv) == 0 {
		return 128
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // a runtime does not end what it has started
	cmd.Env, cmd.Stdout, cmd.Stderr = h.Env, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return 128
	}
	if err := cmd.Start(); err != nil {
		_, _ = io.WriteString(stderr, err.Error())
		return 127
	}
	h.start(func() {
		if stdin != nil {
			_, _ = io.Copy(pipe, stdin)
		}
		_ = pipe.Close() // Wait may have closed it
	})
	ended := make(chan int, 1)
	h.start(func() {
		_ = cmd.Wait() // what it says is in the state
		code := cmd.ProcessState.ExitCode()
		if code < 0 {
			code = 137
		}
		ended <- code
	})
	select {
	case code := <-ended:
		return code
	case <-ctx.Done():
		return 137
	}
}
