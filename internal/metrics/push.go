package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/prometheus/client_golang/prometheus/push"
	"github.com/prometheus/common/expfmt"
)

// Gateway is a Pushgateway, or what speaks its protocol.
type Gateway struct {
	URL *url.URL
	// User and Password of basic authentication; no user, none.
	User, Password string
	Client         *http.Client
}

// Push adds all groups of a run to a gateway, each under its own grouping key:
// job "keepset_<command>", set, and share in a fan-out. It adds (POST), so that
// what a failed run does not say, the time of the last success, stays.
func (r *Run) Push(ctx context.Context, to Gateway) error {
	var errs []error
	for _, g := range r.groups {
		p := push.New(to.URL.String(), "keepset_"+g.Command).Collector(g).Client(to.Client).
			Format(expfmt.NewFormat(expfmt.TypeTextPlain))
		for name, value := range g.labels() {
			p = p.Grouping(name, value)
		}
		if to.User != "" {
			p = p.BasicAuth(to.User, to.Password)
		}
		if err := p.AddContext(ctx); err != nil {
			errs = append(errs, fmt.Errorf("push the metrics of %s to %s: %w", g.Set, to.URL.Redacted(), err))
		}
	}
	return errors.Join(errs...)
}
