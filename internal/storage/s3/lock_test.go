package s3_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/s3"
	"keepset/test/servers"
)

const lockFor = 30 * 24 * time.Hour

func locking(mode string) func(*s3.Options) {
	return func(o *s3.Options) {
		o.Lock = s3.Lock{Mode: mode, For: lockFor, Of: func(key string) bool { return strings.HasPrefix(key, "packs/") }}
	}
}

// What is locked cannot be deleted by its owner, only hidden, which Remove says; the rest has no lock.
func TestLock(t *testing.T) {
	server := servers.S3(t, servers.WithVersioning())
	for _, mode := range []string{"governance", "compliance"} {
		server.LockedBucket(t, mode)
		s := open(t, server, locking(mode), func(o *s3.Options) { o.Bucket = mode })
		before := time.Now()
		require.NoError(t, s.Put(t.Context(), "packs/a", bytes.NewReader(data())))
		require.NoError(t, s.Put(t.Context(), "prune/a", bytes.NewReader(data())))
		require.ErrorIs(t, s.Put(t.Context(), "packs/a", strings.NewReader("other")), storage.ErrExists)

		var lock struct {
			Mode            string
			RetainUntilDate time.Time
		}
		answer := server.Must(t, server.Root(http.MethodGet, "/"+mode+"/packs/a", "retention", ""))
		require.NoError(t, xml.Unmarshal([]byte(answer.Body), &lock))
		require.Equal(t, strings.ToUpper(mode), lock.Mode)
		require.WithinDuration(t, before.Add(lockFor), lock.RetainUntilDate, time.Minute)
		require.Contains(t, server.Send(t, server.Root(http.MethodGet, "/"+mode+"/prune/a", "retention", "")).Body, "NoSuchObjectLockConfiguration")

		version := server.Must(t, server.Root(http.MethodHead, "/"+mode+"/packs/a", "", "")).Header.Get("X-Amz-Version-Id")
		require.NotEmpty(t, version)
		kept, err := s.Remove(t.Context(), "packs/a")
		require.NoError(t, err)
		require.True(t, kept)
		require.Equal(t, http.StatusForbidden, server.Send(t, server.Root(http.MethodDelete, "/"+mode+"/packs/a", "versionId="+version, "")).Status)
	}
}

func TestRemoveWithoutVersions(t *testing.T) {
	s := open(t, servers.S3(t, servers.WithBuckets("bucket")))
	require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("x")))
	kept, err := storage.Remove(t.Context(), storage.WithRetry(s, storage.Retry{}), "k")
	require.NoError(t, err)
	require.False(t, kept)
}

// A bucket without Object Lock is refused. (This server has stored the object by then, without a lock; no Put has succeeded.)
func TestLockInABucketWithout(t *testing.T) {
	server := servers.S3(t, servers.WithVersioning(), servers.WithBuckets("bucket"))
	s := open(t, server, locking("compliance"))
	err := s.Put(t.Context(), "packs/a", bytes.NewReader(data()))
	requireClear(t, err, storage.ErrRefused, "put", "packs/a", `"bucket"`, "the bucket has no Object Lock", "--object-lock-enabled-for-bucket")
	require.NoError(t, s.Put(t.Context(), "prune/a", bytes.NewReader(data())), "no lock was asked for")
}

// A store that does not know the headers takes the object and says nothing.
func TestLockThatIsDropped(t *testing.T) {
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the client is the test
		if r.URL.Query().Has("retention") {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte("<Error><Code>NoSuchObjectLockConfiguration</Code></Error>")) // the client is the test
		}
	}))
	t.Cleanup(front.Close)
	s := openAt(t, front.URL, locking("governance"))
	requireClear(t, s.Put(t.Context(), "packs/a", strings.NewReader("x")), storage.ErrRefused, "it took the object and not the lock")
	require.NoError(t, s.Put(t.Context(), "prune/a", strings.NewReader("x")), "no lock was asked for")
}

// A lock ends by the store's clock: a pod's may be hours behind. What shall be locked is never stored without.
func TestLockByTheStoresClock(t *testing.T) {
	theirs := time.Now().Add(7 * time.Hour).UTC()
	var mu sync.Mutex
	var puts []http.Header
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the client is the test
		w.Header().Set("Date", theirs.Format(http.TimeFormat))
		switch {
		case r.Method == http.MethodPut:
			mu.Lock()
			puts = append(puts, r.Header)
			mu.Unlock()
			w.WriteHeader(http.StatusNotImplemented) // whatever form is tried
		default:
			_, _ = w.Write([]byte("<ListBucketResult></ListBucketResult>")) // the client is the test
		}
	}))
	t.Cleanup(front.Close)
	s := openAt(t, front.URL, locking("governance"))
	for o, err := range s.List(t.Context(), "") { // the store's clock is heard
		t.Errorf("there is nothing: %v, %v", o, err)
	}
	require.Error(t, s.Put(t.Context(), "packs/a", strings.NewReader("x")))
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, puts, 4)
	for _, h := range puts {
		require.Equal(t, "GOVERNANCE", h.Get("X-Amz-Object-Lock-Mode"))
		until, err := time.Parse(time.RFC3339, h.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		require.NoError(t, err)
		require.WithinDuration(t, theirs.Add(lockFor), until, time.Minute)
	}
}

// Stores say in words only that an object is locked. Words of versitygw and Amazon S3, and of MinIO.
func TestDeletionOfALockedObject(t *testing.T) {
	for _, c := range []struct {
		status        int
		code, message string
	}{
		{http.StatusForbidden, "AccessDenied", "Access Denied because object protected by object lock."},
		{http.StatusBadRequest, "InvalidRequest", "Object is WORM protected and cannot be overwritten"},
	} {
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte("<Error><Code>" + c.code + "</Code><Message>" + c.message + "</Message></Error>")) // the client is the test
		}))
		t.Cleanup(front.Close)
		err := openAt(t, front.URL).Delete(t.Context(), "packs/a")
		requireClear(t, err, storage.ErrLocked, "delete", "packs/a", "before its lock ends")
		require.True(t, storage.Permanent(err))
	}
}

func TestLockOptions(t *testing.T) {
	for _, lock := range []s3.Lock{{Mode: "worm", For: time.Hour}, {Mode: "governance"}, {For: time.Hour}} {
		_, err := s3.New(t.Context(), s3.Options{Bucket: "bucket", Endpoint: "http://127.0.0.1:1", Lock: lock})
		require.ErrorIs(t, err, storage.ErrInvalid)
	}
}

// openAt returns the store in a bucket of whoever answers there.
func openAt(t *testing.T, endpoint string, change ...func(*s3.Options)) *s3.Store {
	t.Helper()
	return open(t, &servers.S3Server{Endpoint: endpoint, Region: "us-east-1", AccessKey: "a", SecretKey: "b"}, change...)
}
