// Package snapshot says what a provider of volumes must do for Keepset: cut
// all volumes of one member at one point in time, and make new volumes of what
// was cut.
//
// Its central type is [Snapshotter]. Beside it stand the optional powers
// [Preparer], [Explainer], [Copier], [Together], [RightsChecker], [BlockReader] and
// [BlockWriter], interfaces of their own because not every provider has them. Whether a database stands still meanwhile,
// and what becomes of the replica that gets the volume, is decided elsewhere: a
// snapshotter knows claims and volumes, not databases, repositories or sets.
//
// The promise that everything else rests on: Cut returns nil only if every
// volume that was named, and no other, has a snapshot of the same moment, and
// Provision returns nil only if the claim is bound to a volume that was made
// from exactly that snapshot. Any doubt is an error, and what a crash leaves
// behind is found again by its name, never made twice and never forgotten.
package snapshot

import (
	"context"
	"errors"
	"iter"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keepset/internal/record"
)

// Sentinels that callers decide on (exit codes, retries). They arrive wrapped,
// with the object and what to do in the text.
var (
	// ErrUnsupported: the claim's volume is of a kind that the snapshotter cannot cut.
	ErrUnsupported = errors.New("volume cannot be snapshotted this way")
	// ErrNotFound: a claim, volume, snapshot, class or zone that was named does not exist.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the provider or the cluster refuses our account.
	ErrDenied = errors.New("access denied")
	// ErrUnreachable: the provider could not be asked, or did not answer in time.
	ErrUnreachable = errors.New("provider of volumes unreachable")
	// ErrFailed: the provider gave the snapshot or volume up; its message is in the text.
	ErrFailed = errors.New("provider failed")
	// ErrUnfit: a volume or claim does not fit what the set's template asks
	// for, so that the claim would be bound to another, empty volume.
	ErrUnfit = errors.New("volume does not fit the claim")
	// ErrInUse: the claim exists and is not what Provision would make.
	ErrInUse = errors.New("claim is in use")
	// ErrLimit: the provider's quota or rate limit stood in the way for too long.
	ErrLimit = errors.New("provider's limit reached")
	// ErrDamaged: a block's bytes do not have the checksum that they should.
	ErrDamaged = errors.New("block is damaged")
)

// Owner names whose snapshots they are. It stands on everything that a
// snapshotter makes, and nothing that does not bear it is ever touched.
type Owner struct {
	// Cluster is the origin of the set's backups; see repository.Origin.
	Cluster string
	Set     record.SetID
}

// Volume is a claim of one member, and what is known of the volume behind it.
// Cut and Provision need Namespace, Claim and Ordinal; Locate fills the rest.
type Volume struct {
	Owner   Owner
	Ordinal int
	// Namespace and Claim name the PersistentVolumeClaim, Template the claim
	// template that it was made from.
	Namespace, Claim, Template string
	// PersistentVolume behind the claim, Driver and Handle as the provider
	// names it (for EBS the volume's ID).
	PersistentVolume, Driver, Handle string
	// Node that the volume is attached to as far as Kubernetes knows, Zone
	// that it lives in; empty when not known.
	Node, Zone string
	// Size in bytes.
	Size int64
	// Block: the claim is a raw device. FSType otherwise.
	Block  bool
	FSType string
	// Encrypted asks StartSnapshot for a snapshot that is encrypted, as the
	// volume was whose blocks it gets. Cut and Provision need no word for it:
	// the provider encrypts what comes of what is encrypted.
	Encrypted bool
}

// Ref is a volume snapshot, as the backup's record keeps it.
type Ref = record.VolumeSnapshot

// Snapshotter cuts and provisions volumes. Every call is idempotent by name:
// repeated after a crash or a lost reply it finds what it made before.
// Implementations are safe for concurrent use.
type Snapshotter interface {
	// Locate finds the volumes behind the claims and fills in what Volume
	// leaves open. It changes nothing. ErrNotFound names every claim that is
	// missing or not bound, ErrUnsupported every volume of another kind.
	Locate(ctx context.Context, volumes []Volume) ([]Volume, error)
	// Cut snapshots the located volumes of one member at one point in time, or
	// where the provider cannot, one after the other (the caller holds the
	// database still). It returns once that point in time exists, long before
	// the data is copied, with one Ref for each volume, in order. After an
	// error no snapshot of this name is wanted: what was made is deleted, or
	// found by List.
	Cut(ctx context.Context, name string, volumes []Volume) ([]Ref, error)
	// WaitReady returns once the snapshot can be provisioned from. ErrFailed
	// with the provider's message when that will never be.
	WaitReady(ctx context.Context, r Ref) error
	// Provision makes the claim of the target, bound (or, where the volume
	// waits for its first consumer, bound as soon as that exists) to a volume
	// of its own made from the snapshot. A claim that an earlier call made is
	// success; any other of its name is ErrInUse.
	Provision(ctx context.Context, r Ref, t Target) error
	// Delete deletes the snapshot, and only if it bears the Owner. Absent: nil.
	Delete(ctx context.Context, owner Owner, r Ref) error
	// List yields all volume snapshots that bear the owner, in no order.
	List(ctx context.Context, owner Owner) iter.Seq2[Ref, error]
}

