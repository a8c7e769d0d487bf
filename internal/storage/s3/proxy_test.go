package s3_test

import (
	"bytes"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/s3"
	"keepset/test/servers"
)

// forwardProxy is the HTTP proxy of the environment.
var forwardProxy proxyServer //nolint:gochecknoglobals // as the environment is

// proxyServer knows one host, and how to reach it.
type proxyServer struct {
	target   atomic.Pointer[string]
	requests atomic.Int64
}

func (p *proxyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	target := p.target.Load()
	if target == nil || r.URL.Host != "s3.keepset.test" {
		http.Error(w, "the proxy does not know this host", http.StatusBadGateway)
		return
	}
	relay(*target).ServeHTTP(w, r)
}

// relay forwards requests unchanged, as their signature demands.
func relay(address string) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", address },
		Transport:    &http.Transport{DisableKeepAlives: true},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
}

func TestProxyOfTheEnvironment(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"))
	s := open(t, server, func(o *s3.Options) { o.Endpoint = "http://s3.keepset.test" })

	err := s.Put(t.Context(), "k", strings.NewReader("x"))
	require.ErrorContains(t, err, "502", "a proxy that does not reach the store")
	require.False(t, storage.Permanent(err))

	address := strings.TrimPrefix(server.Endpoint, "http://")
	forwardProxy.target.Store(&address)
	defer forwardProxy.target.Store(nil)
	before := forwardProxy.requests.Load()
	require.NoError(t, s.Put(t.Context(), "k", bytes.NewReader(data())))
	got, err := read(t, s, "k")
	require.NoError(t, err)
	require.True(t, bytes.Equal(data(), got))
	require.EqualValues(t, 2, forwardProxy.requests.Load()-before)
}
