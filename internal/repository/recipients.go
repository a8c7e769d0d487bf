package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"filippo.io/age"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// ErrRecipient says that there is no recipient of that name, or that it cannot be removed.
var ErrRecipient = errors.New("recipient cannot be changed")

// RecipientChange is what was done to the key files of one recipient, or in a dry
// run would be.
type RecipientChange struct {
	Fingerprint string
	// Epochs that the recipient can open from now on, or cannot any more.
	Epochs []int
	// Before: it was so already.
	Before bool
	// Left are epochs that are left as they are, since the restore identity does
	// not open them.
	Left []int
	// Found are key files that were there already and were not looked into: only
	// their recipient can prove them.
	Found []string
	// Deleted are the keys of the objects that are gone.
	Deleted []string
}

// AddRecipient lets one more age key open the repository: all that is there and all
// that will come. No data is touched: the secrets of each epoch, which the restore
// identity opens, are locked to it too. ErrNoIdentity without that identity.
func (r *Repository) AddRecipient(ctx context.Context, to *age.X25519Recipient, dryRun bool) (RecipientChange, error) {
	change := RecipientChange{Fingerprint: Fingerprint(to.String()), Epochs: []int{}}
	if err := r.needIdentity(); err != nil {
		return change, fmt.Errorf("add a recipient: %w", err)
	}
	config := r.config
	config.Epochs = slices.Clone(config.Epochs)
	for i := range config.Epochs {
		epoch := &config.Epochs[i]
		missing, err := r.missingKeyFiles(ctx, *epoch)
		if err != nil {
			return change, err
		}
		if slices.Contains(epoch.Recipients, change.Fingerprint) && !slices.Contains(missing, keyKeyFile(epoch.Number, change.Fingerprint)) {
			continue
		}
		secrets, err := r.openEpoch(ctx, *epoch, "")
		if errors.Is(err, ErrWrongKey) && epoch.Number != r.config.Epoch().Number {
			change.Left = append(change.Left, epoch.Number)
			continue
		}
		if err != nil {
			return change, fmt.Errorf("add recipient %s to epoch %d: %w", change.Fingerprint, epoch.Number, err)
		}
		change.Epochs = append(change.Epochs, epoch.Number)
		if !dryRun {
			if err := r.lockEpoch(ctx, epoch.Number, secrets, to, &change); err != nil {
				return change, fmt.Errorf("add recipient %s to epoch %d: %w", change.Fingerprint, epoch.Number, err)
			}
		}
		if !slices.Contains(epoch.Recipients, change.Fingerprint) {
			epoch.Recipients = append(slices.Clone(epoch.Recipients), change.Fingerprint)
			slices.Sort(epoch.Recipients)
		}
	}
	change.Before = len(change.Epochs) == 0
	if change.Before || dryRun {
		return change, nil
	}
	_, err := r.storeConfig(ctx, config)
	return change, err
}

// lockEpoch stores a key file. One that is there is from an attempt that was
// killed: the same keys, sealed anew, have other bytes.
func (r *Repository) lockEpoch(ctx context.Context, number int, secrets epochSecrets, to *age.X25519Recipient, change *RecipientChange) error {
	data, err := lockKeys(number, secrets, to)
	if err != nil {
		return err
	}
	key := keyKeyFile(number, change.Fingerprint)
	err = put(ctx, r.store, key, data)
	if errors.Is(err, storage.ErrExists) {
		change.Found = append(change.Found, key)
		return nil
	}
	if err != nil {
		return fmt.Errorf("store key file: %w", err)
	}
	stored, err := getAll(ctx, r.store, key)
	if err != nil || !bytes.Equal(stored, data) {
		return errors.Join(fmt.Errorf("%w: %s is not what was stored", ErrDamaged, key), err)
	}
	return nil
}

// needIdentity says what keeps the secrets from being locked to others.
func (r *Repository) needIdentity() error {
	switch {
	case !r.Encrypted():
		return fmt.Errorf("%w: this repository is not encrypted, and has none", ErrRecipient)
	case len(r.keys.Restore) == 0:
		return fmt.Errorf("%w: only who can restore decides who else can; set %s", ErrNoIdentity, NameRestoreIdentity)
	}
	return r.mayChangeKeys()
}

