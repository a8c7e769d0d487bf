package repository

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"keepset/internal/record"
)

// Keys are what the holder of this process may do. Any field may be empty;
// what is possible follows from what is there: Writer, Data and Index write
// and deduplicate, Restore and Trusted read.
type Keys struct {
	// Writer is W: it signs plans and commits.
	Writer ed25519.PrivateKey
	// Trusted are the public keys whose signatures count. They come from the
	// pod's configuration, never from the store.
	Trusted []ed25519.PublicKey
	// Data is the public half of the current epoch's D.
	Data *age.X25519Recipient
	// Index are the secrets of I, any epochs.
	Index []*age.X25519Identity
	// Restore is R: it opens keys/, and through them everything.
	Restore []age.Identity
	// Prover is A: it signs what a drill found. Provers are the public keys whose
	// proofs count, which come from the configuration like Trusted.
	Prover  ed25519.PrivateKey
	Provers []ed25519.PublicKey
	// KeyFiles are D's and I's secrets, encrypted to R, for Init to store,
	// by the fingerprint of their recipient.
	KeyFiles map[string][]byte
}

func (k Keys) trusted() []ed25519.PublicKey {
	list := slices.Clone(k.Trusted)
	if public := writerPublic(k.Writer); public != nil {
		list = append(list, public)
	}
	return list
}

// provers are the keys whose proofs count; who signs proofs trusts itself.
func (k Keys) provers() []ed25519.PublicKey {
	list := slices.Clone(k.Provers)
	if public := writerPublic(k.Prover); public != nil {
		list = append(list, public)
	}
	return list
}

// writerPublic is the public half of W, nil without W.
func writerPublic(key ed25519.PrivateKey) ed25519.PublicKey {
	if len(key) != ed25519.PrivateKeySize {
		return nil
	}
	public, _ := key.Public().(ed25519.PublicKey)
	return public
}

// secrets are what R has unlocked, by epoch.
type secrets struct {
	data  []age.Identity
	index []age.Identity
}

