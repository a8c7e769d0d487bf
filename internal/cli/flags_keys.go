package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/spf13/pflag"

	"keepset/internal/repository"
)

// AddKeys declares what it takes to look at a repository's keys and to change them.
func (f *RepositoryFlags) AddKeys(fs *pflag.FlagSet) {
	f.addKeys(fs)
	f.Store.AddWrite(fs)
	f.key(fs, "writer-key-file", repository.NameWriterKey+"_FILE", "file with the key that signs backups")
}

// RenewFlags are those of `backup keys rotate-writer` and `new-epoch`.
type RenewFlags struct {
	KeyOutputFlags
	Repository RepositoryFlags
	ValidUntil string
	DryRun     bool
}

// The files that new keys are written to.
const (
	writerFile  = "writer"
	trustedFile = "trusted-writers.txt"
)

// Add declares the flags; until says what a time that is given means.
func (f *RenewFlags) Add(fs *pflag.FlagSet, until string) {
	f.Repository.AddKeys(fs)
	f.add(fs, "directory for the two files writer and "+trustedFile+"; required")
	fs.StringVar(&f.ValidUntil, "valid-until", "", "until when what the former writers sign counts, like 2026-11-20T13:17:30Z: "+until+" (default: now)")
	fs.BoolVar(&f.DryRun, "dry-run", false, "say what would be made and retired, and stop")
}

// Renew checks the flags and calls do with what it needs; do has stored nothing yet
// when it publishes the keys, which are then written to the files.
func (f *RenewFlags) Renew(ctx context.Context, a *App, do func(*repository.Repository, repository.RenewOptions) (repository.Renewal, error)) (repository.Renewal, []string, error) {
	o := repository.RenewOptions{DryRun: f.DryRun}
	if err := f.check(); err != nil {
		return repository.Renewal{}, nil, err
	}
	if f.ValidUntil != "" {
		var err error
		if o.Until, err = time.Parse(time.RFC3339, f.ValidUntil); err != nil {
			return repository.Renewal{}, nil, Usage("--valid-until: %w", err)
		}
	}
	paths := []string{filepath.Join(f.Out, writerFile+f.extension()), filepath.Join(f.Out, trustedFile)}
	if f.DryRun {
		paths = nil
	} else if err := f.vacant(paths); err != nil {
		return repository.Renewal{}, nil, err
	}
	r, err := f.Repository.Open(ctx, a)
	if err != nil {
		return repository.Renewal{}, nil, err
	}
	o.Publish = func(set repository.KeySet, _ repository.Renewal) error { return f.publish(set, paths) }
	result, err := do(r, o)
	if err == nil && !result.Late.IsZero() {
		a.Log.Warn("the store took long: a backup that the former writer has committed meanwhile has said that it is complete, and does not count; look at `backup list`", "until", result.Late)
	}
	return result, paths, err
}

// vacant sees that the keys can be kept, before any are made.
func (f *RenewFlags) vacant(paths []string) error {
	if f.Out == "" {
		return Usage("--out is required (or %s): a directory for the new keys", EnvName("out"))
	}
	for _, path := range paths {
		_, err := os.Lstat(path)
		if err == nil {
			return Usage("%s exists, and keys are never replaced; choose another --out", path)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("look at the directory for the keys: %w", err)
		}
	}
	return nil
}

func (f *RenewFlags) publish(set repository.KeySet, paths []string) error {
	if err := os.MkdirAll(f.Out, 0o700); err != nil {
		return fmt.Errorf("make the directory for the keys: %w", err)
	}
	text, err := f.render(newSide("writer", aboutWriter, set.Writer))
	if err != nil {
		return err
	}
	for i, content := range []string{text, set.Restore[0].Value + "\n"} {
		if err := writeNew(paths[i], content); err != nil {
			return fmt.Errorf("write keys to %s: %w", paths[i], err)
		}
	}
	return nil
}

// Recipients reads the public keys of a flag.
func Recipients(flag string, texts []string) ([]*age.X25519Recipient, error) {
	list := make([]*age.X25519Recipient, 0, len(texts))
	for _, text := range texts {
		r, err := Recipient(text)
		if err != nil {
			return nil, Usage("--%s %w", flag, err)
		}
		list = append(list, r)
	}
	return list, nil
}
