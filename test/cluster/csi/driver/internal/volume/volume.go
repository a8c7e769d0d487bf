// Package volume says what a provider of volumes must do for the driver. Its
// central type is [Backend]; behind it are files on this machine, or a fake of
// a cloud.
//
// A volume is an image file: the driver puts a file system on it, mounts it and
// freezes it, whoever keeps it. Every call can be repeated: a volume or
// snapshot is known by the name that Kubernetes gave it, so that a call whose
// reply was lost finds what it made.
package volume

import (
	"context"
	"errors"
	"time"
)

// Sentinels that the driver turns into the codes of the CSI specification.
var (
	ErrNotFound = errors.New("not found")                      // no volume or snapshot of this ID
	ErrExists   = errors.New("exists with another content")    // the name is taken by one that was made otherwise
	ErrInUse    = errors.New("in use")                         // attached somewhere, or being written to
	ErrSize     = errors.New("size is not possible")           // smaller than the snapshot, or above the limit
	ErrInvalid  = errors.New("parameter is not valid")         // of a StorageClass or VolumeSnapshotClass
	ErrLimit    = errors.New("limit of the provider exceeded") // of rate, number or space
)

// GiB is the unit in which clouds give out volumes, in bytes.
const GiB = 1 << 30

// Spec is a volume to make.
type Spec struct {
	Name     string // unique; the same name asks for the same volume
	Size     int64  // bytes at least; 0: the provider's least, or the snapshot's size
	Limit    int64  // bytes at most; 0: none
	Snapshot string // ID of what it is filled with; empty: nothing
	// Zones that it may live in, the best first; empty: any.
	Zones []string
	// Parameters of the StorageClass, and those under csi.storage.k8s.io/ that
	// the provisioner adds.
	Parameters map[string]string
}

// Volume is one that exists.
type Volume struct {
	ID       string
	Name     string // of the Spec
	Size     int64  // bytes
	Zone     string
	Snapshot string // ID of what it was filled with, or empty
}

// SnapshotSpec is a snapshot to make.
type SnapshotSpec struct {
	Name       string // unique
	Volume     string // ID
	Parameters map[string]string
}

// Snapshot is one that exists.
type Snapshot struct {
	ID      string
	Name    string // of the SnapshotSpec
	Volume  string // ID of the volume it was made of
	Size    int64  // bytes that a volume made from it must have
	Created time.Time
	Ready   bool   // a volume can be made from it
	Failed  string // the provider's reason why it never will be, or empty
}

// Backend keeps volumes and snapshots. Implementations are safe for concurrent
// use; the driver makes no two calls at once for one name or ID.
type Backend interface {
	// CreateVolume makes the volume, or returns the one of that name.
	CreateVolume(ctx context.Context, spec Spec) (Volume, error)
	// DeleteVolume deletes it; absent is nil, attached is ErrInUse.
	DeleteVolume(ctx context.Context, id string) error
	// Volumes returns all, in the order of their IDs.
	Volumes(ctx context.Context) ([]Volume, error)
	// CreateSnapshot makes a snapshot of the volume as it is at one moment, and
	// returns once that moment is over; or returns the one of that name.
	CreateSnapshot(ctx context.Context, spec SnapshotSpec) (Snapshot, error)
	// DeleteSnapshot deletes it; absent is nil.
	DeleteSnapshot(ctx context.Context, id string) error
	// Snapshots returns all, in the order of their IDs.
	Snapshots(ctx context.Context) ([]Snapshot, error)
	// Attach gives the volume to this machine and returns its image file.
	// Attached here already is success; anywhere else is ErrInUse.
	Attach(ctx context.Context, id string) (image string, err error)
	// Image returns the image file of a volume that is attached to this
	// machine, and ErrNotFound for any other.
	Image(ctx context.Context, id string) (string, error)
	// Detach takes it away again; not attached, or absent, is nil.
	Detach(ctx context.Context, id string) error
}
