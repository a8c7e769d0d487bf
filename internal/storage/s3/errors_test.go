package s3_test

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/s3"
	"keepset/test/servers"
)

// everyOperation calls each method and hands its error to check.
func everyOperation(t *testing.T, s storage.Store, check func(operation string, err error)) {
	t.Helper()
	check("put", s.Put(t.Context(), "packs/ab", strings.NewReader("x")))
	_, err := s.Get(t.Context(), "packs/ab", 0, -1)
	check("get", err)
	_, err = s.Stat(t.Context(), "packs/ab")
	check("stat", err)
	check("delete", s.Delete(t.Context(), "packs/ab"))
	yields := 0
	for o, err := range s.List(t.Context(), "packs/ab") {
		require.Zero(t, o)
		check("list", err)
		yields++
	}
	require.Equal(t, 1, yields)
}

// requireClear demands of an error what a user needs.
func requireClear(t *testing.T, err, want error, says ...string) {
	t.Helper()
	require.ErrorIs(t, err, want)
	require.True(t, storage.Permanent(err), "%v", err)
	for _, s := range says {
		require.ErrorContains(t, err, s)
	}
	require.NotContains(t, err.Error(), "\n", "one line")
	for _, noise := range []string{"operation error", "https response error", "HostID"} {
		require.NotContains(t, err.Error(), noise)
	}
	t.Log(err)
}

func TestMissingBucket(t *testing.T) {
	s := open(t, servers.S3(t, servers.WithBuckets("bucket")), func(o *s3.Options) { o.Bucket, o.Prefix = "no-such-bucket", "prefix" })
	everyOperation(t, s, func(operation string, err error) {
		requireClear(t, err, storage.ErrNoContainer, operation, "prefix/packs/ab", "no-such-bucket", "create it or correct its name")
		require.NotErrorIs(t, err, fs.ErrNotExist, "a missing bucket is not a missing object")
	})
}

func TestDeniedAccess(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"), servers.WithAccount("stranger", "stranger-secret", "user"))
	s := open(t, server, func(o *s3.Options) {
		o.Credentials = s3.Credentials{AccessKeyID: "stranger", SecretAccessKey: "stranger-secret"}
	})
	right := map[string]string{
		"put": "s3:PutObject", "get": "s3:GetObject", "stat": "s3:ListBucket", "list": "s3:ListBucket", "delete": "s3:DeleteObject",
	}
	everyOperation(t, s, func(operation string, err error) {
		requireClear(t, err, storage.ErrDenied, operation, "packs/ab", `"bucket"`, "grant "+right[operation], "AccessDenied")
	})
}

func TestWrongSecret(t *testing.T) {
	s := open(t, servers.S3(t, servers.WithBuckets("bucket")), func(o *s3.Options) { o.Credentials.SecretAccessKey = "wrong" })
	everyOperation(t, s, func(operation string, err error) {
		requireClear(t, err, storage.ErrCredentials, operation, "check AWS_SECRET_ACCESS_KEY")
	})
}

func TestUnknownAccessKey(t *testing.T) {
	s := open(t, servers.S3(t, servers.WithBuckets("bucket")), func(o *s3.Options) { o.Credentials.AccessKeyID = "nobody" })
	everyOperation(t, s, func(operation string, err error) {
		requireClear(t, err, storage.ErrCredentials, operation, "check AWS_ACCESS_KEY_ID")
	})
}

func TestNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		t.Setenv(name, "")
	}
	s := open(t, servers.S3(t, servers.WithBuckets("bucket")), func(o *s3.Options) { o.Credentials = s3.Credentials{} })
	everyOperation(t, s, func(operation string, err error) {
		requireClear(t, err, storage.ErrCredentials, operation, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or give the pod a role")
	})
}

func TestEnvironment(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"), servers.WithS3TLS())
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	t.Setenv("AWS_ENDPOINT_URL_S3", server.Endpoint)
	t.Setenv("AWS_CA_BUNDLE", server.CAFile)
	s, err := s3.New(t.Context(), s3.Options{Bucket: "bucket"})
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("x")))
}

// Empty variables, which a ConfigMap's template leaves behind, count as not set.
func TestRegionIsNeeded(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "")
	}
	_, err := s3.New(t.Context(), s3.Options{Bucket: "bucket"})
	require.ErrorIs(t, err, storage.ErrInvalid)
	require.ErrorContains(t, err, "set AWS_REGION")
}

func TestInvalidOptions(t *testing.T) {
	for says, o := range map[string]s3.Options{
		"name is missing":      {Region: "r"},
		"empty element":        {Bucket: "bucket", Prefix: "a/"},
		`encryption "rot13"`:   {Bucket: "bucket", Encryption: "rot13"},
		"needs the encryption": {Bucket: "bucket", KMSKeyID: "key"},
		"no PEM certificate":   {Bucket: "bucket", CABundle: "errors_test.go"},
		"no such file":         {Bucket: "bucket", CABundle: "absent.pem"},
	} {
		_, err := s3.New(t.Context(), o)
		require.ErrorContains(t, err, says)
	}
}

func TestTLS(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"), servers.WithS3TLS())
	t.Run("custom CA", func(t *testing.T) {
		s := open(t, server, func(o *s3.Options) { o.CABundle = server.CAFile })
		require.NoError(t, s.Put(t.Context(), "k", bytes.NewReader(data())))
		got, err := read(t, s, "k")
		require.NoError(t, err)
		require.True(t, bytes.Equal(data(), got))
	})
	t.Run("unknown CA", func(t *testing.T) {
		everyOperation(t, open(t, server), func(operation string, err error) {
			requireClear(t, err, storage.ErrRefused, operation, "certificate", "AWS_CA_BUNDLE")
		})
	})
	t.Run("other CA", func(t *testing.T) {
		other := servers.S3(t, servers.WithS3TLS())
		everyOperation(t, open(t, server, func(o *s3.Options) { o.CABundle = other.CAFile }), func(_ string, err error) {
			requireClear(t, err, storage.ErrRefused)
		})
	})
	t.Run("https to http", func(t *testing.T) {
		plain := servers.S3(t)
		s := open(t, server, func(o *s3.Options) { o.Endpoint = strings.Replace(plain.Endpoint, "http:", "https:", 1) })
		everyOperation(t, s, func(_ string, err error) {
			requireClear(t, err, storage.ErrRefused, "the endpoint speaks http, not https")
		})
	})
}

