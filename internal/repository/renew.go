package repository

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"keepset/internal/record"
)

// RenewOptions say how keys are replaced.
type RenewOptions struct {
	// Until is when what the writers of before sign ceases to count: zero for now,
	// a time in the past when it is known since when a key may be stolen, or one to
	// come, up to which they may even begin backups.
	Until time.Time
	// Publish is given the new keys before anything that makes them count is
	// stored: a key that nobody has kept would lock everybody out.
	Publish func(KeySet, Renewal) error
	// DryRun stores nothing and makes no keys.
	DryRun bool
}

// Renewal is what was done, or in a dry run would be.
type Renewal struct {
	// Writer is the key ID of the new writer; empty in a dry run.
	Writer string
	// Retired are the writers of before. In a dry run, and without
	// RenewOptions.Until, their time is not known.
	Retired []record.RetiredWriter
	// Epoch of the data keys, New if it begins here.
	Epoch int
	New   bool
	// Recipients of the epoch, and those of the one before that are none of it.
	Recipients, Dropped []string
	// Late: the store had the new configuration only after Until, at this time. What
	// the old writers have committed in between was reported good and does not count.
	Late time.Time
}

// graceOfRuns is how long the old writers' signatures count after now: a run must
// see the new configuration before its commit does not count, or it would report
// success. Between the look at the clock and that configuration lies one write.
const graceOfRuns = time.Minute

// RotateWriter makes a new writer key and retires the ones of before. Data and
// index keys stay, so that the next backup goes on from the last one. It takes the
// public keys of the writers of before (ErrNoTrusted), whose backups nobody could
// check otherwise, and in an encrypted repository the restore identity, or the keys
// of the writer's Secret, for the new Secret to be whole.
func (r *Repository) RotateWriter(ctx context.Context, o RenewOptions) (Renewal, error) {
	result, err := r.rotateWriter(ctx, o)
	if err != nil {
		return result, fmt.Errorf("rotate the writer: %w", err)
	}
	return result, nil
}

func (r *Repository) rotateWriter(ctx context.Context, o RenewOptions) (Renewal, error) {
	result := Renewal{Epoch: r.config.Epoch().Number, Recipients: r.config.Epoch().Recipients, Dropped: []string{}}
	if err := r.mayRetire(); err != nil {
		return result, err
	}
	var secrets epochSecrets
	if r.Encrypted() {
		var err error
		if secrets, err = r.currentSecrets(ctx); err != nil {
			return result, err
		}
	}
	if o.DryRun {
		config, _ := r.retire(o.Until, time.Time{})
		result.Retired = config.Retired
		return result, nil
	}
	now, err := r.storeConfig(ctx, r.config) // its content is as before: it says what time it is
	if err != nil {
		return result, err
	}
	config, until := r.retire(o.Until, now)
	return result, r.renew(ctx, o, config, until, secrets, &result)
}

// NewEpoch makes new keys of everything that a backup pod holds: the data key, the
// index key and the writer's. What is stored stays readable for its recipients, and
// nothing of it is taken over by new backups, since who has stolen the old keys may
// have put something there. The recipients are given whole, by their public keys,
// which the store does not have.
func (r *Repository) NewEpoch(ctx context.Context, recipients []*age.X25519Recipient, o RenewOptions) (Renewal, error) {
	result, err := r.newEpoch(ctx, recipients, o)
	if err != nil {
		return result, fmt.Errorf("begin a new epoch: %w", err)
	}
	return result, nil
}

func (r *Repository) newEpoch(ctx context.Context, recipients []*age.X25519Recipient, o RenewOptions) (Renewal, error) {
	result := Renewal{New: true, Recipients: []string{}, Dropped: []string{}}
	switch {
	case !r.Encrypted():
		return result, fmt.Errorf("%w: this repository is not encrypted; rotate its writer", ErrRecipient)
	case len(recipients) == 0:
		return result, fmt.Errorf("%w: nobody could restore without a recipient", ErrRecipient)
	}
	if err := r.mayRetire(); err != nil {
		return result, err
	}
	for _, to := range recipients {
		if fingerprint := Fingerprint(to.String()); !slices.Contains(result.Recipients, fingerprint) {
			result.Recipients = append(result.Recipients, fingerprint)
		}
	}
	slices.Sort(result.Recipients)
	for _, fingerprint := range r.config.Epoch().Recipients {
		if !slices.Contains(result.Recipients, fingerprint) {
			result.Dropped = append(result.Dropped, fingerprint)
		}
	}
	highest, err := r.highestKeyFile(ctx)
	if err != nil {
		return result, err
	}
	result.Epoch = max(highest, r.config.Epoch().Number) + 1
	if o.DryRun {
		config, _ := r.retire(o.Until, time.Time{})
		result.Retired = config.Retired
		return result, nil
	}
	secrets, err := newSecrets()
	if err != nil {
		return result, err
	}
	var now time.Time
	locked := make(map[string]bool)
	for _, to := range recipients {
		if locked[to.String()] {
			continue
		}
		locked[to.String()] = true
		change := RecipientChange{Fingerprint: Fingerprint(to.String())}
		if err := r.lockEpoch(ctx, result.Epoch, secrets, to, &change); err != nil {
			return result, err
		}
		if len(change.Found) > 0 {
			return result, fmt.Errorf("%w: %v is there", ErrChanged, change.Found)
		}
		object, err := r.store.Stat(ctx, keyKeyFile(result.Epoch, change.Fingerprint))
		if err != nil {
			return result, fmt.Errorf("look at the stored key file: %w", err)
		}
		now = object.LastModified
	}
	config, until := r.retire(o.Until, now)
	config.Epochs = append(slices.Clone(config.Epochs), record.Epoch{
		Number: result.Epoch, Data: Fingerprint(secrets.data.Recipient().String()), Index: Fingerprint(secrets.index.Recipient().String()), Recipients: result.Recipients,
	})
	return result, r.renew(ctx, o, config, until, secrets, &result)
}

