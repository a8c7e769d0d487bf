package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Sentinels that callers decide on; they arrive wrapped.
var (
	// ErrInvalid: the bytes are not a record of the kind that was asked for.
	ErrInvalid = errors.New("invalid record")
	// ErrNewerFormat: written by a newer version, or in need of a feature that
	// this one does not have.
	ErrNewerFormat = errors.New("record needs a newer version of keepset")
	// ErrUnsigned: trusted keys are configured and the record has no signature.
	ErrUnsigned = errors.New("record is not signed")
	// ErrSignature: the signature does not fit the bytes.
	ErrSignature = errors.New("signature does not match")
	// ErrUntrusted: signed, but by a key that is not among the trusted ones.
	ErrUntrusted = errors.New("signed by a key that is not trusted")
)

// Format is the version that this program writes, and the newest that it reads.
const Format = 1

// knownFeatures are the critical features that this program knows. A record that
// lists one it does not know is refused.
func knownFeatures() []string { return []string{FeatureRetired} }

// Kind names a type of record. It is part of what a signature covers, so
// that a signed record can never pass for one of another kind.
type Kind string

// The kinds of record.
const (
	KindConfig     Kind = "config"
	KindKey        Kind = "key"
	KindOrigin     Kind = "origin"
	KindPlan       Kind = "plan"
	KindCheckpoint Kind = "checkpoint"
	KindMap        Kind = "map"
	KindPiece      Kind = "piece"
	KindRefs       Kind = "refs"
	KindCommit     Kind = "commit"
	KindPrune      Kind = "prune"
	KindPin        Kind = "pin"
	KindAccept     Kind = "accept"
	KindProof      Kind = "proof"
)

// Header begins every record.
type Header struct {
	// Format is the version of the record's format.
	Format int `json:"format"`
	// Kind says what the record is, for the reader at a terminal and as a
	// guard against taking one kind for another.
	Kind Kind `json:"kind"`
	// Critical features: who does not know one must not use the record.
	Critical []string `json:"critical,omitempty"`
}

// NewHeader is the header of a record written by this program.
func NewHeader(k Kind) Header { return Header{Format: Format, Kind: k} }

// requirements are the part of the header that no version may change.
type requirements struct {
	Format   int      `json:"format"`
	Critical []string `json:"critical"`
}

func (q requirements) check(k Kind) error {
	if q.Format > Format {
		return fmt.Errorf("%w: %s of format %d, this program reads up to %d", ErrNewerFormat, k, q.Format, Format)
	}
	for _, feature := range q.Critical {
		if !slices.Contains(knownFeatures(), feature) {
			return fmt.Errorf("%w: %s needs the feature %q", ErrNewerFormat, k, feature)
		}
	}
	return nil
}

func (h Header) check(want Kind) error {
	if err := (requirements{h.Format, h.Critical}).check(want); err != nil {
		return err
	}
	if h.Format != Format {
		return fmt.Errorf("%w: %s of format %d", ErrInvalid, want, h.Format)
	}
	if h.Kind != want {
		return fmt.Errorf("%w: kind %q where %q was expected", ErrInvalid, h.Kind, want)
	}
	return nil
}

// Record is what all records have in common.
type Record interface {
	// RecordKind is the kind that the header must name.
	RecordKind() Kind
	// Validate returns ErrInvalid, wrapped, when a field is out of its range
	// or two fields contradict each other.
	Validate() error
	header() Header
}

func (h Header) header() Header { return h }

// Encode returns line 1, the record as one line of JSON, and with a key also
// line 2, its signature. A record that is not valid is not encoded.
func Encode(r Record, key ed25519.PrivateKey) ([]byte, error) {
	if err := check(r); err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.RecordKind(), err)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.RecordKind(), err)
	}
	if key == nil {
		return b.Bytes(), nil
	}
	if err := e.Encode(sign(r.RecordKind(), b.Bytes(), key)); err != nil {
		return nil, fmt.Errorf("sign %s: %w", r.RecordKind(), err)
	}
	return b.Bytes(), nil
}

// Decode reads data into r, a pointer to a record. With trusted keys the
// signature must be there, be right, and come from one of them; without, it
// is not looked at. It returns the signer's key ID, empty when no signature
// was checked.
func Decode(data []byte, r Record, trusted []ed25519.PublicKey) (signer string, err error) {
	kind := r.RecordKind()
	line, rest, found := bytes.Cut(data, []byte("\n"))
	if !found {
		return "", fmt.Errorf("%w: %s does not end in a new line, so its end is missing", ErrInvalid, kind)
	}
	if len(trusted) > 0 {
		if signer, err = verify(kind, data[:len(line)+1], rest, trusted); err != nil {
			return "", fmt.Errorf("check %s: %w", kind, err)
		}
	}
	// What it requires comes first: a newer format may have changed the type
	// of a field, and "newer" is the message that helps.
	var q requirements
	if err := json.Unmarshal(line, &q); err != nil {
		return "", fmt.Errorf("%w: %s is not JSON: %w", ErrInvalid, kind, err)
	}
	if err := q.check(kind); err != nil {
		return "", err
	}
	if err := json.Unmarshal(line, r); err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrInvalid, kind, err)
	}
	if err := check(r); err != nil {
		return "", err
	}
	return signer, nil
}

func check(r Record) error {
	if err := r.header().check(r.RecordKind()); err != nil {
		return err
	}
	return r.Validate()
}
