package record

import (
	"fmt"
	"time"
)

// Proof is what a drill found out about one member of one backup: whether it can
// be restored. It names the very records that were drilled, so that it never
// speaks for others. It is plain, and so it says nothing of the content: not the
// name of a table that differs, nor the text of a query.
type Proof struct {
	Header
	Repository string   `json:"repository"`
	Set        SetID    `json:"set"`
	Backup     BackupID `json:"backup"`
	// PlanSHA256 and Commit are the hashes of the stored plan and of the stored
	// commit of the member, both lines.
	PlanSHA256 Hash `json:"planSHA256"`
	Commit     Hash `json:"commit"`
	Ordinal    int  `json:"ordinal"`
	// Passed: every check was made that could be, and none failed.
	Passed bool         `json:"passed"`
	Checks []ProofCheck `json:"checks"`
	// Rows, Bytes and Objects that were restored.
	Rows    int64 `json:"rows"`
	Bytes   int64 `json:"bytes"`
	Objects int   `json:"objects"`
	// RestoreSeconds is how long it took until the data was there, Seconds the whole drill.
	RestoreSeconds float64 `json:"restoreSeconds"`
	Seconds        float64 `json:"seconds"`
	// Server that it was restored into, for example "mariadb 10.11.19".
	Server    string    `json:"server,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	Tool      string    `json:"tool,omitempty"`
}

// ProofCheck is one check of a drill and how it ended.
type ProofCheck struct {
	Check string `json:"check"`
	// State is ProofOK, ProofFailed or ProofSkipped.
	State string `json:"state"`
}

// The outcomes of a check.
const (
	ProofOK     = "ok"
	ProofFailed = "failed"
	// ProofSkipped: there was nothing to compare with, or it was not asked for.
	ProofSkipped = "skipped"
)

// RecordKind is KindProof.
func (p *Proof) RecordKind() Kind { return KindProof }

// Validate checks the IDs, and that the outcome is that of the checks.
func (p *Proof) Validate() error {
	if err := p.Set.Validate(); err != nil {
		return err
	}
	if err := p.Backup.Validate(); err != nil {
		return err
	}
	switch {
	case p.CreatedAt.IsZero():
		return fmt.Errorf("%w: proof without a time", ErrInvalid)
	case p.PlanSHA256.IsZero() || p.Commit.IsZero() || p.Ordinal < 0:
		return fmt.Errorf("%w: proof without plan, commit or ordinal", ErrInvalid)
	case p.Rows < 0 || p.Bytes < 0 || p.Objects < 0 || p.Seconds < 0 || p.RestoreSeconds < 0:
		return fmt.Errorf("%w: proof with negative totals", ErrInvalid)
	}
	passed := len(p.Checks) > 0
	for _, c := range p.Checks {
		switch c.State {
		case ProofOK, ProofSkipped:
		case ProofFailed:
			passed = false
		default:
			return fmt.Errorf("%w: check %q of a proof is %q", ErrInvalid, c.Check, c.State)
		}
	}
	if p.Passed != passed {
		return fmt.Errorf("%w: proof that says %v, and its checks say %v", ErrInvalid, p.Passed, passed)
	}
	return nil
}
