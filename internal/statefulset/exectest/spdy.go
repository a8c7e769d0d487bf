package exectest

import (
	"errors"
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// openSPDY speaks v4.channel.k8s.io: a stream each, which the client opens.
func openSPDY(w http.ResponseWriter, r *http.Request) (*channels, error) {
	if _, err := httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name}); err != nil {
		return nil, err
	}
	streams := make(chan httpstream.Stream)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
		go func() {
			<-replied
			select {
			case streams <- s:
			case <-r.Context().Done():
			}
		}()
		return nil
	})
	if conn == nil {
		return nil, errors.New("not upgraded")
	}
	shut := func() { _ = conn.Close() } // the client may have gone
	c := &channels{stdout: io.Discard, stderr: io.Discard, status: io.Discard, end: shut, drop: shut}
	want := 1
	for _, name := range []string{"stdin", "stdout", "stderr"} {
		if r.URL.Query().Get(name) == "true" {
			want++
		}
	}
	for range want {
		select {
		case s := <-streams:
			c.take(s)
		case <-conn.CloseChan():
			return nil, errors.New("the client has gone")
		}
	}
	return c, nil
}

func (c *channels) take(s httpstream.Stream) {
	switch s.Headers().Get(corev1.StreamType) {
	case corev1.StreamTypeStdin:
		c.stdin = s
	case corev1.StreamTypeStdout:
		c.stdout = s
	case corev1.StreamTypeStderr:
		c.stderr = s
	case corev1.StreamTypeError:
		c.status = s
	}
}
