// Package ebs snapshots volumes of Amazon EBS and makes new ones of them,
// through the API of EC2; and reads and writes their blocks through the EBS
// direct API, without mounting them anywhere.
//
// Its central type is [Snapshotter]. The volumes are those behind claims,
// whether the EBS CSI driver made them, EKS Auto Mode's, or the in-tree plugin
// of long ago. A snapshot belongs to whom its tags say; there is no other
// memory. That is what makes every call repeatable: what a crashed process or
// a lost reply has left is found by its tags, adopted when it is whole, and
// deleted when it is not. What does not bear our tags is never touched, and of
// what does, only what no claim is bound to and no instance has attached.
//
// What AWS does not promise is not relied on: CreateSnapshots, CreateSnapshot
// and CopySnapshot have no client token, so a call whose reply was lost is not
// repeated before a look; what was just made may not be seen yet; a volume whose
// KMS key we may not use is made and vanishes without a word.
package ebs

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

// The drivers whose volumes these are, as PersistentVolumes name them, and the
// names under which classes ask for them.
const (
	driverCSI  = "ebs.csi.aws.com"
	driverAuto = "ebs.csi.eks.amazonaws.com"
	inTree     = "kubernetes.io/aws-ebs"
)

const gib = 1 << 30

// Options say whose volumes, where, and how long to wait. AWS's own defaults
// apply to what is empty: AWS_REGION, AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL_EBS, a
// web identity (IRSA), Pod Identity, the shared files.
type Options struct {
	// Kube may be nil where snapshots are only waited for, listed and deleted.
	Kube kubernetes.Interface
	// Region where nothing else says which: a volume's zone does.
	Region string
	// EC2Endpoint and EBSEndpoint are URLs, for tests and private endpoints.
	EC2Endpoint, EBSEndpoint string
	// Credentials instead of those of the environment.
	Credentials Credentials
	// KMSKey encrypts snapshots that are written or copied, where it is not empty.
	KMSKey string
	// Copies are regions that snapshots are copied to, in which List and Delete look too.
	Copies []string
	// InitializationRate at which new volumes are filled, in MiB/s (100 to 300); 0 leaves it to AWS.
	InitializationRate int
	// BlocksPerPage is how many blocks one reply may list (100 to 10000); 0 means 10000.
	BlocksPerPage int
	// Tags that all snapshots and volumes get beside ours.
	Tags     map[string]string
	Patience snapshot.Patience
	Clock    clock.Clock
	Log      *slog.Logger
}

// Credentials are an access key.
type Credentials struct{ AccessKeyID, SecretAccessKey, SessionToken string }

// Snapshotter implements [snapshot.Snapshotter] and all of the powers beside it.
type Snapshotter struct {
	kube     kubernetes.Interface
	config   aws.Config
	idle     func()
	options  Options
	patience snapshot.Patience
	clock    clock.Clock
	log      *slog.Logger

	mu      sync.Mutex
	region  string // that was found out, or configured
	clients map[string]*clients
	names   map[string]*nameLock
	written map[string]*written // by snapshot
}

var (
	_ snapshot.Snapshotter = (*Snapshotter)(nil)
	_ snapshot.Preparer    = (*Snapshotter)(nil)
)

// New loads AWS's configuration. It calls nobody yet.
func New(ctx context.Context, o Options) (*Snapshotter, error) {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience.Call <= 0 {
		o.Patience.Call = 2 * time.Minute
	}
	if o.Patience.Poll <= 0 {
		o.Patience.Poll = 5 * time.Second
	}
	if o.BlocksPerPage <= 0 {
		o.BlocksPerPage = pageBlocks
	}
	cfg, idle, err := loadConfig(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open EBS: %w", err)
	}
	return &Snapshotter{
		kube: o.Kube, config: cfg, idle: idle, options: o, patience: o.Patience, clock: o.Clock, log: o.Log, region: cfg.Region,
		clients: map[string]*clients{}, names: map[string]*nameLock{}, written: map[string]*written{},
	}, nil
}

// Close gives up idle connections. The Snapshotter stays usable.
func (s *Snapshotter) Close() { s.idle() }

// sleep waits, unless ctx ends first.
func (s *Snapshotter) sleep(ctx context.Context, d time.Duration) error {
	timer := s.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C():
		return nil
	}
}

// until looks at done every Poll until it is true, fails, or ctx ends.
func (s *Snapshotter) until(ctx context.Context, done func(context.Context) (bool, error)) error {
	for {
		ok, err := done(ctx)
		if ok || err != nil {
			return err
		}
		if err := s.sleep(ctx, s.patience.Poll); err != nil {
			return err
		}
	}
}

// nameLock makes concurrent cuts of one name wait for one another.
type nameLock struct {
	ch    chan struct{}
	users int
}

// lock returns the function that unlocks the name.
func (s *Snapshotter) lock(ctx context.Context, name string) (func(), error) {
	s.mu.Lock()
	l := s.names[name]
	if l == nil {
		l = &nameLock{ch: make(chan struct{}, 1)}
		s.names[name] = l
	}
	l.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.names, name)
		}
	}
	select {
	case l.ch <- struct{}{}:
		return func() { <-l.ch; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

func isEBS(r snapshot.Ref) error {
	if r.Provider != record.ProviderEBS {
		return fmt.Errorf("snapshot %q is of provider %q, not of EBS: %w", r.ID, r.Provider, snapshot.ErrUnsupported)
	}
	return nil
}
