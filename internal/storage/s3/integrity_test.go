package s3_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/s3"
	"keepset/test/servers"
)

// through returns the store of server behind a relay that change may act on.
func through(t *testing.T, server *servers.S3Server, change func(next http.Handler) http.HandlerFunc, options ...func(*s3.Options)) *s3.Store {
	t.Helper()
	next := relay(strings.TrimPrefix(server.Endpoint, "http://"))
	front := httptest.NewServer(change(next))
	t.Cleanup(front.Close)
	return open(t, server, append(options, func(o *s3.Options) { o.Endpoint = front.URL })...)
}

// flip inverts a bit of byte 1000 of what passes.
type flip struct {
	io.ReadCloser
	pos int
}

func (f *flip) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if i := 1000 - f.pos; i >= 0 && i < n {
		p[i] ^= 1
	}
	f.pos += n
	return n, err
}

func TestUploadThatIsDamagedOnItsWay(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"))
	var damage atomic.Bool
	s := through(t, server, func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if damage.Load() {
				r.Body = &flip{ReadCloser: r.Body}
			}
			next.ServeHTTP(w, r)
		}
	})
	damage.Store(true)
	err := s.Put(t.Context(), "k", bytes.NewReader(data()))
	require.Error(t, err)
	require.False(t, storage.Permanent(err), "the next attempt may arrive whole: %v", err)
	t.Log(err)
	damage.Store(false)
	require.NoError(t, s.Put(t.Context(), "k", bytes.NewReader(data())), "the damaged object was not kept")
}

func TestDownloadThatIsDamagedOnItsWay(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"))
	s := through(t, server, func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && !r.URL.Query().Has("list-type") {
				w = &flippingWriter{ResponseWriter: w}
			}
			next.ServeHTTP(w, r)
		}
	})
	require.NoError(t, s.Put(t.Context(), "k", bytes.NewReader(data())))
	for name, s := range map[string]storage.Store{"bare": s, "retried": storage.WithRetry(s, storage.Retry{})} {
		got, err := read(t, s, "k")
		requireClear(t, err, storage.ErrCorrupt, `get object "k"`)
		require.Less(t, len(got), size, name)
	}
	// A caller who counts instead of waiting for the end must see it as well.
	r, err := s.Get(t.Context(), "k", 0, -1)
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, size))
	require.ErrorIs(t, err, storage.ErrCorrupt)
	require.NoError(t, r.Close())
}

type flippingWriter struct {
	http.ResponseWriter
	pos int
}

func (f *flippingWriter) Write(p []byte) (int, error) {
	if i := 1000 - f.pos; i >= 0 && i < len(p) {
		p = bytes.Clone(p)
		p[i] ^= 1
	}
	f.pos += len(p)
	return f.ResponseWriter.Write(p)
}

// loseReplies lets so many uploads through and cuts the connection instead of
// answering.
func loseReplies(lost *atomic.Int32) func(http.Handler) http.HandlerFunc {
	return func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPut || lost.Add(-1) < 0 {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
	}
}

func TestLostReply(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"))
	var lost atomic.Int32
	bare := through(t, server, loseReplies(&lost))
	s := storage.WithRetry(bare, storage.Retry{MinDelay: time.Millisecond})

	lost.Store(1)
	err := bare.Put(t.Context(), "bare", bytes.NewReader(data()))
	require.Error(t, err)
	require.NotErrorIs(t, err, storage.ErrExists)
	_, err = bare.Stat(t.Context(), "bare")
	require.NoError(t, err, "only the reply was lost")

	lost.Store(1)
	require.NoError(t, s.Put(t.Context(), "retried", bytes.NewReader(data())))
	got, err := read(t, bare, "retried")
	require.NoError(t, err)
	require.True(t, bytes.Equal(data(), got))

	// Another one's object of the same size is another one's.
	other := data()
	other[size-1] ^= 1
	require.NoError(t, bare.Put(t.Context(), "other", bytes.NewReader(other)))
	lost.Store(1)
	require.ErrorIs(t, s.Put(t.Context(), "other", bytes.NewReader(data())), storage.ErrExists)
}

// writerPolicy grants what the writer of backups has: all may be listed and written, packs may
// not be read, nothing may be deleted.
func writerPolicy(t *testing.T, server *servers.S3Server) {
	t.Helper()
	type statement struct {
		Effect, Principal string
		Action, Resource  []string
	}
	policy, err := json.Marshal(struct {
		Version   string
		Statement []statement
	}{"2012-10-17", []statement{
		{"Allow", "writer", []string{"s3:ListBucket"}, []string{"arn:aws:s3:::bucket"}},
		{"Allow", "writer", []string{"s3:PutObject"}, []string{"arn:aws:s3:::bucket/*"}},
		{"Allow", "writer", []string{"s3:GetObject"}, []string{"arn:aws:s3:::bucket/commits/*"}},
	}})
	require.NoError(t, err)
	client := awss3.New(awss3.Options{
		BaseEndpoint: &server.Endpoint, Region: server.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(server.AccessKey, server.SecretKey, ""),
	})
	_, err = client.PutBucketPolicy(t.Context(), &awss3.PutBucketPolicyInput{Bucket: aws.String("bucket"), Policy: aws.String(string(policy))})
	require.NoError(t, err)
}

// The least rights suffice for all that a writer does, a lost reply included.
func TestWriterThatMayNotRead(t *testing.T) {
	server := servers.S3(t, servers.WithBuckets("bucket"), servers.WithAccount("writer", "writer-secret", "user"))
	writerPolicy(t, server)
	var lost atomic.Int32
	bare := through(t, server, loseReplies(&lost), func(o *s3.Options) {
		o.Credentials = s3.Credentials{AccessKeyID: "writer", SecretAccessKey: "writer-secret"}
	})
	s := storage.WithRetry(bare, storage.Retry{MinDelay: time.Millisecond})

	require.NoError(t, s.Put(t.Context(), "packs/ab", strings.NewReader("pack")))
	require.ErrorIs(t, s.Put(t.Context(), "packs/ab", strings.NewReader("other")), storage.ErrExists)
	_, err := s.Get(t.Context(), "packs/ab", 0, -1)
	require.ErrorIs(t, err, storage.ErrDenied)
	require.ErrorIs(t, s.Delete(t.Context(), "packs/ab"), storage.ErrDenied)
	o, err := s.Stat(t.Context(), "packs/ab")
	require.NoError(t, err)
	require.EqualValues(t, 4, o.Size)

	lost.Store(1)
	require.NoError(t, s.Put(t.Context(), "packs/cd", strings.NewReader("pack")))
	lost.Store(1)
	require.NoError(t, s.Put(t.Context(), "commits/1", strings.NewReader("commit")))

	guarantee, err := storage.Probe(t.Context(), s, "commits/1", strings.NewReader("commit"))
	require.NoError(t, err)
	require.Equal(t, storage.GuaranteeAtomic, guarantee)
}
