package statefulset

import (
	"errors"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	remote "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	transport "k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// errNoStatus: the connection ended before the program's status came.
var errNoStatus = errors.New("the connection ended without the program's status")

// newSPDYExecutor makes what runs a program over SPDY. Client-go takes the end
// of the connection for the end of the program, and no status for success; so
// only those protocols are offered in which a success is said, and a connection
// that ends without one is an error.
func newSPDYExecutor(config *rest.Config, request *rest.Request) (remotecommand.Executor, error) {
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	proxy := http.ProxyFromEnvironment
	if config.Proxy != nil {
		proxy = config.Proxy
	}
	dialer, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{TLS: tls, Proxier: proxy, PingPeriod: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	authorized, err := rest.HTTPWrappersForConfig(config, dialer)
	if err != nil {
		return nil, err
	}
	upgrader := transport.NewUpgraderForStreaming(statusUpgrader{dialer})
	return remotecommand.NewSPDYExecutorForProtocols(authorized, upgrader, http.MethodPost, request.URL(), remote.StreamProtocolV5Name, remote.StreamProtocolV4Name)
}

// statusUpgrader makes connections that have to end with a status.
type statusUpgrader struct{ httpstream.UpgradeRoundTripper }

// NewConnection implements httpstream.UpgradeRoundTripper.
func (u statusUpgrader) NewConnection(r *http.Response) (httpstream.Connection, error) {
	conn, err := u.UpgradeRoundTripper.NewConnection(r)
	if err != nil {
		return nil, err
	}
	return statusConnection{conn}, nil
}

type statusConnection struct{ httpstream.Connection }

// CreateStream implements httpstream.Connection.
func (c statusConnection) CreateStream(headers http.Header) (httpstream.Stream, error) {
	stream, err := c.Connection.CreateStream(headers)
	if err != nil || headers.Get(corev1.StreamType) != corev1.StreamTypeError {
		return stream, err
	}
	return &statusStream{Stream: stream}, nil
}

// statusStream brings the status, which is never empty.
type statusStream struct {
	httpstream.Stream
	came bool
}

// Read implements io.Reader.
func (s *statusStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.came = s.came || n > 0
	if errors.Is(err, io.EOF) && !s.came {
		return n, errNoStatus
	}
	return n, err
}
