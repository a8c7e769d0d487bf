package repository

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"keepset/internal/record"
)

// This file looks after the key files of an encrypted repository: without one
// of them no backup of their epoch can be opened, whoever holds which key.

// remedyKeyFiles says where a lost key file comes from.
const remedyKeyFiles = "put it back from " + NameKeyFiles + " (docs/storage.md, Lost key files)"

// MissingKeyFiles returns the keys of the objects that the configuration
// names and a listing does not show; none in a repository that is not
// encrypted. It needs no secret key.
func (r *Repository) MissingKeyFiles(ctx context.Context) ([]string, error) {
	var missing []string
	for _, epoch := range r.config.Epochs {
		list, err := r.missingKeyFiles(ctx, epoch)
		if err != nil {
			return nil, err
		}
		missing = append(missing, list...)
	}
	return missing, nil
}

func (r *Repository) missingKeyFiles(ctx context.Context, epoch record.Epoch) ([]string, error) {
	missing := make([]string, 0, len(epoch.Recipients))
	for _, recipient := range epoch.Recipients {
		missing = append(missing, keyKeyFile(epoch.Number, recipient))
	}
	for object, err := range r.store.List(ctx, prefixKeys) {
		if err != nil {
			return nil, fmt.Errorf("list key files: %w", err)
		}
		missing = slices.DeleteFunc(missing, func(key string) bool { return key == object.Key && object.Size > 0 })
	}
	return missing, nil
}

// requireKeyFiles keeps a backup from being written that nobody could open.
func (r *Repository) requireKeyFiles(ctx context.Context) error {
	if !r.Encrypted() {
		return nil
	}
	epoch := r.config.Epoch()
	missing, err := r.missingKeyFiles(ctx, epoch)
	switch {
	case err != nil:
		return err
	case len(missing) == len(epoch.Recipients):
		return fmt.Errorf("%w: no key file is left (%s), so nobody could open what is written; %s", ErrDamaged, strings.Join(missing, ", "), remedyKeyFiles)
	case len(missing) > 0:
		r.log.Warn("key files are missing: who holds their keys cannot restore", "keys", missing, "remedy", remedyKeyFiles)
	}
	return nil
}

// ageIntro begins every age file.
const ageIntro = "age-encryption.org/v1\n"

// verifyKeyFiles looks at every key file. A lost one locks out its holder,
// the last one everybody. harmed are the members that were verified.
func (r *Repository) verifyKeyFiles(ctx context.Context, report *VerifyReport, harmed []Harm) error {
	for _, epoch := range r.config.Epochs {
		var bad []Damage
		for _, recipient := range epoch.Recipients {
			key := keyKeyFile(epoch.Number, recipient)
			data, err := getAll(ctx, r.store, key)
			switch {
			case isNotExist(err):
				bad = append(bad, Damage{Key: key, What: "missing"})
			case err != nil:
				return fmt.Errorf("read key file: %w", err)
			case !bytes.HasPrefix(data, []byte(ageIntro)):
				bad = append(bad, Damage{Key: key, What: "is not an age file"})
			default:
				report.Objects++
			}
		}
		left := len(epoch.Recipients) - len(bad)
		for i := range bad {
			if left > 0 {
				bad[i].What += fmt.Sprintf(": who holds its key cannot restore, %d of %d key files are left; %s", left, len(epoch.Recipients), remedyKeyFiles)
			} else {
				bad[i].What += fmt.Sprintf(", and no key file is left of epoch %d: nobody can open its backups; %s", epoch.Number, remedyKeyFiles)
				bad[i].Harmed = harmed
			}
		}
		report.Damages = append(report.Damages, bad...)
	}
	return nil
}