// Target is the claim that Provision makes.
type Target struct {
	Owner   Owner
	Ordinal int
	// Run is the restore that it is made for: what another run has left half
	// made is removed, not adopted.
	Run string
	// Claim is the claim as the set's controller would make it: name,
	// namespace, labels, annotations, owner, and a spec (class, size, modes)
	// without volume or data source.
	Claim *corev1.PersistentVolumeClaim
	// Zone that the replica will run in; empty lets the snapshotter decide, or
	// ErrNotFound where it must not.
	Zone string
}

// Preparer is the power of a snapshotter that can do most of Provision before
// the claim's name is free, so that what does not fit is refused while the old
// claim still stands.
type Preparer interface {
	// Prepare makes everything but the claim, and checks that the claim will
	// fit: ErrUnfit. Provision with the same target takes it over.
	Prepare(ctx context.Context, r Ref, t Target) error
	// Scrap removes what Prepare has made for a claim and no claim has been
	// bound to, by whatever run. Nothing there: nil.
	Scrap(ctx context.Context, t Target) error
}

// Explainer is the power of a snapshotter that can say, before anything is cut
// and after a claim was made, what stands in Provision's way.
type Explainer interface {
	// CheckFit returns ErrUnfit when Provision would refuse the target's class or
	// mode for a snapshot of the located volume. It changes nothing.
	CheckFit(ctx context.Context, v Volume, t Target) error
	// CheckBound says why a claim that Provision made has no volume yet; nil when
	// it has one.
	CheckBound(ctx context.Context, t Target) error
}

// Copier is the power of a snapshotter whose provider copies snapshots to
// other regions.
type Copier interface {
	// Copy begins to copy a snapshot that is ready, and returns r with the copy
	// among its Copies. Repeated, it finds the copy that it made. WaitReady
	// waits for the copy as a snapshot of its own; see Ref's Whole. Delete of
	// r deletes its copies too, and Provision takes the one in the region of
	// the target's zone.
	Copy(ctx context.Context, r Ref, owner Owner, region string) (Ref, error)
	// Near is what Provision makes a volume of in a zone: r, or its copy in the
	// zone's region. ErrNotFound when that region has none. It asks nobody.
	Near(r Ref, zone string) (Ref, error)
	// ListIn is List of one region, whether or not copies are made there now.
	ListIn(ctx context.Context, owner Owner, region string) iter.Seq2[Ref, error]
}

// Together is the power of a snapshotter that can cut several volumes at one
// moment, by a single call, where the provider lets it.
type Together interface {
	CutsTogether()
}

// RightsChecker is the power of a snapshotter that can ask the provider whether
// it would let us cut, and cut nothing.
type RightsChecker interface {
	// CheckRights asks for the located volumes of one member: ErrDenied names
	// every action that is missing.
	CheckRights(ctx context.Context, volumes []Volume) error
}

// BlockSize is the size of the blocks in which volumes travel to and from the
// repository, in bytes; the last block of a volume may be shorter.
const BlockSize = 512 << 10

// Block is a block of a snapshot that holds data. Blocks that do not appear
// were never written and read as zeros.
type Block struct {
	// Index: the block begins at Index*BlockSize.
	Index int64
	// Token is what the provider wants to hear with the block's read.
	Token string
	// Same: the block is what it was in the snapshot that it was compared with.
	// It has no Token.
	Same bool
}

// BlockReader is the power of a snapshotter that reads a snapshot's blocks
// without mounting it anywhere.
type BlockReader interface {
	// Blocks yields the snapshot's blocks in ascending order of Index. With
	// since, an earlier snapshot of the same volume, unchanged blocks are
	// marked Same; ErrNotFound when it is gone or of another volume, before
	// the first block.
	Blocks(ctx context.Context, r Ref, since *Ref) iter.Seq2[Block, error]
	// ReadBlock reads one block into buffer, BlockSize long, and returns its
	// length. ErrDamaged when the provider's checksum does not match.
	ReadBlock(ctx context.Context, r Ref, b Block, buffer []byte) (int, error)
}

// BlockWriter is the power of a snapshotter that makes a snapshot from blocks.
type BlockWriter interface {
	// StartSnapshot begins a snapshot of a volume of v.Size bytes, encrypted
	// where v.Encrypted asks for it.
	StartSnapshot(ctx context.Context, name string, v Volume) (Ref, error)
	// WriteBlock writes one block, BlockSize long. Blocks that are not written
	// are zeros. It may be called concurrently.
	WriteBlock(ctx context.Context, r Ref, index int64, block []byte) error
	// CompleteSnapshot ends the snapshot, into which blocks were written, and
	// returns once it is ready.
	CompleteSnapshot(ctx context.Context, r Ref, blocks int64) error
}

// Patience bounds the waiting of a snapshotter.
type Patience struct {
	// Call bounds one call of the provider with its retries; default 2 minutes.
	Call time.Duration
	// Poll is the time between two looks at what is in progress; default 5 seconds.
	Poll time.Duration
}
