package ebstest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"keepset/internal/snapshot/ebstest/control"
)

// What tests say is what the control client says.
type (
	// Rule is a fault.
	Rule = control.Rule
	// Scope chooses calls.
	Scope = control.Scope
	// Call is an entry of the log.
	Call = control.Call
	// Error is an error of AWS's protocols.
	Error = control.Error
)

// DefaultAccount is the account of an access key that is not registered.
const DefaultAccount = "111122223333"

// Options says what the fake consists of.
type Options struct {
	// Dir holds the image files and the state, which outlive the process.
	Dir string
	// Regions and their zones by name; the default is us-east-1 with a, b and c.
	// The region of Default is what the control interface means by no region.
	Regions map[string][]string
	// Region that is meant where none is given; needed with several Regions.
	Region string
	// Accounts by access key ID. A key that is not among them belongs to
	// DefaultAccount, or is refused with AuthFailure when Strict is set.
	Accounts map[string]string
	Strict   bool
	// SnapshotTime is how long a snapshot is pending, VolumeTime how long a
	// volume is creating, by Clock. With 0 the call that makes them still
	// answers pending or creating, and the next look finds them done.
	SnapshotTime, VolumeTime time.Duration
	// SnapshotInterval is the least time between the starts of two snapshots
	// of a volume while the first is pending; 0 means AWS's 15 seconds, less
	// than 0 none.
	SnapshotInterval time.Duration
	// PageLimit is the most that a page of any listing holds, whatever the
	// request allows; 0: no limit.
	PageLimit int
	// Clock is the fake's; the default is time.Now.
	Clock func() time.Time
	// Freeze is called with the volumes of one cut, before the first of them is
	// copied, and thaw after the last one is. Whoever mounts the volumes freezes
	// their file systems, so that the cut is of one point in time. An error
	// fails the cut.
	Freeze func(ctx context.Context, volumes []string) (thaw func(), err error)
}

// Server is the fake. It is safe for concurrent use.
type Server struct {
	options Options
	url     string
	close   func()
	control *http.ServeMux

	mu       sync.Mutex
	state    *state
	rules    []*Injection
	injected int
	calls    []Call
	grants   map[string][]string
	blocks   map[string]*blockMap
}

// New returns the fake over the state that is in the directory, or a new one.
// It is an http.Handler; Close is not needed.
func New(o Options) (*Server, error) {
	if o.Dir == "" {
		return nil, errors.New("fake ec2: the directory for images is missing: set Options.Dir")
	}
	if len(o.Regions) == 0 {
		o.Regions = map[string][]string{"us-east-1": {"us-east-1a", "us-east-1b", "us-east-1c"}}
	}
	for name := range o.Regions {
		if o.Region == "" && len(o.Regions) == 1 {
			o.Region = name
		}
	}
	if _, ok := o.Regions[o.Region]; !ok {
		return nil, fmt.Errorf("fake ec2: region %q is not among the regions: set Options.Region", o.Region)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.SnapshotInterval == 0 {
		o.SnapshotInterval = 15 * time.Second
	}
	for _, dir := range []string{volumeDir, snapshotDir} {
		if err := os.MkdirAll(o.Dir+"/"+dir, 0o755); err != nil {
			return nil, fmt.Errorf("fake ec2: %w", err)
		}
	}
	st, err := loadState(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{options: o, state: st, grants: map[string][]string{}, blocks: map[string]*blockMap{}}
	s.control = s.controls()
	return s, nil
}

// Start runs the fake on a port of this machine until the test ends. Without
// Options.Dir it keeps its images in a directory of the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	s.url, s.close = server.URL, server.Close
	t.Cleanup(s.Close)
	return s
}

// URL is the endpoint of EC2, of the EBS direct API and of the control
// interface, after Start.
func (s *Server) URL() string { return s.url }

// Close stops what Start has started, and releases the replies that are held.
// It may be called more than once.
func (s *Server) Close() {
	s.mu.Lock()
	rules := slices.Clone(s.rules)
	s.mu.Unlock()
	for _, i := range rules {
		i.Remove()
	}
	if s.close != nil {
		s.close()
	}
}

// Control is a client of the control interface, after Start.
func (s *Server) Control() *control.Client { return control.New(s.url) }

// ServeHTTP tells the three interfaces apart: /control/ is ours, /snapshots is
// the EBS direct API, and all else is EC2's.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case hasPath(r, "/control"):
		s.control.ServeHTTP(w, r)
	case hasPath(r, "/snapshots"):
		s.serveDirect(w, r)
	default:
		s.serveQuery(w, r)
	}
}

func hasPath(r *http.Request, prefix string) bool {
	path := r.URL.Path
	return path == prefix || len(path) > len(prefix) && path[:len(prefix)] == prefix && path[len(prefix)] == '/'
}

func (s *Server) now() time.Time { return s.options.Clock().UTC() }
