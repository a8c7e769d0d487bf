package s3_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/storage"
	"keepset/internal/storage/s3"
	"keepset/internal/storage/storagetest"
	"keepset/test/servers"
)

// environment keeps the tests from the machine's own configuration, and
// sends every request that is not for loopback through a proxy of the tests.
func environment(proxy string) (undo func(), err error) {
	set := map[string]string{
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": "",
	}
	for name, value := range set {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	return func() {}, nil
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func TestWithoutPrefix(t *testing.T) {
	s := open(t, servers.S3(t, servers.WithBuckets("bucket")))
	require.NoError(t, s.Put(t.Context(), "a/b", bytes.NewReader([]byte("x"))))
	for o, err := range s.List(t.Context(), "") {
		require.NoError(t, err)
		require.Equal(t, "a/b", o.Key)
	}
}
