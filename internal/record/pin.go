package record

import (
	"fmt"
	"time"
)

// Pin keeps one backup from every prune. It is an object of its own, since
// nothing that is stored is ever changed.
type Pin struct {
	Header
	Repository string    `json:"repository"`
	Set        SetID     `json:"set"`
	Backup     BackupID  `json:"backup"`
	CreatedAt  time.Time `json:"createdAt"`
	// Reason that the user gave.
	Reason string `json:"reason,omitempty"`
}

// RecordKind is KindPin.
func (p *Pin) RecordKind() Kind { return KindPin }

// Validate checks the IDs.
func (p *Pin) Validate() error {
	if err := p.Set.Validate(); err != nil {
		return err
	}
	if p.CreatedAt.IsZero() {
		return fmt.Errorf("%w: pin without a time", ErrInvalid)
	}
	return p.Backup.Validate()
}
