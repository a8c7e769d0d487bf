package repository

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// InitOptions of a new repository.
type InitOptions struct {
	// Keys decide the mode: with Data it is encrypted (Index, Writer and
	// KeyFiles are then needed too), with Writer alone signed, with none plain.
	Keys Keys
	// Tool is the version of the program.
	Tool string
	// LongestBackup is L, default 24 h; Slack is S, default 1 h.
	LongestBackup, Slack time.Duration
	// Clock is time.Now unless a test says otherwise.
	Clock func() time.Time
}

// CheckVacant looks whether Init would be refused with ErrExists. It changes
// nothing.
func CheckVacant(ctx context.Context, store storage.Store) error {
	for object, err := range store.List(ctx, prefixConfig) {
		if err != nil {
			return fmt.Errorf("look for a repository: %w", err)
		}
		return fmt.Errorf("%w: found %s", ErrExists, object.Key)
	}
	for object, err := range store.List(ctx, prefixSets) {
		if err != nil {
			return fmt.Errorf("look for a repository: %w", err)
		}
		return fmt.Errorf("%w: there are backups (%s), and their configuration %s is gone; put it back", ErrExists, object.Key, keyConfig(0))
	}
	return nil
}

// Init makes a repository: the key files first, the configuration last. It
// refuses an existing one with ErrExists, and so what is left of one that has
// lost its configuration.
func Init(ctx context.Context, store storage.Store, o InitOptions) (record.Config, error) {
	if err := CheckVacant(ctx, store); err != nil {
		return record.Config{}, err
	}
	config, err := newConfig(o)
	if err != nil {
		return record.Config{}, err
	}
	for _, recipient := range config.Epoch().Recipients {
		key := keyKeyFile(1, recipient)
		err := put(ctx, store, key, o.Keys.KeyFiles[recipient])
		if errors.Is(err, storage.ErrExists) {
			return record.Config{}, fmt.Errorf("%w: an init with other keys did not finish and has left the key file %s; remove that object, or use those keys", ErrExists, key)
		}
		if err != nil {
			return record.Config{}, fmt.Errorf("store key file: %w", err)
		}
	}
	data, err := record.Encode(&config, o.Keys.Writer)
	if err != nil {
		return record.Config{}, err
	}
	if err := put(ctx, store, keyConfig(0), data); err != nil {
		if errors.Is(err, storage.ErrExists) {
			return record.Config{}, fmt.Errorf("%w: another init was faster", ErrExists)
		}
		return record.Config{}, fmt.Errorf("store configuration: %w", err)
	}
	return config, nil
}

func newConfig(o InitOptions) (record.Config, error) {
	defaults := Options{Clock: o.Clock}.withDefaults()
	setDefault(&o.LongestBackup, 24*time.Hour)
	setDefault(&o.Slack, time.Hour)
	config := record.Config{
		Header:        record.NewHeader(record.KindConfig),
		Repository:    string(record.NewAttemptID()),
		CreatedAt:     defaults.Clock().UTC(),
		Tool:          o.Tool,
		Hash:          "sha256",
		Compression:   "zstd",
		Chunker:       record.Chunker{Algorithm: "fastcdc", Min: chunkMin, Average: chunkAverage, Max: chunkMax},
		LongestBackup: record.Seconds(o.LongestBackup / time.Second),
		Slack:         record.Seconds(o.Slack / time.Second),
	}
	k := o.Keys
	if public := writerPublic(k.Writer); public != nil {
		config.Writers = []string{record.KeyID(public)}
	}
	if k.Data == nil {
		if len(k.Index) > 0 || len(k.KeyFiles) > 0 {
			return record.Config{}, fmt.Errorf("%w: there are keys of an encrypted repository, but %s is not set", ErrNoKey, NameDataRecipient)
		}
		return config, nil
	}
	if k.Writer == nil || len(k.Index) != 1 || len(k.KeyFiles) == 0 {
		return record.Config{}, fmt.Errorf("%w: an encrypted repository needs %s, %s and %s, as 'backup keygen' prints them", ErrNoKey, NameWriterKey, NameIndexIdentity, NameKeyFiles)
	}
	for name := range k.KeyFiles {
		if !fingerprint.MatchString(name) {
			return record.Config{}, fmt.Errorf("%w: %s has the key files of a repository with several epochs, and a new one begins with keys of its own: 'backup keygen' makes them", ErrWrongKey, NameKeyFiles)
		}
	}
	config.Epochs = []record.Epoch{{
		Number:     1,
		Data:       Fingerprint(k.Data.String()),
		Index:      Fingerprint(k.Index[0].Recipient().String()),
		Recipients: slices.Sorted(maps.Keys(k.KeyFiles)),
	}}
	return config, nil
}
