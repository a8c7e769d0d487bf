package repository

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
)

// The texts of ed25519 keys, which have no common one.
const (
	writerSecretPrefix = "keepset-writer-secret-key:"
	writerPublicPrefix = "keepset-writer:"
	proverSecretPrefix = "keepset-prover-secret-key:"
	proverPublicPrefix = "keepset-prover:"
)

func formatWriterSecret(key ed25519.PrivateKey) string {
	return writerSecretPrefix + base64.StdEncoding.EncodeToString(key.Seed())
}

func formatWriterPublic(key ed25519.PublicKey) string {
	return writerPublicPrefix + base64.StdEncoding.EncodeToString(key)
}

func formatProverSecret(key ed25519.PrivateKey) string {
	return proverSecretPrefix + base64.StdEncoding.EncodeToString(key.Seed())
}

func formatProverPublic(key ed25519.PublicKey) string {
	return proverPublicPrefix + base64.StdEncoding.EncodeToString(key)
}

func parseWriterSecret(text string) (ed25519.PrivateKey, error) {
	return parseSecret(text, writerSecretPrefix)
}

func parseProverSecret(text string) (ed25519.PrivateKey, error) {
	return parseSecret(text, proverSecretPrefix)
}

func parseSecret(text, prefix string) (ed25519.PrivateKey, error) {
	seed, err := decodeKey(text, prefix, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func parseWriterPublic(text string) (ed25519.PublicKey, error) {
	return decodeKey(text, writerPublicPrefix, ed25519.PublicKeySize)
}

func parseProverPublic(text string) (ed25519.PublicKey, error) {
	return decodeKey(text, proverPublicPrefix, ed25519.PublicKeySize)
}

func decodeKey(text, prefix string, size int) ([]byte, error) {
	encoded, found := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !found {
		return nil, fmt.Errorf("key does not begin with %q", prefix)
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(raw) != size {
		return nil, fmt.Errorf("key after %q is not base64 of %d bytes", prefix, size)
	}
	return raw, nil
}
