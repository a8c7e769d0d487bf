package pains

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage"
	"keepset/internal/storage/dir"
	"keepset/test/servers"
)

// This file: uploads that had to begin anew, or could not end.

// dying is a store that takes in fourteen packs, and after a checkpoint that speaks of at least eight of them nothing more:
// the pod has been evicted.
type dying struct {
	storage.Store
	begun, stored atomic.Int64
	dead          chan struct{}
	die           sync.Once
}

var (
	errEvicted = errors.New("the pod has been evicted")
	checkpoint = regexp.MustCompile(`/backups/[^/]+/\d+\.`)
)

func (d *dying) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	pack := strings.Contains(key, "/packs/")
	if pack && d.begun.Add(1) > 14 {
		<-d.dead
	}
	select {
	case <-d.dead:
		return errEvicted
	default:
	}
	enough := d.stored.Load() >= 8
	err := d.Store.Put(ctx, key, body)
	if err == nil && pack {
		d.stored.Add(1)
	}
	if enough && checkpoint.MatchString(key) {
		d.die.Do(func() { close(d.dead) })
	}
	return err
}

// velero #7919, #8814 and #6710: the pod that uploaded was restarted, or its node taken away, and the upload began at its
// beginning, as often as it happened.
func TestPain19Restart(t *testing.T) {
	t.Parallel()
	d := newDays(t, newDatabase(12_000))
	first := d.job()
	first.Repository = d.open(&dying{Store: d.store, dead: make(chan struct{})})
	_, err := first.Run(t.Context())
	require.ErrorIs(t, err, job.ErrFailed)
	require.ErrorContains(t, err, errEvicted.Error())
	_, err = d.load(first.ID)
	require.ErrorIs(t, err, repository.ErrNoEligible)

	// The next pod of the Job has the same backup, and a name of its own.
	again := d.job()
	again.ID = first.ID
	report, err := again.Run(t.Context())
	require.NoError(t, err)
	require.Less(t, report.Members[0].Stored, report.Members[0].Bytes*9/10, "what lies in the store is not sent again")
	loaded, err := d.load(first.ID)
	require.NoError(t, err)
	require.Equal(t, d.databases[0].tables, loaded.tables)
}

