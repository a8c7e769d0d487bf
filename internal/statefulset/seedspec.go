package statefulset

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// SeedSpec says how an ordinal is to be filled.
type SeedSpec struct {
	Ordinal int
	// Endpoint of the database in the pod: see DiscoverOptions.
	DiscoverOptions
	// InitContainers that mount a claim and shall run all the same. Those that
	// mount none always run: they write the member's configuration.
	InitContainers []string
	// Containers to run beside the database's own.
	Containers []string
	// Patch is a strategic merge patch of the pod, in YAML: the credentials,
	// arguments and environment that a seed needs and the set's pods do not.
	Patch []byte
	// ClaimTemplates whose claims are replaced. Default: those that the
	// database's container mounts.
	ClaimTemplates []string
	// MakeClaim makes the claims that the seed fills where they come with their
	// content; nil for empty ones. See [ClaimMaker].
	MakeClaim ClaimMaker
	// Adopt says how the database starts on the files of another one, which is
	// what such claims hold; nil for one that makes its own files.
	Adopt *Adoption
	// Filler fills the claim with files in the seed pod, which then is not made of
	// the set's template; nil for a database that is loaded over the network.
	Filler *Filler
	// Fill brings the files of another server into the claim, in an init container
	// before what Adopt says; nil where the claims come with their content.
	Fill *Filler
	// Replace consents to the loss of claims that exist.
	Replace bool
	// ForcePod deletes the ordinal's pod without waiting for its node, which
	// is known to be dead.
	ForcePod bool
	// StartTimeout bounds the wait for the seed pod's database container and
	// for each change of hands. Default 10 minutes.
	StartTimeout time.Duration
}

// ClaimMaker makes a claim, which is handed over as the controller would make
// it, on a volume that has its content already. It may be called again with the
// same claim. It answers with an error that wraps ErrClaimInUse when another
// claim of that name is in its way.
type ClaimMaker func(ctx context.Context, claim *corev1.PersistentVolumeClaim) error

// Adoption is how a database starts on the files of another one.
type Adoption struct {
	// Script for a POSIX shell, run before the database by an init container
	// that is like the database's: same image, user, and mounts of claims. Its
	// arguments are the paths at which the claims are mounted.
	Script string
	// Container of the template whose image the init container has instead of the
	// database's, and nothing else of it; empty for the database's own.
	Container string
	// Arguments for the database's container, behind those that it has.
	Arguments []string
}

const defaultStartTimeout = 10 * time.Minute

// SeedState is how far an ordinal has come.
type SeedState int

// The states of an ordinal, as [Seed.Inspect] finds them.
const (
	// SeedFresh: nothing to lose. No claim, or one that was never bound.
	SeedFresh SeedState = iota
	// SeedClaimsExist: claims with unknown content, perhaps a running pod.
	SeedClaimsExist
	// SeedHalf: an earlier attempt was cut off; its content is worthless.
	SeedHalf
	// SeedLoaded: the load is complete and checked; the name is still held.
	SeedLoaded
	// SeedReleased: this run has finished the ordinal.
	SeedReleased
)

// String is a word for messages.
func (s SeedState) String() string {
	switch s {
	case SeedFresh:
		return "fresh"
	case SeedClaimsExist:
		return "claims exist"
	case SeedHalf:
		return "half loaded"
	case SeedLoaded:
		return "loaded"
	case SeedReleased:
		return "released"
	default:
		return "unknown"
	}
}

// SeedStatus is what [Seed.Inspect] found.
type SeedStatus struct {
	State SeedState
	// Backup is the one that was loaded, in SeedLoaded and SeedReleased.
	Backup string
	// Run that left the state behind, where known.
	Run string
	// Text says in words what was found.
	Text string
}

// seen is an ordinal's pod and claims at one moment.
type seen struct {
	pod    *corev1.Pod
	claims map[string]*corev1.PersistentVolumeClaim
}
