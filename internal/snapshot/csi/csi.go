// Package csi cuts and provisions volumes through the VolumeSnapshots of
// Kubernetes, whichever CSI driver is behind them.
//
// Its central type is [Snapshotter]. It makes objects and waits: a
// VolumeSnapshot for each claim, from which the cluster's snapshot-controller
// and the driver's csi-snapshotter make the snapshot, and a claim whose data
// source is a VolumeSnapshot, from which the driver's provisioner makes a
// volume. All it knows of a provider is what stands in the status of these
// objects.
//
// # Rights
//
// It works with rights in the set's namespace alone, and better with a look at
// four kinds of objects that belong to the cluster; a right that it does not
// have is asked for only where nothing else will do.
//
//   - PersistentVolumes (get): else the driver comes from the claim's
//     annotation volume.kubernetes.io/storage-provisioner or its class, and
//     Handle, Zone and FSType stay empty; a backup's record then names the
//     volume by its PersistentVolume.
//   - VolumeSnapshotClasses (get, list): else the class is the one that was
//     configured, or the cluster's default, and its deletion policy is unknown.
//   - VolumeSnapshotContents (get): else the snapshot's handle is unknown, and
//     the ID of a Ref is the name of its content, marked as such.
//   - StorageClasses (get, list): else a class of another driver is noticed by
//     the provisioner only, and Provision does not wait for the claim to be
//     bound.
//
// To provision into another namespace, or from a snapshot whose VolumeSnapshot
// is gone, a VolumeSnapshotContent has to be made by hand, and that is a right
// over every snapshot of the driver: the ClusterRole keepset-snapshot-restore.
//
// # One point in time
//
// A member's claims are cut one by one, all requests at once; the caller holds
// the database still meanwhile. VolumeGroupSnapshots are not used. A
// VolumeSnapshot counts only once it bears the record that Cut writes when all
// of them exist: what a killed run leaves without one may have been cut when
// nobody held anything still any more, and is deleted and cut anew.
//
// # What keeps a snapshot
//
// Under a VolumeSnapshotClass with the deletion policy Delete, whoever deletes
// the VolumeSnapshot or its namespace deletes the snapshot. Cut warns about
// such a class. Under Retain the snapshot outlives both, and Delete needs a
// right on VolumeSnapshotContents.
//
// # What a run needs for a while
//
// A Snapshotter that is [Temporary] cuts for one run, which deletes what it cut
// before it ends. Its VolumeSnapshots have a purpose of their own, so that neither
// kind is ever taken for the other, and nothing whose class would keep it is made.
package csi

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"keepset/internal/snapshot"
)

// Options are what a Snapshotter needs. Kube and Snapshots are required, or
// made by [Connect].
type Options struct {
	Kube      kubernetes.Interface
	Snapshots versioned.Interface
	// Class is the VolumeSnapshotClass of what is cut; empty takes the default
	// class of the volume's driver, or its only one.
	Class string
	// Clock is the wall clock by default, Log nothing.
	Clock clock.Clock
	Log   *slog.Logger
	// Patience of all waiting but Cut's for the point in time, which holds a
	// database still and looks every tenth of a second at the latest.
	Patience snapshot.Patience
	// Grace is how long a snapshot's status may show an error before Cut
	// believes it, since the controllers try again; default 10 seconds. Where
	// nobody is held still meanwhile, Patience.Call takes its place.
	Grace time.Duration
	// Bind is how long a claim may take to be bound; default 30 minutes.
	Bind time.Duration
	// Temporary, if not nil, says that what is cut and provisioned is needed by one
	// run only.
	Temporary *Temporary
}

// Snapshotter implements [snapshot.Snapshotter], [snapshot.Preparer] and
// [snapshot.Explainer].
type Snapshotter struct {
	kube      kubernetes.Interface
	snapshots versioned.Interface
	class     string
	clock     clock.Clock
	log       *slog.Logger
	patience  snapshot.Patience
	grace     time.Duration
	bind      time.Duration
	temporary *Temporary
	// purpose of the VolumeSnapshots that are cut, listed and deleted.
	purpose string
	// cutting lets cuts of one name follow each other.
	cutting locks
	// warned has the classes whose deletion policy was complained of.
	warned sync.Map
}

var (
	_ snapshot.Snapshotter = (*Snapshotter)(nil)
	_ snapshot.Preparer    = (*Snapshotter)(nil)
	_ snapshot.Explainer   = (*Snapshotter)(nil)
)

// cutPoll is the longest time between two looks while a database is held still.
const cutPoll = 100 * time.Millisecond

// New makes a Snapshotter of the clients in o. It does not reach for the API
// server.
func New(o Options) *Snapshotter {
	s := &Snapshotter{
		kube: o.Kube, snapshots: o.Snapshots, class: o.Class, clock: o.Clock, log: o.Log,
		patience: o.Patience, grace: o.Grace, bind: o.Bind, temporary: o.Temporary, purpose: purposeBackup,
	}
	if s.temporary != nil {
		s.purpose = purposeTemporary
	}
	if s.clock == nil {
		s.clock = clock.RealClock{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.patience.Call = orElse(s.patience.Call, 2*time.Minute)
	s.patience.Poll = orElse(s.patience.Poll, 5*time.Second)
	s.grace = orElse(s.grace, 10*time.Second)
	s.bind = orElse(s.bind, 30*time.Minute)
	return s
}

// Connect makes a Snapshotter whose clients speak to the cluster of config,
// where o has none. It does not reach for the API server yet.
func Connect(config *rest.Config, o Options) (*Snapshotter, error) {
	if o.Kube == nil {
		kube, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, fmt.Errorf("make a Kubernetes client: %w", err)
		}
		o.Kube = kube
	}
	if o.Snapshots == nil {
		snapshots, err := versioned.NewForConfig(config)
		if err != nil {
			return nil, fmt.Errorf("make a client of snapshot.storage.k8s.io: %w", err)
		}
		o.Snapshots = snapshots
	}
	return New(o), nil
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