// mayRetire: what the writers of before have signed must go on to count.
func (r *Repository) mayRetire() error {
	if err := r.mayChangeKeys(); err != nil {
		return err
	}
	if len(r.config.Writers) == 0 {
		return fmt.Errorf("%w: this repository is not signed, and has no writer", ErrRecipient)
	}
	for _, w := range r.keyringWriters() {
		if !w.Trusted {
			return fmt.Errorf("%w: the public key of writer %s is not known here, and without it nobody can check its backups; set %s to that of the Secrets of now", ErrNoTrusted, w.Key, NameTrustedWriters)
		}
	}
	return nil
}

// retire is the configuration without the writers of now, or with them until a
// time to come. Times are whole seconds, as some stores show no others.
func (r *Repository) retire(until, now time.Time) (record.Config, time.Time) {
	config := r.config
	goOn := until.After(now)
	if until.IsZero() && !now.IsZero() {
		until = now.Add(graceOfRuns + time.Second)
	}
	until = until.UTC().Truncate(time.Second)
	config.Retired = slices.Clone(config.Retired)
	for _, id := range config.Writers {
		at := slices.IndexFunc(config.Retired, func(w record.RetiredWriter) bool { return w.Key == id })
		switch {
		case at < 0:
			config.Retired = append(config.Retired, record.RetiredWriter{Key: id, Until: until})
		case until.Before(config.Retired[at].Until):
			config.Retired[at].Until = until
		}
	}
	if !goOn {
		config.Writers = nil
	}
	return config, until
}

// renew makes the writer, publishes the keys, and stores the configuration.
func (r *Repository) renew(ctx context.Context, o RenewOptions, config record.Config, until time.Time, secrets epochSecrets, result *Renewal) error {
	public, writer, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("make writer key: %w", err)
	}
	result.Writer, result.Retired = record.KeyID(public), config.Retired
	config.Writers = append(slices.Clone(config.Writers), result.Writer)
	trusted := formatWriterPublic(public)
	for _, key := range r.trusted() {
		trusted = joinTrusted(trusted, key, &config)
	}
	set := KeySet{
		Writer:  []Value{{NameWriterKey, formatWriterSecret(writer)}, {NameTrustedWriters, trusted}},
		Restore: []Value{{NameTrustedWriters, trusted}},
	}
	if secrets.data != nil {
		next := &Repository{store: r.store, config: config, log: r.log}
		files, err := next.keyFilesText(ctx)
		if err != nil {
			return err
		}
		set.Writer = append(set.Writer, Value{NameDataRecipient, secrets.data.Recipient().String()}, Value{NameIndexIdentity, secrets.index.String()}, Value{NameKeyFiles, files})
	}
	if err := o.Publish(set, *result); err != nil {
		return err
	}
	r.keys.Writer = writer // it signs what it comes with
	stored, err := r.storeConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("%w; the keys that were printed do not count", err)
	}
	if o.Until.IsZero() && stored.After(until) {
		result.Late = stored
	}
	return nil
}

// joinTrusted adds a writer of before to the text of NameTrustedWriters, with the
// time until when it counts.
func joinTrusted(text string, key ed25519.PublicKey, config *record.Config) string {
	one := formatWriterPublic(key)
	if strings.Contains(text, one) {
		return text
	}
	if until, retired := config.RetiredAt(record.KeyID(key)); retired {
		one += "@" + until.UTC().Format(time.RFC3339)
	}
	return text + " " + one
}

// currentSecrets are those of the current epoch: of D the secret half is only known
// to who can restore.
func (r *Repository) currentSecrets(ctx context.Context) (epochSecrets, error) {
	if len(r.keys.Restore) > 0 {
		return r.openEpoch(ctx, r.config.Epoch(), "")
	}
	return epochSecrets{}, fmt.Errorf("%w: set %s: the new writer's Secret has keys that it opens", ErrNoIdentity, NameRestoreIdentity)
}

func newSecrets() (epochSecrets, error) {
	data, err := age.GenerateX25519Identity()
	if err != nil {
		return epochSecrets{}, fmt.Errorf("make data key: %w", err)
	}
	index, err := age.GenerateX25519Identity()
	if err != nil {
		return epochSecrets{}, fmt.Errorf("make index key: %w", err)
	}
	return epochSecrets{data, index}, nil
}
