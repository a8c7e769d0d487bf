package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"keepset/internal/record"
)

// This file opens key files with R. Each epoch has its own: who became a recipient
// late, or is none any more, may open some epochs and not others.

// unlock opens the key files of every epoch that Restore can open. One epoch at
// least must be among them; what the others hold cannot be read, and a reader
// says so when it comes to that.
func (r *Repository) unlock(ctx context.Context) error {
	r.secrets.closed = make(map[int]error)
	opened := 0
	for _, epoch := range r.config.Epochs {
		file, err := r.openEpoch(ctx, epoch, "")
		switch {
		case errors.Is(err, ErrDamaged), errors.Is(err, ErrWrongKey):
			r.secrets.closed[epoch.Number] = err
			continue
		case err != nil:
			return err
		}
		r.secrets.data = append(r.secrets.data, file.data)
		r.secrets.index = append(r.secrets.index, file.index)
		opened++
	}
	why := r.secrets.closed[r.config.Epoch().Number]
	if opened == 0 {
		return why
	}
	if why != nil {
		r.log.Warn("the restore identity opens older backups only", "why", why)
	}
	return nil
}

// epochSecrets are the secrets of one epoch.
type epochSecrets struct{ data, index *age.X25519Identity }

// openEpoch opens a key file of an epoch, but for that of one recipient, whom the
// caller is about to remove. ErrWrongKey when Restore opens none, ErrDamaged when
// none is left, or what is in it does not fit.
func (r *Repository) openEpoch(ctx context.Context, epoch record.Epoch, but string) (epochSecrets, error) {
	missing := 0
	var damage error
	for _, recipient := range epoch.Recipients {
		if recipient == but {
			continue
		}
		file, err := r.openKeyFile(ctx, epoch, recipient)
		switch {
		case isNotExist(err):
			missing++
		case errors.Is(err, ErrWrongKey):
		case errors.Is(err, ErrDamaged):
			damage = err // another one may be whole
		default:
			return file, err
		}
	}
	if damage != nil {
		return epochSecrets{}, damage
	}
	if missing == len(epoch.Recipients) {
		return epochSecrets{}, fmt.Errorf("%w: all key files of epoch %d are missing below %s; copy one back, it cannot be made again", ErrDamaged, epoch.Number, prefixKeys)
	}
	return epochSecrets{}, fmt.Errorf("%w: the restore identity opens none of the key files of epoch %d (recipients %s)", ErrWrongKey, epoch.Number, strings.Join(epoch.Recipients, ", "))
}

// openKeyFile opens one key file; ErrWrongKey when it is for another recipient.
func (r *Repository) openKeyFile(ctx context.Context, epoch record.Epoch, recipient string) (epochSecrets, error) {
	key := keyKeyFile(epoch.Number, recipient)
	data, err := getAll(ctx, r.store, key)
	if err != nil {
		return epochSecrets{}, fmt.Errorf("read key file: %w", err)
	}
	plain, err := age.Decrypt(bytes.NewReader(data), r.keys.Restore...)
	if _, noMatch := errors.AsType[*age.NoIdentityMatchError](err); noMatch {
		return epochSecrets{}, fmt.Errorf("%w: key file %s is for another recipient", ErrWrongKey, key)
	}
	if err != nil {
		return epochSecrets{}, fmt.Errorf("open key file %s: %w: %w", key, ErrDamaged, err)
	}
	text, err := io.ReadAll(io.LimitReader(plain, 1<<16))
	if err != nil {
		return epochSecrets{}, fmt.Errorf("open key file %s: %w: %w", key, ErrDamaged, err)
	}
	secrets, err := decodeKeyFile(text, epoch)
	if err != nil {
		return epochSecrets{}, fmt.Errorf("open key file %s: %w", key, err)
	}
	return secrets, nil
}

// decodeKeyFile reads what is locked in a key file, and compares it with the
// fingerprints of the epoch.
func decodeKeyFile(text []byte, epoch record.Epoch) (epochSecrets, error) {
	var file record.KeyFile
	if _, err := record.Decode(text, &file, nil); err != nil {
		return epochSecrets{}, err
	}
	data, err := age.ParseX25519Identity(file.Data)
	if err != nil {
		return epochSecrets{}, fmt.Errorf("%w: data key: %w", ErrDamaged, err)
	}
	index, err := age.ParseX25519Identity(file.Index)
	if err != nil {
		return epochSecrets{}, fmt.Errorf("%w: index key: %w", ErrDamaged, err)
	}
	if Fingerprint(data.Recipient().String()) != epoch.Data || Fingerprint(index.Recipient().String()) != epoch.Index {
		return epochSecrets{}, fmt.Errorf("%w: its keys are not those of epoch %d", ErrDamaged, epoch.Number)
	}
	return epochSecrets{data, index}, nil
}

// mayOpen says why a backup of an epoch cannot be read with what was unlocked.
func (r *Repository) mayOpen(epoch int) error {
	switch why := r.secrets.closed[epoch]; {
	case !r.Encrypted():
		return nil
	case len(r.secrets.data) == 0:
		return fmt.Errorf("%w: this repository is encrypted; set %s", ErrNoIdentity, NameRestoreIdentity)
	case why != nil:
		return fmt.Errorf("%w: the backup is of epoch %d: %w", ErrNoIdentity, epoch, why)
	}
	return nil
}

// planEpoch is the epoch that plans are of; 0 stands for the first.
func (r *Repository) planEpoch() int {
	if n := r.config.Epoch().Number; n > 1 {
		return n
	}
	return 0
}
