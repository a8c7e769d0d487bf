package record

import (
	"fmt"
	"time"
)

// VolumeSnapshot is a snapshot of one claim's volume, kept by whoever provides
// the volume and not by the repository. It is plain: who holds no key can
// still say which volume snapshots a backup needs.
type VolumeSnapshot struct {
	// Provider is ProviderEBS or ProviderCSI.
	Provider string `json:"provider"`
	// ID as the provider names it: for EBS the snapshot's ID, for CSI the
	// snapshot handle of the driver.
	ID string `json:"id"`
	// Cut is the name that the whole cut was given, of which it is a part.
	Cut string `json:"cut"`
	// Name of the VolumeSnapshot of CSI, and its Namespace; empty for EBS.
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// Driver of the volume, for example "ebs.csi.aws.com".
	Driver string `json:"driver"`
	// Region that it lives in; empty where there are none.
	Region string `json:"region,omitempty"`
	// Claim and Template that the volume was behind; Volume is the provider's
	// name of it, Zone where it lived.
	Claim    string `json:"claim"`
	Template string `json:"template,omitempty"`
	Volume   string `json:"volume"`
	Zone     string `json:"zone,omitempty"`
	// Size of the volume in bytes.
	Size int64 `json:"size"`
	// Block: a raw device; else FSType is its file system, where known.
	Block  bool   `json:"block,omitempty"`
	FSType string `json:"fsType,omitempty"`
	// Encrypted by the provider, with KMSKey where it is known.
	Encrypted bool   `json:"encrypted,omitempty"`
	KMSKey    string `json:"kmsKey,omitempty"`
	// CutAt is when it was cut, by the provider's clock where it has one.
	CutAt time.Time `json:"cutAt"`
	// Together: it was cut at the same moment as the others of its cut.
	Together bool `json:"together,omitempty"`
	// Stream of the member that holds a copy of its blocks; empty: none.
	Stream string `json:"stream,omitempty"`
	// Copies of it that the provider has made in other regions.
	Copies []SnapshotCopy `json:"copies,omitempty"`
}

// SnapshotCopy is a copy of a volume snapshot in another region.
type SnapshotCopy struct {
	Region string `json:"region"`
	ID     string `json:"id"`
	// KMSKey that it is encrypted with, where it is known.
	KMSKey string `json:"kmsKey,omitempty"`
}

// Whole are the snapshot and its copies, each as a snapshot of its own that has
// no copies.
func (v *VolumeSnapshot) Whole() []VolumeSnapshot {
	self := *v
	self.Copies = nil
	all := []VolumeSnapshot{self}
	for _, c := range v.Copies {
		one := self
		one.Region, one.ID, one.KMSKey = c.Region, c.ID, c.KMSKey
		all = append(all, one)
	}
	return all
}

// The providers of volume snapshots.
const (
	ProviderEBS = "ebs"
	ProviderCSI = "csi"
)

func (v *VolumeSnapshot) validate() error {
	switch v.Provider {
	case ProviderEBS, ProviderCSI:
	default:
		return fmt.Errorf("%w: volume snapshot of provider %q", ErrInvalid, v.Provider)
	}
	if v.ID == "" || v.Cut == "" || v.Claim == "" || v.Volume == "" || v.Size <= 0 || v.CutAt.IsZero() {
		return fmt.Errorf("%w: volume snapshot %q of claim %q, volume %q, %d bytes", ErrInvalid, v.ID, v.Claim, v.Volume, v.Size)
	}
	for _, c := range v.Copies {
		if c.Region == "" || c.ID == "" {
			return fmt.Errorf("%w: copy %q in region %q of volume snapshot %q", ErrInvalid, c.ID, c.Region, v.ID)
		}
	}
	return nil
}
