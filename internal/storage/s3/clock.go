package s3

import (
	"net/http"
	"sync/atomic"
	"time"
)

// storeClock is the store's clock, as the dates of its answers tell it: a pod's
// own may be hours off, and a lock that ends by it would end too early. Before the first answer it is ours;
// whoever puts an object has listed something before.
type storeClock struct{ ahead atomic.Int64 }

func (c *storeClock) now() time.Time {
	return time.Now().Add(time.Duration(c.ahead.Load())) //nolint:forbidigo // corrected by what the store says
}

// heard takes the date of an answer, which has whole seconds.
func (c *storeClock) heard(date string) {
	at, err := http.ParseTime(date)
	if err != nil {
		return
	}
	c.ahead.Store(int64(time.Until(at)))
}

// dated tells clock the date of each answer.
type dated struct {
	next  http.RoundTripper
	clock *storeClock
}

func (d *dated) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := d.next.RoundTrip(r)
	if err == nil {
		d.clock.heard(response.Header.Get("Date"))
	}
	return response, err
}
