package repository

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

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
	// Until says of trusted keys, by their key IDs, that they are of writers that
	// are retired: only what was stored by then counts.
	Until map[string]time.Time
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
	// by the fingerprint of their recipient; those of later epochs, by
	// keyFileName, are kept for whoever has to put one back.
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

// secrets are the identities that are held: I's, and what R has unlocked.
type secrets struct {
	data  []age.Identity
	index []age.Identity
	// closed says of the epochs that R does not open why.
	closed map[int]error
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
	if err := r.checkWriter(); err != nil {
		return err
	}
	if len(k.Trusted) > 0 && len(c.Writers) > 0 && !slices.ContainsFunc(k.Trusted, func(key ed25519.PublicKey) bool {
		return slices.Contains(c.Writers, record.KeyID(key))
	}) {
		return fmt.Errorf("%w: none of the trusted writer keys is one of the repository's writers %v: what those wrote would count for nothing; set %s to what the newest writer's Secret has", ErrWrongKey, c.Writers, NameTrustedWriters)
	}
	if !c.Encrypted() {
		if k.Data != nil || len(k.Index) > 0 || len(k.Restore) > 0 {
			return fmt.Errorf("%w: encryption keys are configured, but this repository is not encrypted", ErrWrongKey)
		}
		return nil
	}
	if k.Data != nil && Fingerprint(k.Data.String()) != c.Epoch().Data {
		return fmt.Errorf("%w: the data recipient is not that of the current epoch %d; use the newest writer's Secret, which 'backup keygen' or 'backup keys new-epoch' has printed", ErrWrongKey, c.Epoch().Number)
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

// checkWriter says at once what would show only when somebody wants to restore:
// that nobody trusts what this writer signs.
func (r *Repository) checkWriter() error {
	public := writerPublic(r.keys.Writer)
	if public == nil {
		return nil
	}
	id := record.KeyID(public)
	if err := mayWrite(&r.config, id, r.options.Clock()); err != nil {
		return err
	}
	if len(r.keys.Trusted) > 0 && !slices.ContainsFunc(r.keys.Trusted, func(key ed25519.PublicKey) bool { return key.Equal(public) }) {
		return fmt.Errorf("%w: writer key %s is not among the trusted ones, so that who trusts those would restore nothing of what it writes; %s and %s have to come from one Secret", ErrWrongKey, id, NameWriterKey, NameTrustedWriters)
	}
	if until, retired := r.retiredAt(id); retired {
		r.log.Warn("the writer's key is about to end: put the new Secret in place", "key", id, "until", until)
	}
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
