package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/s3"
	"keepset/test/servers"
)

// line is a network connection to an S3 server that can be made bad.
type line struct {
	t       *testing.T
	proxy   *toxiproxy.Proxy
	retries atomic.Int32
	onRetry func()
}

// newLine starts a server behind a line, and returns its store with a
// short patience, bare and with retries.
func newLine(t *testing.T, idle time.Duration) (l *line, bare, retried storage.Store) {
	t.Helper()
	server := servers.S3(t, servers.WithBuckets("bucket"))
	l = &line{t: t, onRetry: func() {}}
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l.proxy = toxiproxy.NewProxy(api, "s3", "127.0.0.1:0", strings.TrimPrefix(server.Endpoint, "http://"))
	require.NoError(t, l.proxy.Start())
	t.Cleanup(func() { l.heal(); l.proxy.Stop() })
	bare = open(t, server, func(o *s3.Options) {
		o.Endpoint, o.IdleTimeout = "http://"+l.proxy.Listen, idle
	})
	return l, bare, storage.WithRetry(bare, storage.Retry{
		MinDelay: time.Millisecond, MaxDelay: 50 * time.Millisecond, Attempts: attempts, Logger: slog.New(retryHandler{l}),
	})
}

// retryHandler is told by the decorator that it tries again.
type retryHandler struct{ *line }

func (retryHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h retryHandler) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h retryHandler) WithGroup(string) slog.Handler          { return h }
func (h retryHandler) Handle(_ context.Context, r slog.Record) error {
	h.retries.Add(1)
	r.Attrs(func(a slog.Attr) bool { h.t.Logf("%s: %v", a.Key, a.Value); return true })
	h.onRetry()
	return nil
}

func (l *line) add(toxic string) {
	l.t.Helper()
	_, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic))
	require.NoError(l.t, err)
}

// addWhileReading adds a toxic while somebody reads, and returns what is read.
// toxiproxy adds one once what it has taken in has gone on, for ever if nobody
// reads that. It is read slowly, so that most is still to come then.
func (l *line) addWhileReading(toxic string, r io.Reader) io.Reader {
	added := make(chan error, 1)
	go func() {
		_, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic))
		added <- err
	}()
	var read bytes.Buffer
	for {
		select {
		case err := <-added:
			require.NoError(l.t, err)
			return io.MultiReader(&read, r)
		case <-time.After(time.Millisecond):
		}
		if _, err := io.CopyN(&read, r, 16<<10); err != nil {
			return io.MultiReader(&read, iotest.ErrReader(err))
		}
	}
}

func (l *line) heal() { l.proxy.Toxics.ResetToxics(context.Background()) }

const (
	size     = 8 << 20
	attempts = 8
)

func data() []byte { return dataOf(size) }

