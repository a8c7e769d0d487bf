package record

import (
	"fmt"
	"time"
)

// ObjectRef is the name and the size of a stored object.
type ObjectRef struct {
	SHA256 Hash  `json:"sha256"`
	Size   int64 `json:"size"`
}

// Refs lists every object that one member needs. It is plain: who holds no
// key can still say whether everything is there.
type Refs struct {
	Header
	Repository string    `json:"repository"`
	Backup     BackupID  `json:"backup"`
	Set        SetID     `json:"set"`
	Ordinal    int       `json:"ordinal"`
	Attempt    AttemptID `json:"attempt"`
	// Map is the member's [Map] object; the rest of Maps are its pieces.
	Map   Hash        `json:"map"`
	Maps  []ObjectRef `json:"maps"`
	Parts []ObjectRef `json:"parts"`
	Packs []ObjectRef `json:"packs"`
	// Memos lie with the parts, and tell the next backup what each remembered
	// stream consisted of.
	Memos []ObjectRef `json:"memos,omitempty"`
	// VolumeSnapshots are what the member needs outside of the repository.
	VolumeSnapshots []VolumeSnapshot `json:"volumeSnapshots,omitempty"`
}

// RecordKind is KindRefs.
func (r *Refs) RecordKind() Kind { return KindRefs }

// Validate checks that each list is in order of its names and that the map is listed.
func (r *Refs) Validate() error {
	if err := validateMember(r.Backup, r.Ordinal, r.Attempt); err != nil {
		return err
	}
	if err := r.Set.Validate(); err != nil {
		return err
	}
	for _, list := range [][]ObjectRef{r.Maps, r.Parts, r.Packs, r.Memos} {
		if err := validateObjects(list); err != nil {
			return err
		}
	}
	for i := range r.VolumeSnapshots {
		if err := r.VolumeSnapshots[i].validate(); err != nil {
			return err
		}
	}
	for _, o := range r.Maps {
		if o.SHA256 == r.Map {
			return nil
		}
	}
	return fmt.Errorf("%w: refs do not list their map", ErrInvalid)
}

func validateObjects(list []ObjectRef) error {
	for i, o := range list {
		if o.Size <= 0 || i > 0 && string(list[i-1].SHA256[:]) >= string(o.SHA256[:]) {
			return fmt.Errorf("%w: object %s of %d bytes is out of order or empty", ErrInvalid, o.SHA256, o.Size)
		}
	}
	return nil
}

// The states in which a member is committed.
const (
	StatusComplete = "complete"
	StatusSuspect  = "suspect"
)

// Commit is the small signed record that, written last, makes a member part
// of its backup.
type Commit struct {
	Header
	Repository string    `json:"repository"`
	Backup     BackupID  `json:"backup"`
	Set        SetID     `json:"set"`
	Ordinal    int       `json:"ordinal"`
	Attempt    AttemptID `json:"attempt"`
	// PlanSHA256 is the hash of the stored plan, both lines.
	PlanSHA256 Hash `json:"planSHA256"`
	// Refs names the refs object, and through it all others.
	Refs     Hash  `json:"refs"`
	RefsSize int64 `json:"refsSize"`
	// Status is StatusComplete or StatusSuspect; Reasons say why suspect.
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"`
	// Rows as counted by the engine.
	Rows int64 `json:"rows"`
	// Bytes of all streams before compression.
	Bytes int64 `json:"bytes"`
	// Stored is how many bytes this member added to the store.
	Stored int64 `json:"stored"`
	// Streams and Objects: how many.
	Streams    int64     `json:"streams"`
	Objects    int64     `json:"objects"`
	StartedAt  time.Time `json:"startedAt"`
	CapturedAt time.Time `json:"capturedAt"`
	FinishedAt time.Time `json:"finishedAt"`
}

// RecordKind is KindCommit.
func (c *Commit) RecordKind() Kind { return KindCommit }

// Validate checks that totals are not negative and the status is known.
func (c *Commit) Validate() error {
	if err := validateMember(c.Backup, c.Ordinal, c.Attempt); err != nil {
		return err
	}
	if err := c.Set.Validate(); err != nil {
		return err
	}
	if c.Status != StatusComplete && c.Status != StatusSuspect {
		return fmt.Errorf("%w: commit with status %q", ErrInvalid, c.Status)
	}
	if c.Status == StatusSuspect && len(c.Reasons) == 0 {
		return fmt.Errorf("%w: suspect commit without a reason", ErrInvalid)
	}
	if c.PlanSHA256.IsZero() || c.Refs.IsZero() || c.RefsSize <= 0 {
		return fmt.Errorf("%w: commit without plan or refs", ErrInvalid)
	}
	if min(c.Rows, c.Bytes, c.Stored, c.Streams, c.Objects) < 0 {
		return fmt.Errorf("%w: commit with negative totals", ErrInvalid)
	}
	return nil
}

// Checkpoint lists the parts that an attempt has written so far, so that the
// next attempt, or another pod of the same backup, finds the packs.
type Checkpoint struct {
	Header
	Repository string    `json:"repository"`
	Backup     BackupID  `json:"backup"`
	Set        SetID     `json:"set"`
	Ordinal    int       `json:"ordinal"`
	Attempt    AttemptID `json:"attempt"`
	Sequence   int       `json:"sequence"`
	// Parts that this attempt has written, all of them, by name.
	Parts []ObjectRef `json:"parts"`
	// Memos that it has written, by the ordinals of their members.
	Memos []MemberMemos `json:"memos,omitempty"`
}

// MemberMemos are the memos of one member.
type MemberMemos struct {
	Ordinal int         `json:"ordinal"`
	Objects []ObjectRef `json:"objects"`
}

// RecordKind is KindCheckpoint.
func (c *Checkpoint) RecordKind() Kind { return KindCheckpoint }

// Validate checks the IDs and the parts.
func (c *Checkpoint) Validate() error {
	if err := validateMember(c.Backup, c.Ordinal, c.Attempt); err != nil {
		return err
	}
	if c.Sequence < 0 {
		return fmt.Errorf("%w: checkpoint %d", ErrInvalid, c.Sequence)
	}
	for i, m := range c.Memos {
		if m.Ordinal < 0 || i > 0 && c.Memos[i-1].Ordinal >= m.Ordinal {
			return fmt.Errorf("%w: checkpoint with memos of ordinal %d, the %d. in it", ErrInvalid, m.Ordinal, i+1)
		}
		if err := validateObjects(m.Objects); err != nil {
			return err
		}
	}
	return validateObjects(c.Parts)
}

// Prune condemns backups and objects of one set. Writers do not reuse what a
// prune record names, readers do not offer it.
type Prune struct {
	Header
	Repository string     `json:"repository"`
	Set        SetID      `json:"set"`
	Backups    []BackupID `json:"backups,omitempty"`
	Packs      []Hash     `json:"packs,omitempty"`
	// Parts and memos, which lie side by side.
	Parts []Hash `json:"parts,omitempty"`
	Maps  []Hash `json:"maps,omitempty"`
	Refs  []Hash `json:"refs,omitempty"`
}

// RecordKind is KindPrune.
func (p *Prune) RecordKind() Kind { return KindPrune }

// Validate checks the IDs.
func (p *Prune) Validate() error {
	if err := p.Set.Validate(); err != nil {
		return err
	}
	for _, id := range p.Backups {
		if err := id.Validate(); err != nil {
			return err
		}
	}
	return nil
}