// RemoveRecipient takes a recipient, by its fingerprint, off every epoch, and
// deletes its key files. The restore identity has to be another one that opens all
// that the recipient does, so that nothing is locked for good. What the recipient
// has read before cannot be taken back: see [Repository.NewEpoch]. It can be killed
// and run again.
func (r *Repository) RemoveRecipient(ctx context.Context, fingerprint string, dryRun bool) (RecipientChange, error) {
	change := RecipientChange{Fingerprint: fingerprint, Epochs: []int{}, Deleted: []string{}}
	if err := r.needIdentity(); err != nil {
		return change, fmt.Errorf("remove a recipient: %w", err)
	}
	config := r.config
	config.Epochs = slices.Clone(config.Epochs)
	for i := range config.Epochs {
		epoch := &config.Epochs[i]
		if !slices.Contains(epoch.Recipients, fingerprint) {
			continue
		}
		if _, err := r.openEpoch(ctx, *epoch, fingerprint); err != nil {
			return change, fmt.Errorf("%w: without %s epoch %d would have to be opened by the restore identity that is given, and is not: %w", ErrRecipient, fingerprint, epoch.Number, err)
		}
		epoch.Recipients = slices.DeleteFunc(slices.Clone(epoch.Recipients), func(f string) bool { return f == fingerprint })
		change.Epochs = append(change.Epochs, epoch.Number)
	}
	files, err := r.keyFilesOf(ctx, fingerprint)
	if err != nil {
		return change, err
	}
	if len(change.Epochs) == 0 && len(files) == 0 {
		return change, fmt.Errorf("%w: %s is none of this repository's; 'backup keys list' shows them", ErrRecipient, fingerprint)
	}
	change.Before = len(change.Epochs) == 0
	if dryRun {
		change.Deleted = files
		return change, nil
	}
	if !change.Before {
		if _, err := r.storeConfig(ctx, config); err != nil {
			return change, err
		}
	}
	for _, key := range files {
		if err := r.store.Delete(ctx, key); err != nil {
			return change, fmt.Errorf("recipient %s is no longer one, and its key file could not be deleted, so that its holder can open what is there: run this again with the right to delete below %s: %w", fingerprint, prefixKeys, err)
		}
		change.Deleted = append(change.Deleted, key)
	}
	return change, nil
}

// keyFilesOf lists the key files of one recipient, whatever the configuration says.
func (r *Repository) keyFilesOf(ctx context.Context, fingerprint string) ([]string, error) {
	list := []string{}
	for object, err := range r.store.List(ctx, prefixKeys) {
		if err != nil {
			return nil, fmt.Errorf("list key files: %w", err)
		}
		if _, recipient, ok := parseKeyFileKey(object.Key); ok && recipient == fingerprint {
			list = append(list, object.Key)
		}
	}
	return list, nil
}

// highestKeyFile is the highest epoch of which there is a key file, perhaps of an
// attempt at a new epoch that was killed.
func (r *Repository) highestKeyFile(ctx context.Context) (int, error) {
	highest := 0
	for object, err := range r.store.List(ctx, prefixKeys) {
		if err != nil {
			return 0, fmt.Errorf("list key files: %w", err)
		}
		if epoch, _, ok := parseKeyFileKey(object.Key); ok {
			highest = max(highest, epoch)
		}
	}
	return highest, nil
}

// lockKeys seals the secrets of an epoch for one recipient.
func lockKeys(number int, secrets epochSecrets, to age.Recipient) ([]byte, error) {
	file := record.KeyFile{Header: record.NewHeader(record.KindKey), Epoch: number, Data: secrets.data.String(), Index: secrets.index.String()}
	plain, err := record.Encode(&file, nil)
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return nil, fmt.Errorf("lock keys to %s: %w", to, err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("lock keys to %s: %w", to, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("lock keys to %s: %w", to, err)
	}
	return sealed.Bytes(), nil
}
