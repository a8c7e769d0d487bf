package statefulset

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/utils/clock"
)

// How long and how often the API server is asked again when it does not answer:
// one that is restarted is back within a minute, and a restore of hours shall
// not begin anew for that. A person at a terminal wants to know sooner.
const (
	patienceInPod = time.Minute
	patience      = 5 * time.Second
	firstPause    = 250 * time.Millisecond
	mostPause     = 5 * time.Second
)

// patient asks again what may be asked again: every request that cannot have
// reached the server, and every reading one that got no answer, or that of a
// server that is coming up or going down. A change that may have been made is
// not repeated here; who makes it knows what that would mean.
type patient struct {
	next            http.RoundTripper
	patience, pause time.Duration
	log             *slog.Logger
	clock           clock.Clock
}

func patientWith(log *slog.Logger) func(http.RoundTripper) http.RoundTripper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	bound := patience
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		bound = patienceInPod
	}
	return func(next http.RoundTripper) http.RoundTripper {
		return &patient{next: next, patience: bound, pause: firstPause, log: log, clock: clock.RealClock{}}
	}
}

// RoundTrip implements [http.RoundTripper].
func (p *patient) RoundTrip(request *http.Request) (*http.Response, error) {
	begin, pause := p.clock.Now(), p.pause
	told := false
	for {
		response, err := p.next.RoundTrip(request)
		if !again(request, response, err) || p.clock.Since(begin) > p.patience {
			return response, err
		}
		if request.Body != nil && request.GetBody == nil {
			return response, err
		}
		if !told {
			told = true
			p.log.Warn("the API server does not answer, and is asked again", "for", p.patience, "reason", reasonOf(response, err))
		}
		timer := p.clock.NewTimer(pause)
		select {
		case <-request.Context().Done():
			timer.Stop()
			return response, err
		case <-timer.C():
		}
		if response != nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
			_ = response.Body.Close()
		}
		if request.GetBody != nil {
			body, err := request.GetBody()
			if err != nil {
				return nil, fmt.Errorf("repeat a request: %w", err)
			}
			request = request.Clone(request.Context())
			request.Body = body
		}
		pause = min(2*pause, mostPause)
	}
}

// again says whether a request is worth repeating, and harmless.
func again(request *http.Request, response *http.Response, err error) bool {
	if request.Context().Err() != nil {
		return false
	}
	reads := request.Method == http.MethodGet || request.Method == http.MethodHead
	if err != nil {
		var dial *net.OpError
		var name *net.DNSError
		var certificate *tls.CertificateVerificationError
		if errors.As(err, &certificate) || errors.As(err, &name) && name.IsNotFound {
			return false
		}
		return reads || errors.As(err, &dial) && dial.Op == "dial"
	}
	switch response.StatusCode {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return reads && response.Header.Get("Retry-After") == "" // client-go waits for that itself
	}
	return false
}

func reasonOf(response *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return response.Status
}
