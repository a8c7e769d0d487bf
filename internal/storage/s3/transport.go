package s3

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"golang.org/x/sys/unix"

	"keepset/internal/storage"
)

const (
	defaultIdleTimeout = time.Minute
	dialTimeout        = 10 * time.Second // three lost packets
	// parallel is the number of requests that readers and writers have in
	// flight at a time; that many connections are kept.
	parallel   = 64
	bufferSize = 64 << 10
	unsentSize = 256 << 10
)

// patience is how long a connection may carry no byte.
type patience struct {
	idle  time.Duration
	heard atomic.Bool // the store has answered a request
}

// now is half of it for a store that has never answered.
func (p *patience) now() time.Duration {
	if p.heard.Load() {
		return p.idle
	}
	return p.idle / 2
}

// newHTTPClient returns the client for the store and for whoever issues its
// credentials. The proxy comes from the environment.
func newHTTPClient(o Options, p *patience) (*awshttp.BuildableClient, error) {
	var pool *x509.CertPool
	if o.CABundle != "" {
		var err error
		if pool, err = readCABundle(o.CABundle); err != nil {
			return nil, err
		}
	}
	quick := func(d *net.Dialer) { d.Timeout = dialTimeout }
	return awshttp.NewBuildableClient().WithDialerOptions(quick).WithTransportOptions(func(tr *http.Transport) {
		dial := tr.DialContext
		tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			sendSoon(conn)
			return &activeConn{Conn: conn, patience: p}, nil
		}
		tr.MaxIdleConns, tr.MaxIdleConnsPerHost = parallel, parallel
		tr.IdleConnTimeout = min(tr.IdleConnTimeout, p.idle)
		tr.ReadBufferSize, tr.WriteBufferSize = bufferSize, bufferSize
		// Of one HTTP/2 connection all streams would share the fate and the window.
		tr.ForceAttemptHTTP2 = false
		if pool != nil {
			tr.TLSClientConfig.RootCAs = pool
		}
	}), nil
}

// freeze replaces the client that the SDK has put its configuration into by a
// plain one, whose dialer it leaves alone and whose idle connections can be
// closed, which the function returned does. What answers say of the time goes to clock.
func freeze(cfg *aws.Config, clock *storeClock) (func(), error) {
	buildable, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		return nil, fmt.Errorf("load the S3 configuration: unexpected HTTP client %T", cfg.HTTPClient)
	}
	transport := buildable.GetTransport()
	cfg.HTTPClient = &http.Client{
		Transport: &dated{next: transport, clock: clock},
		// A signature holds for one host only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return transport.CloseIdleConnections, nil
}

// sendSoon keeps what was written and not yet sent below unsentSize, so that
// on a slow line a write lasts about as long as its sending, and silence means silence. It is
// of no consequence where the system cannot do that.
func sendSoon(conn net.Conn) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentSize)
	})
}

func readCABundle(name string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the CA bundle: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the CA bundle %s: no PEM certificate in it: %w", name, storage.ErrInvalid)
	}
	return pool, nil
}

// activeConn fails when no byte has passed in either direction for as long as patience says. Of a read
// or write that waits, a deadline set by the other one counts: while a large
// body goes out, the wait for the reply must not time out.
type activeConn struct {
	net.Conn
	patience *patience
	expired  atomic.Bool
}

func (c *activeConn) Read(p []byte) (int, error) {
	idle := c.patience.now()
	if err := extend(c.SetReadDeadline, idle); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	return n, c.explain(err, idle)
}

// Write sends p in pieces, so that a slow but living connection extends its
// deadline by each of them.
func (c *activeConn) Write(p []byte) (int, error) {
	done := 0
	for {
		idle := c.patience.now()
		if err := extend(c.SetDeadline, idle); err != nil {
			return done, err
		}
		n, err := c.Conn.Write(p[done:min(done+bufferSize/4, len(p))])
		done += n
		if err != nil || done == len(p) {
			return done, c.explain(err, idle)
		}
	}
}

func extend(set func(time.Time) error, idle time.Duration) error {
	return set(time.Now().Add(idle)) //nolint:forbidigo // deadlines of sockets are by the wall clock
}

// explain says that it was silence. Whichever of reading and writing ends first
// makes the client close the connection under the other one.
func (c *activeConn) explain(err error, idle time.Duration) error {
	silent := errors.Is(err, os.ErrDeadlineExceeded)
	if silent {
		c.expired.Store(true)
	}
	if silent || c.expired.Load() && errors.Is(err, net.ErrClosed) {
		return &storage.SilentError{For: idle, Err: fmt.Errorf("the connection to %s was silent for %s: %w", c.RemoteAddr(), idle, err)}
	}
	return err
}

// taggedCredentials marks failures to get credentials as such, except those
// that a second attempt may cure.
type taggedCredentials struct{ aws.CredentialsProvider }

func (t taggedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if t.CredentialsProvider == nil {
		return aws.Credentials{}, errNoCredentials
	}
	creds, err := t.CredentialsProvider.Retrieve(ctx)
	if err == nil || ctx.Err() != nil {
		return creds, err
	}
	var network net.Error
	var op *smithy.OperationError
	var api smithy.APIError
	// Whoever has no credentials at all ends at the instance's metadata service,
	// which is not there: that is not a network failure.
	noInstance := errors.As(err, &op) && op.ServiceID == "ec2imds"
	serverFault := errors.As(err, &api) && api.ErrorFault() == smithy.FaultServer
	if !noInstance && (serverFault || errors.As(err, &network)) {
		return creds, err
	}
	if noInstance {
		return creds, &credentialsError{err: err, says: "none in the environment, in files, from a web identity or an instance role"}
	}
	return creds, &credentialsError{err: err, says: err.Error()}
}

// Invalidate makes the next Retrieve ask the source again.
func (t taggedCredentials) Invalidate() {
	if cache, ok := t.CredentialsProvider.(*aws.CredentialsCache); ok {
		cache.Invalidate()
	}
}

var errNoCredentials = &credentialsError{err: storage.ErrCredentials, says: "none are configured"}

// credentialsError says why there are no credentials.
type credentialsError struct {
	err  error
	says string
}

func (e *credentialsError) Error() string   { return e.says }
func (e *credentialsError) Unwrap() []error { return []error{e.err, storage.ErrCredentials} }
