package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// signed is line 2 of a signed record.
type signed struct {
	Signature signature `json:"signature"`
}

type signature struct {
	// Key is the signer's [KeyID]; it only says which key to try.
	Key     string `json:"key"`
	Ed25519 []byte `json:"ed25519"`
}

// KeyID is a short name for a public key: the first 16 hex digits of its SHA-256.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// message is what is signed: line 1 with its new line, behind a prefix that
// no other program signs and that names the kind.
func message(k Kind, line []byte) []byte {
	m := append([]byte("keepset record v1 "), k...)
	m = append(m, '\n')
	return append(m, line...)
}

func sign(k Kind, line []byte, key ed25519.PrivateKey) signed {
	public, _ := key.Public().(ed25519.PublicKey)
	return signed{signature{Key: KeyID(public), Ed25519: ed25519.Sign(key, message(k, line))}}
}

// verify checks that rest is the signature of line by one of the trusted keys.
func verify(k Kind, line, rest []byte, trusted []ed25519.PublicKey) (string, error) {
	if len(rest) == 0 {
		return "", fmt.Errorf("%w, and trusted keys are configured", ErrUnsigned)
	}
	second, extra, found := bytes.Cut(rest, []byte("\n"))
	var s signed
	if err := json.Unmarshal(second, &s); err != nil || !found || len(extra) > 0 {
		return "", fmt.Errorf("%w: line 2 is not a signature", ErrSignature)
	}
	known := false
	for _, key := range trusted {
		if len(key) != ed25519.PublicKeySize || KeyID(key) != s.Signature.Key {
			continue
		}
		known = true
		if ed25519.Verify(key, message(k, line), s.Signature.Ed25519) {
			return s.Signature.Key, nil
		}
	}
	if known {
		return "", fmt.Errorf("%w: changed after it was signed, or forged", ErrSignature)
	}
	return "", fmt.Errorf("%w: key %.16q", ErrUntrusted, s.Signature.Key)
}
