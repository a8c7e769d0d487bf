package statefulset

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// asker is a client of an API server, with as much patience.
func asker(t *testing.T, url string, patience time.Duration) kubernetes.Interface {
	t.Helper()
	config := &rest.Config{Host: url}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &patient{next: next, patience: patience, pause: time.Millisecond, log: slog.New(slog.DiscardHandler), clock: clock.RealClock{}}
	})
	kube, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return kube
}

// A server that is coming up is asked again, for what is harmless to repeat.
func TestPatience(t *testing.T) {
	var requests atomic.Int32
	fail := func(w http.ResponseWriter, code int) { http.Error(w, "starting", code) }
	cut := func(w http.ResponseWriter) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := requests.Add(1)
		switch {
		case n == 1:
			fail(w, http.StatusInternalServerError)
		case n == 2:
			cut(w)
		case n == 3:
			fail(w, http.StatusServiceUnavailable)
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"db-0"}}`))
		}
	}))
	defer server.Close()
	pods := asker(t, server.URL, time.Minute).CoreV1().Pods("mysql")
	pod, err := pods.Get(t.Context(), "db-0", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "db-0", pod.Name)
	require.EqualValues(t, 4, requests.Load())

	requests.Store(0)
	_, err = pods.Create(t.Context(), &corev1.Pod{}, metav1.CreateOptions{})
	require.Error(t, err, "it may have been made")
	require.EqualValues(t, 1, requests.Load())
}

// A change is repeated when it cannot have arrived, and patience ends.
func TestPatienceWithAServerThatIsDown(t *testing.T) {
	var listen net.ListenConfig
	listener, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	_, err = asker(t, "http://"+address, 20*time.Millisecond).CoreV1().Pods("mysql").Create(t.Context(), &corev1.Pod{}, metav1.CreateOptions{})
	require.ErrorContains(t, err, "refused")

	var bodies atomic.Int64
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bodies.Add(r.ContentLength)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"db-0"}}`))
	})}
	defer func() { _ = server.Close() }()
	go func() {
		time.Sleep(100 * time.Millisecond)
		if listener, err := listen.Listen(t.Context(), "tcp", address); err == nil {
			_ = server.Serve(listener)
		}
	}()
	_, err = asker(t, "http://"+address, time.Minute).CoreV1().Pods("mysql").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "db-0"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Positive(t, bodies.Load(), "with its body")
}

// Somebody else's certificate is no server that is coming up.
func TestNoPatienceWithAWrongCertificate(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	_, err := asker(t, server.URL, time.Minute).CoreV1().Pods("mysql").Get(t.Context(), "db-0", metav1.GetOptions{})
	require.ErrorContains(t, err, "certificate")
	require.EqualValues(t, 1, connections.Load())
}
