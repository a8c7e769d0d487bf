package s3_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"

	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/storage"
	"keepset/internal/storage/s3"
	"keepset/internal/storage/storagetest"
	"keepset/test/servers"
)

func TestMain(m *testing.M) {
	toxics.Register("stall", new(stall))
	proxy, err := startProxy()
	if err == nil {
		err = isolate(proxy)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreCurrent(),
		// toxiproxy forgets the links of connections that were cut.
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
	)
}

// isolate keeps the machine's own configuration away from the tests, and sends every request
// through the proxy that is not for loopback. (Go reads these variables once
// in a process, hence here.)
func isolate(proxy string) error {
	for name, value := range map[string]string{
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": "", "http_proxy": "", "https_proxy": "", "no_proxy": "",
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// startProxy runs an HTTP proxy for the life of the tests.
func startProxy() (url string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // as long as the process
	if err != nil {
		return "", err
	}
	go func() { _ = http.Serve(listener, &forwardProxy) }()
	return "http://" + listener.Addr().String(), nil
}

// open returns the store in a bucket of server, changed by the functions.
func open(t *testing.T, server *servers.S3Server, change ...func(*s3.Options)) *s3.Store {
	t.Helper()
	o := s3.Options{
		Bucket: "bucket", Endpoint: server.Endpoint, Region: server.Region,
		Credentials: s3.Credentials{AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey},
	}
	for _, f := range change {
		f(&o)
	}
	s, err := s3.New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func TestConformance(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"))
	n := 0
	storagetest.Run(t, func(t *testing.T) storage.Store {
		n++
		return open(t, server, func(o *s3.Options) { o.Prefix = fmt.Sprintf("test %d/prefix", n) })
	})
}

// What the program uses: S3 over TLS, limited and retried.
func TestDecoratedConformance(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"), servers.WithS3TLS())
	n := 0
	storagetest.Run(t, func(t *testing.T) storage.Store {
		n++
		s := open(t, server, func(o *s3.Options) { o.Prefix, o.CABundle = fmt.Sprintf("test %d", n), server.CAFile })
		return storage.WithRetry(storage.WithBandwidth(s, storage.Bandwidth{Upload: 1 << 32, Download: 1 << 32}), storage.Retry{})
	})
}

func TestWithoutPrefix(t *testing.T) {
	s := open(t, servers.S3(t, servers.WithBuckets("bucket")))
	require.NoError(t, s.Put(t.Context(), "a/b", bytes.NewReader([]byte("x"))))
	for o, err := range s.List(t.Context(), "") {
		require.NoError(t, err)
		require.Equal(t, "a/b", o.Key)
	}
}

// A pack is in memory once already: no layer may copy it.
func TestPutDoesNotBuffer(t *testing.T) {
	for name, option := range map[string][]servers.S3Option{"http": nil, "https": {servers.WithS3TLS()}} {
		t.Run(name, func(t *testing.T) {
			server := servers.S3(t, append(option, servers.WithBuckets("bucket"))...)
			s := open(t, server, func(o *s3.Options) { o.CABundle = server.CAFile })
			require.NoError(t, s.Put(t.Context(), "warm-up", bytes.NewReader(nil)))
			body := bytes.NewReader(make([]byte, 32<<20))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			require.NoError(t, s.Put(t.Context(), "pack", body))
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20), "bytes allocated for 32 MiB")
		})
	}
}
