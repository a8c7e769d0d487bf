package record

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// HashSize is the length of a [Hash] in bytes.
const HashSize = sha256.Size

// Hash is a SHA-256, or the random name that stands in for one where the
// hash would give a secret away. In JSON it is 64 lower-case hex digits, as
// sha256sum prints it.
type Hash [HashSize]byte

// String returns 64 hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero says that the hash was never set.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText writes hex.
func (h Hash) MarshalText() ([]byte, error) {
	return hex.AppendEncode(make([]byte, 0, 2*HashSize), h[:]), nil
}

// UnmarshalText reads 64 lower-case hex digits.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*HashSize {
		return fmt.Errorf("%w: hash of %d characters, want %d", ErrInvalid, len(text), 2*HashSize)
	}
	for _, c := range text {
		if c >= 'A' && c <= 'F' {
			return fmt.Errorf("%w: hash %q is not lower-case hex", ErrInvalid, text)
		}
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("%w: hash %q is not lower-case hex", ErrInvalid, text)
	}
	return nil
}

// ParseHash reads 64 lower-case hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	err := h.UnmarshalText([]byte(s))
	return h, err
}
