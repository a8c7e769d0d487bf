package cli

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/metrics"
)

// MetricsFlags say where a command leaves its metrics.
type MetricsFlags struct {
	File, Push, PasswordFile string
}

// pushTimeout bounds what a gateway that does not answer adds to a run.
const pushTimeout = 15 * time.Second

// Add declares the flags.
func (f *MetricsFlags) Add(fs *pflag.FlagSet) {
	fs.StringVar(&f.File, "metrics-file", "", "write the run's metrics to this file, for node exporter's textfile collector")
	fs.StringVar(&f.Push, "metrics-push", "", "push the run's metrics to this Pushgateway, http://host:9091 or https://user@host")
	fs.StringVar(&f.PasswordFile, "metrics-password-file", "", "file with the Pushgateway's password (or set KEEPSET_METRICS_PASSWORD)")
}

// gateway reads the flags; nil when nothing is to be pushed.
func (f *MetricsFlags) gateway(a *App) (*metrics.Gateway, error) {
	if f.Push == "" {
		return nil, nil
	}
	u, err := url.Parse(f.Push)
	if err != nil {
		return nil, Usage("--metrics-push is no URL: want http://host:9091") // the error would show what may be a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, Usage("--metrics-push %q: want http://host:9091 or https://user@host/path", u.Redacted())
	}
	to := &metrics.Gateway{URL: u, Client: &http.Client{Timeout: pushTimeout}}
	if u.User != nil {
		if _, given := u.User.Password(); given {
			return nil, refusePassword("metrics-push", EnvName("metrics-password"), "metrics-password-file")
		}
		to.User = u.User.Username()
		u.User = nil
	}
	to.Password, err = a.Secret(f.PasswordFile, EnvName("metrics-password"))
	return to, err
}

// Around runs work, which names the sets and fills in what it did, and leaves
// the metrics of how that ended. A set that is not known when work fails has
// none. Metrics that get lost change nothing of how the run ended: that is a
// warning.
func (f *MetricsFlags) Around(ctx context.Context, a *App, command string, work func(*metrics.Run) error) error {
	to, err := f.gateway(a)
	if err != nil {
		return err
	}
	run := &metrics.Run{Command: command}
	started := a.Clock()
	err = work(run)
	ended := err
	if err != nil && ctx.Err() != nil {
		ended = interrupted(err)
	}
	run.End(started, a.Clock(), ExitCode(ended))
	f.leave(ctx, a, to, run)
	return err
}

func (f *MetricsFlags) leave(ctx context.Context, a *App, to *metrics.Gateway, run *metrics.Run) {
	if f.File != "" {
		if err := run.WriteFile(f.File); err != nil {
			a.Log.Warn("metrics not written", "error", err)
		}
	}
	if to == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pushTimeout)
	defer cancel()
	if err := run.Push(ctx, *to); err != nil {
		a.Log.Warn("metrics not pushed", "error", err)
	}
}