// writeChunks takes a backup of a stream in n chunks of 64 bytes: a large index of little data. It returns how much was
// new, and the memory that the backup holds after it.
func writeChunks(t *testing.T, store storage.Store, n int) (stored, held int64) {
	t.Helper()
	r, err := repository.Open(t.Context(), store, repository.Keys{}, repository.Options{IndexBytes: 1 << 20, PackBytes: 256 << 10, Workers: 2, NoExtraVerify: true})
	require.NoError(t, err)
	now := time.Now().UTC()
	b, err := r.Begin(t.Context(), record.Plan{
		ID: record.NewBackupID(now, ""), Set: daysSet, CreatedAt: now, Method: record.MethodDump, Engine: "memory",
		Replicas: 1, Members: []record.PlannedMember{{Name: "db-0"}},
	}, record.NewAttemptID())
	require.NoError(t, err)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	s, err := w.Create(t.Context(), "orders", repository.StreamOptions{Fixed: 64})
	require.NoError(t, err)
	random, block := rand.NewChaCha8([32]byte{}), make([]byte, 64<<10)
	for written := 0; written < n*64; written += len(block) {
		_, _ = random.Read(block) // it never fails
		_, err = s.Write(block)
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	commit, err := w.Commit(t.Context(), record.Report{Engine: "memory", Layout: "memory/1", CapturedAt: now}, repository.CommitStatus{})
	require.NoError(t, err)
	// Chunks that were new are in parts of the index by now; before that up to 65,536 wait to be.
	runtime.GC()
	runtime.GC() // what the first has found to be finalized
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	require.NoError(t, b.Close())
	return commit.Stored, int64(memory.HeapAlloc)
}

// velero #7510 and kopia #2888: a backup needed memory by the size of the repository's index, and was killed for it one day.
func TestPain20Memory(t *testing.T) {
	if at := os.Getenv("PAIN20_REPOSITORY"); at != "" { // this is the process that is measured
		store, err := dir.New(dir.Options{Path: at})
		require.NoError(t, err)
		n, err := strconv.Atoi(os.Getenv("PAIN20_CHUNKS"))
		require.NoError(t, err)
		stored, held := writeChunks(t, store, n)
		require.Less(t, stored, int64(n), "it has to be in the index")
		require.NoError(t, os.WriteFile(at+".held", []byte(strconv.FormatInt(held, 10)), 0o600))
		return
	}
	t.Parallel()
	held := func(chunks int) int64 {
		at := filepath.Join(t.TempDir(), "repository")
		store, err := dir.Create(dir.Options{Path: at})
		require.NoError(t, err)
		_, err = repository.Init(t.Context(), store, repository.InitOptions{})
		require.NoError(t, err)
		writeChunks(t, store, chunks)
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPain20Memory$")
		cmd.Env = append(os.Environ(), "PAIN20_REPOSITORY="+at, "PAIN20_CHUNKS="+strconv.Itoa(chunks))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		text, err := os.ReadFile(at + ".held")
		require.NoError(t, err)
		n, err := strconv.ParseInt(string(text), 10, 64)
		require.NoError(t, err)
		return n
	}
	// A row in memory takes 52 bytes. Both indexes are larger than the budget.
	const small, large = 1 << 16, 5 << 16
	few, many := held(small), held(large)
	t.Logf("measured: %d KiB held with an index of %d chunks, %d KiB with one of %d", few>>10, small, many>>10, large)
	require.Less(t, many-few, int64(40*(large-small)), "one part of the index at a time, and not all of it")
}

// tokens are a source of temporary credentials, and a store behind it that takes only the newest ones.
type tokens struct {
	newest, refused atomic.Int64
	once            atomic.Bool
}

// source is what a pod's credentials come from.
func (k *tokens) source(w http.ResponseWriter, _ *http.Request, s *servers.S3Server) {
	_, _ = fmt.Fprintf(w, `{"AccessKeyId": %q, "SecretAccessKey": %q, "Token": "token-%d", "Expiration": "2099-01-01T00:00:00Z"}`, s.AccessKey, s.SecretKey, k.newest.Load())
}

// pass lets a request through, unless its token has expired. That happens as soon as data arrive.
func (k *tokens) pass(w http.ResponseWriter, r *http.Request, store http.Handler) {
	if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/packs/") && !k.once.Swap(true) {
		k.newest.Add(1)
	}
	if r.Header.Get("X-Amz-Security-Token") != fmt.Sprintf("token-%d", k.newest.Load()) {
		k.refused.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // so that the answer is read
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "<Error><Code>ExpiredToken</Code></Error>")
		return
	}
	store.ServeHTTP(w, r)
}

// resign takes the token off a request, of which the store knows nothing, and signs it with the store's own key.
func resign(t *testing.T, r *http.Request, store *servers.S3Server) {
	t.Helper()
	r.Header.Del("X-Amz-Security-Token")
	r.Header.Del("Authorization")
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	key := aws.Credentials{AccessKeyID: store.AccessKey, SecretAccessKey: store.SecretKey}
	assert.NoError(t, signer.SignHTTP(r.Context(), key, r, r.Header.Get("X-Amz-Content-Sha256"), "s3", store.Region, time.Now()))
}

// velero #8173, #8454 and #9949: the temporary credentials expired in the middle of an upload, which ended it.
func TestPain21ExpiredToken(t *testing.T) {
	t.Parallel()
	store := servers.S3(t, servers.WithBuckets("backups"))
	address, err := url.Parse(store.Endpoint)
	require.NoError(t, err)
	var k tokens
	behind := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = address.Scheme, address.Host, address.Host
		resign(t, r.Out, store)
	}}
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { k.source(w, r, store) }))
	t.Cleanup(source.Close)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { k.pass(w, r, behind) }))
	t.Cleanup(front.Close)

	s := newSite(t, shop(t).Addr)
	s.set("KEEPSET_REPOSITORY", "s3://backups/prod")
	s.set("AWS_ENDPOINT_URL", front.URL)
	s.set("AWS_REGION", store.Region)
	s.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", source.URL)
	s.run(0, "backup", "init")
	s.backUp(0)
	require.Positive(t, k.refused.Load())
	require.Equal(t, []string{"complete"}, s.statuses())
	s.run(0, "backup", "verify", "--read-data", "100")
}