// answering returns the store of a server that answers every request alike.
func answering(t *testing.T, status int, code string, change ...func(*s3.Options)) (*s3.Store, *int) {
	t.Helper()
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		if code != "" {
			_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>What the store says.</Message></Error>")
		}
	}))
	t.Cleanup(server.Close)
	return open(t, &servers.S3Server{Endpoint: server.URL, Region: "us-east-1", AccessKey: "a", SecretKey: "s"}, change...), &requests
}

func TestAnswersOfStores(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
		says   string
	}{
		{507, "", storage.ErrFull, "enlarge the store"},
		{507, "XMinioStorageFull", storage.ErrFull, "enlarge the store"},
		{403, "QuotaExceeded", storage.ErrFull, "raise the bucket's quota"},
		{403, "RequestTimeTooSkewed", storage.ErrCredentials, "clock"},
		{403, "InvalidObjectState", storage.ErrRefused, "archive class"},
		{403, "SomethingNew", storage.ErrDenied, "grant s3:GetObject"},
		{401, "", storage.ErrCredentials, "check the access key"},
		{301, "PermanentRedirect", storage.ErrRefused, "set AWS_REGION"},
		{400, "AuthorizationHeaderMalformed", storage.ErrRefused, "set AWS_REGION"},
		{400, "SomethingNew", storage.ErrRefused, "check the endpoint"},
		{407, "", storage.ErrRefused, "HTTPS_PROXY"},
		{307, "TemporaryRedirect", nil, "307"},
		{405, "", storage.ErrRefused, "check the endpoint"},
		{501, "NotImplemented", storage.ErrRefused, "check the endpoint"},
		{404, "NoSuchBucket", storage.ErrNoContainer, "create it"},
		{404, "NoSuchKey", fs.ErrNotExist, "What the store says"},
		{500, "InternalError", nil, "500 InternalError: What the store says"},
		{503, "SlowDown", nil, "503 SlowDown"},
		{503, "", nil, "503"},
		{429, "", nil, "429"},
		{400, "RequestTimeout", nil, "RequestTimeout"},
		{400, "IncompleteBody", nil, "IncompleteBody"},
		{400, "BadDigest", nil, "BadDigest"},
	} {
		s, _ := answering(t, c.status, c.code)
		_, err := s.Get(t.Context(), "k", 0, -1)
		require.Error(t, err)
		require.Equal(t, c.want != nil, storage.Permanent(err), "%d %s: %v", c.status, c.code, err)
		if c.want != nil {
			require.ErrorIs(t, err, c.want, "%d %s", c.status, c.code)
		}
		require.ErrorContains(t, err, c.says)
		require.ErrorContains(t, err, `get object "k" in bucket "bucket"`)
		require.NotContains(t, err.Error(), "\n")
	}
}

// Temporary credentials end in the middle of a backup; their source has newer ones.
func TestExpiredTokenIsRenewed(t *testing.T) {
	dir := t.TempDir()
	count := filepath.Join(dir, "count")
	script := filepath.Join(dir, "credentials.sh")
	require.NoError(t, os.WriteFile(script, []byte(`#!/bin/sh
echo x >> `+count+`
echo '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "s", "SessionToken": "token '$(wc -l < `+count+`)'", "Expiration": "2099-01-01T00:00:00Z"}'
`), 0o700))
	config := filepath.Join(dir, "config")
	require.NoError(t, os.WriteFile(config, []byte("[default]\ncredential_process = "+script+"\n"), 0o600))
	t.Setenv("AWS_CONFIG_FILE", config)

	var tokens []string
	good := "token 2"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		tokens = append(tokens, r.Header.Get("X-Amz-Security-Token"))
		if tokens[len(tokens)-1] != good {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, "<Error><Code>ExpiredToken</Code></Error>")
		}
	}))
	defer server.Close()
	s, err := s3.New(t.Context(), s3.Options{Bucket: "bucket", Endpoint: server.URL})
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("x")))
	require.Equal(t, []string{"token 1", "token 2"}, tokens)

	good = "never again"
	requireClear(t, s.Put(t.Context(), "k2", strings.NewReader("x")), storage.ErrCredentials, "expired")
	require.Len(t, tokens, 4, "once more, not for ever")
}

// A clock that is wrong is corrected from the store's answer.
func TestWrongClock(t *testing.T) {
	storeTime := time.Now().Add(time.Hour).UTC()
	var dates []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		dates = append(dates, r.Header.Get("X-Amz-Date"))
		w.Header().Set("Date", storeTime.Format(http.TimeFormat))
		if at, err := time.Parse("20060102T150405Z", dates[len(dates)-1]); err != nil || storeTime.Sub(at) > 15*time.Minute {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<Error><Code>RequestTimeTooSkewed</Code></Error>")
		}
	}))
	defer server.Close()
	s := open(t, &servers.S3Server{Endpoint: server.URL, AccessKey: "a", SecretKey: "s"})
	require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("x")))
	require.Len(t, dates, 2)
	require.NoError(t, s.Put(t.Context(), "k2", strings.NewReader("x")))
	require.Len(t, dates, 3, "it remembers")
}
