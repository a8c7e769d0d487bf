package s3_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/s3"
	"keepset/internal/storage/storagetest"
	"keepset/test/servers"
)

// lesserStore is an S3 server that lacks what some real ones lack. No real one that does
// can be run here.
type lesserStore struct {
	conditionAnswer int    // status to a condition; 0 honours it, 200 ignores it
	checksumAnswer  int    // status to a checksum header; 0 ignores it
	conflicts       int    // so many conditional writes are undecided
	ignoresRanges   bool   // sends whole objects
	listing         string // sent in place of every listing

	mu      sync.Mutex
	objects map[string][]byte
	puts    []http.Header
}

func (l *lesserStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/bucket/")
	switch {
	case r.Method == http.MethodPut:
		l.put(w, r, key, body)
	case r.Method == http.MethodDelete:
		delete(l.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Query().Has("list-type"):
		l.list(w, r)
	default:
		l.get(w, r, key)
	}
}

func (l *lesserStore) put(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	l.puts = append(l.puts, r.Header.Clone())
	_, exists := l.objects[key]
	conditional := r.Header.Get("If-None-Match") != ""
	switch {
	case r.Header.Get("X-Amz-Checksum-Sha256") != "" && l.checksumAnswer != 0:
		refuse(w, l.checksumAnswer, "InvalidArgument")
	case conditional && l.conditionAnswer > http.StatusOK:
		refuse(w, l.conditionAnswer, "NotImplemented")
	case conditional && l.conflicts > 0:
		l.conflicts--
		refuse(w, http.StatusConflict, "ConditionalRequestConflict")
	case conditional && exists && l.conditionAnswer == 0:
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
	default:
		l.objects[key] = body
	}
}

func (l *lesserStore) get(w http.ResponseWriter, r *http.Request, key string) {
	object, ok := l.objects[key]
	if !ok {
		refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	if l.ignoresRanges {
		r.Header.Del("Range")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(object))
}

func (l *lesserStore) list(w http.ResponseWriter, r *http.Request) {
	if l.listing != "" {
		_, _ = io.WriteString(w, l.listing)
		return
	}
	type content struct {
		Key          string
		Size         int
		LastModified string
	}
	var result struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []content
	}
	limit := 1000
	if n, err := strconv.Atoi(r.URL.Query().Get("max-keys")); err == nil {
		limit = n
	}
	var keys []string
	prefix := r.URL.Query().Get("prefix")
	if _, ok := l.objects[prefix]; ok && limit == 1 {
		keys = append(keys, prefix) // what a Stat asks for, without a look at thousands
	}
	for key := range l.objects {
		if len(keys) == limit && limit == 1 {
			break
		}
		if strings.HasPrefix(key, prefix) && key > r.URL.Query().Get("continuation-token") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if len(keys) > limit {
		result.IsTruncated, result.NextContinuationToken, keys = true, keys[limit-1], keys[:limit]
	}
	for _, key := range keys {
		result.Contents = append(result.Contents, content{key, len(l.objects[key]), time.Now().UTC().Format(time.RFC3339)})
	}
	_ = xml.NewEncoder(w).Encode(result)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code></Error>")
}

func openLesser(t *testing.T, l *lesserStore, change ...func(*s3.Options)) *s3.Store {
	t.Helper()
	l.objects = map[string][]byte{}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	return open(t, &servers.S3Server{Endpoint: server.URL, AccessKey: "a", SecretKey: "s"}, change...)
}

// withoutAtomicity is for the suite, whose tests on it a store without
// conditional writes cannot pass.
type withoutAtomicity struct {
	storage.Store
	t     *testing.T
	mutex *sync.Mutex
}

func (w withoutAtomicity) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.Store.Put(ctx, key, body)
}

func (w withoutAtomicity) Probe(ctx context.Context, key string, body io.ReadSeeker) (storage.Guarantee, error) {
	guarantee, err := storage.Probe(ctx, w.Store, key, body)
	require.Equal(w.t, storage.GuaranteeChecked, guarantee)
	return storage.GuaranteeAtomic, err
}

// Written-once keys, one writer at a time, on stores that know no conditions or
// no checksums.
func TestLesserStoresConform(t *testing.T) {
	t.Run("neither condition nor checksum is known", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store {
			s := openLesser(t, &lesserStore{conditionAnswer: 501, checksumAnswer: 400})
			return withoutAtomicity{s, t, &sync.Mutex{}}
		})
	})
	t.Run("checksum is not known", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store { return openLesser(t, &lesserStore{checksumAnswer: 400}) })
	})
	t.Run("condition is ignored", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store {
			s := openLesser(t, &lesserStore{conditionAnswer: 200}, func(o *s3.Options) { o.LookBeforePut = true })
			return withoutAtomicity{s, t, &sync.Mutex{}}
		})
	})
}

func TestConditionThatIsRefused(t *testing.T) {
	for _, status := range []int{400, 501} {
		l := &lesserStore{conditionAnswer: status}
		s := openLesser(t, l)
		require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("x")))
		require.ErrorIs(t, s.Put(t.Context(), "k", strings.NewReader("y")), storage.ErrExists)
		require.NotEmpty(t, l.puts[len(l.puts)-1].Get("X-Amz-Checksum-Sha256"), "what is known stays in use")
		guarantee, err := s.Probe(t.Context(), "k", strings.NewReader("x"))
		require.NoError(t, err)
		require.Equal(t, storage.GuaranteeChecked, guarantee)
	}
}