func dataOf(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func read(t *testing.T, s storage.Store, key string) ([]byte, error) {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

const (
	resetDown  = `{"type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 0}}`
	resetUp    = `{"type": "reset_peer", "stream": "upstream", "attributes": {"timeout": 0}}`
	silentDown = `{"type": "stall", "stream": "downstream"}`
	silentUp   = `{"type": "stall", "stream": "upstream"}`
)

// stall lets nothing through, not even the end of the connection, until it is removed.
type stall struct{}

func (*stall) Pipe(stub *toxics.ToxicStub) { <-stub.Interrupt }

// toxicAt is a body that makes the line bad once half of it has been sent. The first
// pass over it is the hash's.
type toxicAt struct {
	io.ReadSeeker
	passes int
	once   sync.Once // attempts overlap: the end of one is seen before its sender's
	act    func()
}

func (b *toxicAt) Seek(offset int64, whence int) (int64, error) {
	if offset == 0 && whence == io.SeekStart {
		b.passes++
	}
	return b.ReadSeeker.Seek(offset, whence)
}

func (b *toxicAt) Read(p []byte) (int, error) {
	n, err := b.ReadSeeker.Read(p)
	if pos, _ := b.ReadSeeker.Seek(0, io.SeekCurrent); pos > size/2 && b.sending() {
		b.once.Do(b.act)
	}
	return n, err
}

// sending says that the hash, which rewinds twice, is done.
func (b *toxicAt) sending() bool { return b.passes > 2 }

func TestUploadOverABadLine(t *testing.T) {
	for name, toxic := range map[string]string{
		"reset":                  resetUp,
		"reset by the server":    resetDown,
		"silent":                 silentUp,
		"no reply":               silentDown,
		"closed after some data": `{"type": "limit_data", "stream": "upstream", "attributes": {"bytes": 1000000}}`,
	} {
		t.Run(name, func(t *testing.T) {
			l, bare, retried := newLine(t, 2*time.Second)
			upload := func() *toxicAt {
				return &toxicAt{ReadSeeker: bytes.NewReader(data()), act: func() { l.add(toxic) }}
			}
			start := time.Now()
			err := bare.Put(t.Context(), "packs/bare", upload())
			require.Error(t, err)
			require.False(t, storage.Permanent(err), "%v", err)
			require.ErrorContains(t, err, `put object "packs/bare" in bucket "bucket"`)
			require.Less(t, time.Since(start), 20*time.Second)
			t.Log(err)
			l.heal()

			l.onRetry = l.heal
			require.NoError(t, retried.Put(t.Context(), "packs/retried", upload()))
			require.Positive(t, l.retries.Load())
			got, err := read(t, bare, "packs/retried")
			require.NoError(t, err)
			require.True(t, bytes.Equal(data(), got))
			for o, err := range bare.List(t.Context(), "packs/bare") {
				require.NoError(t, err)
				require.EqualValues(t, size, o.Size, "what is there is whole")
			}
		})
	}
}

func TestDownloadOverABadLine(t *testing.T) {
	const size = 48 << 20 // more than the kernel takes in before it is read
	data := dataOf(size)
	for name, toxic := range map[string]string{
		"reset":                  resetDown,
		"silent":                 silentDown,
		"closed after some data": `{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": 500000}}`,
	} {
		t.Run(name, func(t *testing.T) {
			l, bare, retried := newLine(t, 2*time.Second)
			require.NoError(t, bare.Put(t.Context(), "k", bytes.NewReader(data)))
			download := func(s storage.Store) ([]byte, error) {
				r, err := s.Get(t.Context(), "k", 0, -1)
				require.NoError(t, err)
				first := make([]byte, size/4)
				_, err = io.ReadFull(r, first)
				require.NoError(t, err)
				rest, err := io.ReadAll(l.addWhileReading(toxic, r))
				return append(first, rest...), errors.Join(err, r.Close())
			}
			got, err := download(bare)
			require.Error(t, err)
			require.False(t, storage.Permanent(err), "%v", err)
			require.ErrorContains(t, err, `get object "k" in bucket "bucket"`)
			require.Less(t, len(got), size)
			require.True(t, bytes.Equal(data[:len(got)], got), "what came is right")
			t.Log(err)
			l.heal()

			l.onRetry = l.heal
			got, err = download(retried)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
			require.Positive(t, l.retries.Load())
		})
	}
}

func TestSilentServerFailsInTheEnd(t *testing.T) {
	l, _, retried := newLine(t, 200*time.Millisecond)
	l.add(silentUp)
	start := time.Now()
	_, err := retried.Stat(t.Context(), "k")
	require.ErrorContains(t, err, "was silent for 100ms", "half of it at the first contact")
	require.ErrorContains(t, err, "at http://"+l.proxy.Listen)
	require.ErrorContains(t, err, fmt.Sprintf("given up after %d attempts", attempts))
	require.Equal(t, 1, strings.Count(err.Error(), "\n")+1, "one line")
	require.Less(t, time.Since(start), 20*time.Second)
	t.Log(err)
}

// A store that says nothing is given up after a bounded time, sooner at the first contact.
func TestSilenceIsBounded(t *testing.T) {
	const silence = 8 * time.Second // in all; the connection's patience is half of it
	l, bare, _ := newLine(t, silence/2)
	patient := func() storage.Store {
		return storage.WithRetry(bare, storage.Retry{Silence: silence, Logger: slog.New(retryHandler{l})})
	}
	measure := func(s storage.Store) (time.Duration, error) {
		start := time.Now()
		err := s.Put(t.Context(), "k", bytes.NewReader(data()))
		return time.Since(start), err
	}
	l.add(silentUp)
	took, err := measure(patient())
	require.ErrorContains(t, err, "given up after 6s of silence, at attempt 3")
	require.ErrorContains(t, err, "at http://"+l.proxy.Listen)
	require.Less(t, took, 20*time.Second)
	l.heal()

	s := patient()
	_, err = s.Stat(t.Context(), "k")
	require.ErrorIs(t, err, fs.ErrNotExist, "an answer: from now on the store is known to live")
	l.add(silentDown)
	took, err = measure(s)
	require.ErrorContains(t, err, "given up after 8s of silence, at attempt 2")
	require.GreaterOrEqual(t, took, silence)
	require.Less(t, took, 30*time.Second)
	t.Log(err)
}

// A server that hangs on the very first request only, as one of several behind a
// load balancer does, is tried again with the patience that commands have.
func TestSilenceOfTheFirstRequest(t *testing.T) {
	const silence = 4 * time.Second
	l, bare, _ := newLine(t, silence/2)
	s := storage.WithRetry(bare, storage.Retry{Silence: silence, Logger: slog.New(retryHandler{l})})
	l.add(silentUp)
	l.onRetry = l.heal
	require.NoError(t, s.Put(t.Context(), "k", bytes.NewReader(data())))
	require.EqualValues(t, 1, l.retries.Load())
}

// A handshake that nobody answers, and an address that nobody has.
func TestSilenceBeforeTheRequest(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // as long as the test
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	bare := open(t, &servers.S3Server{AccessKey: "a", SecretKey: "s", Region: "r", Endpoint: "https://" + listener.Addr().String()},
		func(o *s3.Options) { o.IdleTimeout = time.Second })
	s := storage.WithRetry(bare, storage.Retry{Silence: 2 * time.Second})
	_, err = s.Stat(t.Context(), "k")
	require.ErrorContains(t, err, "of silence, at attempt 3")
	require.ErrorContains(t, err, "at https://"+listener.Addr().String())
	t.Log(err)
}

func TestServerThatIsGone(t *testing.T) {
	l, _, retried := newLine(t, time.Second)
	l.proxy.Stop()
	err := retried.Put(t.Context(), "k", strings.NewReader("x"))
	require.ErrorContains(t, err, "connection refused")
	require.ErrorContains(t, err, `put object "k"`)
	require.ErrorContains(t, err, `in bucket "bucket"`)
	t.Log(err)

	l.onRetry = func() {
		if l.retries.Load() == attempts+2 { // the third of the second Put
			require.NoError(t, l.proxy.Start())
		}
	}
	require.NoError(t, retried.Put(t.Context(), "k", strings.NewReader("x")))
}

// Slow is not dead: a transfer may take many times the idle timeout.
func TestSlowLine(t *testing.T) {
	const idle = 1200 * time.Millisecond
	l, bare, _ := newLine(t, idle)
	l.add(`{"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 2500}}`)
	l.add(`{"type": "bandwidth", "stream": "downstream", "attributes": {"rate": 2500}}`)
	start := time.Now()
	require.NoError(t, bare.Put(t.Context(), "k", bytes.NewReader(data())))
	require.Greater(t, time.Since(start), 2*idle, "the line must be slow for this to say anything")
	start = time.Now()
	got, err := read(t, bare, "k")
	require.NoError(t, err)
	require.Greater(t, time.Since(start), 2*idle)
	require.True(t, bytes.Equal(data(), got))
}

func TestLatency(t *testing.T) {
	l, bare, _ := newLine(t, time.Second)
	l.add(`{"type": "latency", "stream": "downstream", "attributes": {"latency": 300, "jitter": 100}}`)
	require.NoError(t, bare.Put(t.Context(), "k", bytes.NewReader(data())))
	got, err := read(t, bare, "k")
	require.NoError(t, err)
	require.True(t, bytes.Equal(data(), got))
}

// A load that builds an index for minutes between two reads has not lost its connection.
func TestSlowReader(t *testing.T) {
	const idle = 300 * time.Millisecond
	_, bare, _ := newLine(t, idle)
	require.NoError(t, bare.Put(t.Context(), "k", bytes.NewReader(data())))
	r, err := bare.Get(t.Context(), "k", 0, -1)
	require.NoError(t, err)
	first := make([]byte, 1000)
	_, err = io.ReadFull(r, first)
	require.NoError(t, err)
	time.Sleep(3 * idle) // the passing of time is what is tested
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.True(t, bytes.Equal(data(), append(first, rest...)))
}

// The bandwidth limit must not make connections look dead.
func TestLimitedUploadIsNotSilent(t *testing.T) {
	const idle = time.Second
	_, bare, _ := newLine(t, idle)
	limited := storage.WithBandwidth(bare, storage.Bandwidth{Upload: 100_000, Download: 100_000})
	results := make(chan error)
	for i := range 4 {
		go func() {
			results <- limited.Put(t.Context(), fmt.Sprint("k", i), bytes.NewReader(data()[:60_000]))
		}()
	}
	start := time.Now()
	for range 4 {
		require.NoError(t, <-results)
	}
	require.Greater(t, time.Since(start), 2*idle)
	got, err := read(t, limited, "k0")
	require.NoError(t, err)
	require.Len(t, got, 60_000)
}
