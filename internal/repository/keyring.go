package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// The keys of a repository change without a byte of data being touched: key files
// are added, and a new configuration takes the place of the one before, which
// stays. This file shows the keys; recipients.go and renew.go change them.

// Keyring is what a repository says of its keys, and which of them are held here.
type Keyring struct {
	Repository string
	// Configuration is the number of the one that counts.
	Configuration int
	// Epochs, the oldest first; none where nothing is encrypted.
	Epochs []KeyringEpoch
	// Writers, those that are retired last.
	Writers []KeyringWriter
}

// KeyringEpoch is one epoch of data keys.
type KeyringEpoch struct {
	Number     int
	Recipients []KeyringRecipient
}

// KeyringRecipient is who may restore what an epoch has.
type KeyringRecipient struct {
	Fingerprint string
	// Stored: its key file is there.
	Stored bool
	// Opened: with the restore identity that is held here its key file was opened,
	// and has the epoch's keys.
	Opened bool
	// Why its key file is of no use, though it is there.
	Why string
}

// KeyringWriter is who signs, or signed.
type KeyringWriter struct {
	Key string
	// Until is when what it signs ceased, or ceases, to count; zero for never.
	Until time.Time
	// Active: it may begin new backups.
	Active bool
	// Trusted: its public key is among the trusted ones here.
	Trusted bool
	// Held: its secret key is here.
	Held bool
}

// Keyring looks at the keys, and opens each key file that can be opened: what is
// shown as opened is proven to restore.
func (r *Repository) Keyring(ctx context.Context) (Keyring, error) {
	k := Keyring{Repository: r.config.Repository, Configuration: r.number, Epochs: []KeyringEpoch{}, Writers: r.keyringWriters()}
	missing, err := r.MissingKeyFiles(ctx)
	if err != nil {
		return k, err
	}
	for _, epoch := range r.config.Epochs {
		e := KeyringEpoch{Number: epoch.Number}
		for _, fingerprint := range epoch.Recipients {
			one := KeyringRecipient{Fingerprint: fingerprint, Stored: !slices.Contains(missing, keyKeyFile(epoch.Number, fingerprint))}
			if one.Stored && len(r.keys.Restore) > 0 {
				_, err := r.openKeyFile(ctx, epoch, fingerprint)
				switch {
				case err == nil:
					one.Opened = true
				case errors.Is(err, ErrDamaged), unreadable(err):
					one.Why = err.Error()
				case !errors.Is(err, ErrWrongKey):
					return k, err
				}
			}
			e.Recipients = append(e.Recipients, one)
		}
		k.Epochs = append(k.Epochs, e)
	}
	return k, nil
}

func (r *Repository) keyringWriters() []KeyringWriter {
	held := ""
	if public := writerPublic(r.keys.Writer); public != nil {
		held = record.KeyID(public)
	}
	trusted := make(map[string]bool)
	for _, key := range r.trusted() {
		trusted[record.KeyID(key)] = true
	}
	list := []KeyringWriter{}
	add := func(id string) {
		until, _ := r.retiredAt(id)
		list = append(list, KeyringWriter{
			Key: id, Until: until, Active: mayWrite(&r.config, id, r.options.Clock()) == nil, Trusted: trusted[id], Held: id == held,
		})
	}
	for _, id := range r.config.Writers {
		add(id)
	}
	for _, w := range r.config.Retired {
		if !slices.Contains(r.config.Writers, w.Key) {
			add(w.Key)
		}
	}
	return list
}

// ErrChanged says that somebody else has changed the keys at the same moment.
var ErrChanged = errors.New("keys of the repository have just been changed by somebody else")

// storeConfig stores the next configuration and returns when the store had it.
func (r *Repository) storeConfig(ctx context.Context, config record.Config) (time.Time, error) {
	config.Header = record.NewHeader(record.KindConfig)
	if len(config.Retired) > 0 {
		config.Critical = []string{record.FeatureRetired}
	}
	data, err := record.Encode(&config, r.keys.Writer)
	if err != nil {
		return time.Time{}, err
	}
	key := keyConfig(r.number + 1)
	if err := put(ctx, r.store, key, data); err != nil {
		if errors.Is(err, storage.ErrExists) {
			return time.Time{}, fmt.Errorf("%w: %s is there; look at the keys, and try again", ErrChanged, key)
		}
		return time.Time{}, fmt.Errorf("store configuration: %w", err)
	}
	// Without conditional writes another one may have overwritten it.
	if stored, err := getAll(ctx, r.store, key); err != nil || string(stored) != string(data) {
		return time.Time{}, errors.Join(fmt.Errorf("%w: %s is not what was stored; look at the keys, and try again", ErrChanged, key), err)
	}
	object, err := r.store.Stat(ctx, key)
	if err != nil {
		return time.Time{}, fmt.Errorf("look at the stored configuration: %w", err)
	}
	r.config, r.number = config, r.number+1
	return object.LastModified, nil
}

// mayChangeKeys says what keeps the keys from being changed.
func (r *Repository) mayChangeKeys() error {
	if r.options.AcceptCopiedTimes {
		return ErrReadOnly
	}
	return nil
}

// keyFileName is what a key file is called in NameKeyFiles: those of the first
// epoch by their recipient alone.
func keyFileName(epoch int, recipient string) string {
	if epoch == 1 {
		return recipient
	}
	return strconv.Itoa(epoch) + "." + recipient
}

// keyFilesText is the value of NameKeyFiles with what is stored now: the copy from
// which lost key files are put back.
func (r *Repository) keyFilesText(ctx context.Context) (string, error) {
	var lines strings.Builder
	for _, epoch := range r.config.Epochs {
		for _, recipient := range epoch.Recipients {
			data, err := getAll(ctx, r.store, keyKeyFile(epoch.Number, recipient))
			if isNotExist(err) {
				r.log.Warn("a key file is missing, and will not be in the new Secret: keep the old one", "key", keyKeyFile(epoch.Number, recipient), "remedy", remedyKeyFiles)
				continue
			}
			if err != nil {
				return "", fmt.Errorf("read key file: %w", err)
			}
			lines.WriteString(keyFileLine(keyFileName(epoch.Number, recipient), data))
		}
	}
	return lines.String(), nil
}