// Fingerprint is the short name of a recipient or public key: the first 16
// hex digits of the SHA-256 of its text.
func Fingerprint(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// checkKeys compares the given keys with the configuration, and unlocks what
// Restore unlocks.
func (r *Repository) checkKeys(ctx context.Context) error {
	k, c := r.keys, r.config
	if k.Writer != nil && len(c.Writers) > 0 {
		if id := record.KeyID(writerPublic(k.Writer)); !slices.Contains(c.Writers, id) {
			return fmt.Errorf("%w: writer key %s is not one of the repository's writers %v", ErrWrongKey, id, c.Writers)
		}
	}
	if len(k.Trusted) > 0 && len(c.Writers) > 0 && !slices.ContainsFunc(k.Trusted, func(key ed25519.PublicKey) bool {
		return slices.Contains(c.Writers, record.KeyID(key))
	}) {
		return fmt.Errorf("%w: none of the trusted writer keys is one of the repository's writers %v", ErrWrongKey, c.Writers)
	}
	if !c.Encrypted() {
		if k.Data != nil || len(k.Index) > 0 || len(k.Restore) > 0 {
			return fmt.Errorf("%w: encryption keys are configured, but this repository is not encrypted", ErrWrongKey)
		}
		return nil
	}
	if k.Data != nil && Fingerprint(k.Data.String()) != c.Epoch().Data {
		return fmt.Errorf("%w: the data recipient is not that of the current epoch %d", ErrWrongKey, c.Epoch().Number)
	}
	for _, identity := range k.Index {
		known := slices.ContainsFunc(c.Epochs, func(e record.Epoch) bool {
			return e.Index == Fingerprint(identity.Recipient().String())
		})
		if !known {
			return fmt.Errorf("%w: the index identity belongs to none of its epochs", ErrWrongKey)
		}
		r.secrets.index = append(r.secrets.index, identity)
	}
	if len(k.Restore) == 0 {
		return nil
	}
	return r.unlock(ctx)
}

// unlock opens every key file that Restore can open. The newest epoch must
// be among them.
func (r *Repository) unlock(ctx context.Context) error {
	for _, epoch := range r.config.Epochs {
		opened, err := r.unlockEpoch(ctx, epoch)
		if err != nil {
			return err
		}
		if !opened && epoch.Number == r.config.Epoch().Number {
			return fmt.Errorf("%w: the restore identity opens none of the key files of epoch %d (recipients %s)", ErrWrongKey, epoch.Number, strings.Join(epoch.Recipients, ", "))
		}
	}
	return nil
}

func (r *Repository) unlockEpoch(ctx context.Context, epoch record.Epoch) (bool, error) {
	missing := 0
	for _, recipient := range epoch.Recipients {
		key := keyKeyFile(epoch.Number, recipient)
		data, err := getAll(ctx, r.store, key)
		if isNotExist(err) {
			missing++
			continue
		}
		if err != nil {
			return false, fmt.Errorf("read key file: %w", err)
		}
		plain, err := age.Decrypt(bytes.NewReader(data), r.keys.Restore...)
		if _, noMatch := errors.AsType[*age.NoIdentityMatchError](err); noMatch {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("open key file %s: %w: %w", key, ErrDamaged, err)
		}
		text, err := io.ReadAll(io.LimitReader(plain, 1<<16))
		if err != nil {
			return false, fmt.Errorf("open key file %s: %w: %w", key, ErrDamaged, err)
		}
		if err := r.addSecrets(text, epoch); err != nil {
			return false, fmt.Errorf("open key file %s: %w", key, err)
		}
		return true, nil
	}
	if missing == len(epoch.Recipients) {
		return false, fmt.Errorf("%w: all key files of epoch %d are missing below %s; copy one back, it cannot be made again", ErrDamaged, epoch.Number, prefixKeys)
	}
	return false, nil
}

func (r *Repository) addSecrets(text []byte, epoch record.Epoch) error {
	var file record.KeyFile
	if _, err := record.Decode(text, &file, nil); err != nil {
		return err
	}
	data, err := age.ParseX25519Identity(file.Data)
	if err != nil {
		return fmt.Errorf("%w: data key: %w", ErrDamaged, err)
	}
	index, err := age.ParseX25519Identity(file.Index)
	if err != nil {
		return fmt.Errorf("%w: index key: %w", ErrDamaged, err)
	}
	if Fingerprint(data.Recipient().String()) != epoch.Data || Fingerprint(index.Recipient().String()) != epoch.Index {
		return fmt.Errorf("%w: its keys are not those of epoch %d", ErrDamaged, epoch.Number)
	}
	r.secrets.data = append(r.secrets.data, data)
	r.secrets.index = append(r.secrets.index, index)
	return nil
}

// indexRecipient is I's public half of the current epoch, nil when it is not known.
func (r *Repository) indexRecipient() *age.X25519Recipient {
	for _, identity := range r.keys.Index {
		if recipient := identity.Recipient(); Fingerprint(recipient.String()) == r.config.Epoch().Index {
			return recipient
		}
	}
	return nil
}

// canWrite says which key is missing for writing, or why nothing may be written.
func (r *Repository) canWrite() error {
	switch {
	case r.options.AcceptCopiedTimes:
		return fmt.Errorf("%w: times of the store are not looked at, and a writer has to", ErrReadOnly)
	case r.keys.Writer == nil && (r.config.Encrypted() || len(r.config.Writers) > 0):
		return fmt.Errorf("%w: this repository is signed; set %s", ErrNoKey, NameWriterKey)
	case !r.config.Encrypted():
		return nil
	case r.keys.Data == nil:
		return fmt.Errorf("%w: this repository is encrypted; set %s", ErrNoKey, NameDataRecipient)
	case r.indexRecipient() == nil:
		return fmt.Errorf("%w: this repository is encrypted; set %s to the current epoch's", ErrNoKey, NameIndexIdentity)
	}
	return nil
}

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