// What a store does not know is found out once.
func TestPlainerFormIsRemembered(t *testing.T) {
	l := &lesserStore{conditionAnswer: 501, checksumAnswer: 400}
	s := openLesser(t, l)
	for _, key := range []string{"a", "b", "c"} {
		require.NoError(t, s.Put(t.Context(), key, strings.NewReader("x")))
	}
	require.Len(t, l.puts, 4+2, "four forms once, then the plainest")
	require.Equal(t, "*", l.puts[0].Get("If-None-Match"))
	require.NotEmpty(t, l.puts[0].Get("X-Amz-Checksum-Sha256"))
	require.Empty(t, l.puts[5].Get("If-None-Match"))
	require.Empty(t, l.puts[5].Get("X-Amz-Checksum-Sha256"))
	for _, h := range l.puts {
		require.Len(t, h.Get("X-Amz-Content-Sha256"), 64, "the signature covers the bytes in every form")
		require.Empty(t, h.Get("X-Amz-Trailer"))
		require.Empty(t, h.Get("Content-Md5"))
	}
}

func TestRefusalForOtherReasonsIsReported(t *testing.T) {
	s, requests := answering(t, 400, "InvalidArgument")
	err := s.Put(t.Context(), "k", strings.NewReader("x"))
	requireClear(t, err, storage.ErrRefused, "InvalidArgument")
	require.LessOrEqual(t, *requests, 4)
}

func TestProbeFindsAStoreThatIgnoresConditions(t *testing.T) {
	l := &lesserStore{conditionAnswer: 200}
	s := openLesser(t, l)
	require.NoError(t, s.Put(t.Context(), "config/0", strings.NewReader("config")))
	guarantee, err := s.Probe(t.Context(), "config/0", strings.NewReader("config"))
	require.NoError(t, err)
	require.Equal(t, storage.GuaranteeChecked, guarantee)
	require.Equal(t, "config", string(l.objects["config/0"]))
	require.ErrorIs(t, s.Put(t.Context(), "config/0", strings.NewReader("other")), storage.ErrExists, "from now on it looks first")
	require.Equal(t, "config", string(l.objects["config/0"]))
}

func TestUndecidedConditionalWrites(t *testing.T) {
	l := &lesserStore{conflicts: 3}
	s := openLesser(t, l)
	require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("x")))
	require.Len(t, l.puts, 4)

	l.conflicts = 1000
	err := s.Put(t.Context(), "k2", strings.NewReader("x"))
	require.ErrorContains(t, err, "ConditionalRequestConflict")
	require.False(t, storage.Permanent(err))
}

func TestStoreThatIgnoresRanges(t *testing.T) {
	s := openLesser(t, &lesserStore{ignoresRanges: true})
	require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("0123456789")))
	for _, length := range []int64{-1, 3} {
		_, err := s.Get(t.Context(), "k", 5, length)
		requireClear(t, err, storage.ErrRefused, "asked for bytes=5-")
	}
}

func TestBadListings(t *testing.T) {
	const item = "<Contents><Key>b</Key><Size>1</Size></Contents>"
	for listing, says := range map[string]string{
		item + "<Contents><Key>a</Key><Size>1</Size></Contents>": "not in order",
		item + item:                              "not in order",
		"<IsTruncated>true</IsTruncated>" + item: "not how to get it",
	} {
		s := openLesser(t, &lesserStore{listing: "<ListBucketResult>" + listing + "</ListBucketResult>"})
		var last error
		for _, err := range s.List(t.Context(), "") {
			last = err
		}
		requireClear(t, last, storage.ErrRefused, says)
	}
	for _, listing := range []string{"<html>Welcome to the console", "<ListBucketResult>" + item} {
		s := openLesser(t, &lesserStore{listing: listing})
		var last error
		for _, err := range s.List(t.Context(), "") {
			last = err
		}
		require.Error(t, last, "what is not a listing must not look like an empty bucket: %s", listing)
	}
}

func TestForeignObjectsArePassedOver(t *testing.T) {
	l := &lesserStore{}
	s := openLesser(t, l, func(o *s3.Options) { o.Prefix = "repo" })
	for _, key := range []string{"repo/", "repo/folder/", "repo/a//b", "repo/k", "repository", "repo"} {
		l.objects[key] = nil
	}
	var keys []string
	for o, err := range s.List(t.Context(), "") {
		require.NoError(t, err)
		keys = append(keys, o.Key)
	}
	require.Equal(t, []string{"k"}, keys)
}

func TestOptionsArriveAtTheStore(t *testing.T) {
	l := &lesserStore{}
	s := openLesser(t, l, func(o *s3.Options) {
		o.StorageClass, o.Encryption, o.KMSKeyID = "STANDARD_IA", "aws:kms", "key-1"
	})
	require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("x")))
	h := l.puts[0]
	require.Equal(t, "STANDARD_IA", h.Get("X-Amz-Storage-Class"))
	require.Equal(t, "aws:kms", h.Get("X-Amz-Server-Side-Encryption"))
	require.Equal(t, "key-1", h.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"))
	require.Equal(t, "true", h.Get("X-Amz-Server-Side-Encryption-Bucket-Key-Enabled"))
}
