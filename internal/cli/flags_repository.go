package cli

import (
	"context"

	"github.com/spf13/pflag"

	"keepset/internal/job"
	"keepset/internal/repository"
)

// RepositoryFlags say where the repository is and which keys are held. A key
// is the value of a variable (KEEPSET_WRITER_KEY) or the content of a file
// that a flag names (--writer-key-file); the flags for public keys take the
// key itself.
type RepositoryFlags struct {
	Store         StoreFlags
	NoExtraVerify bool
	// AcceptCopiedTimes is consent to read a repository that was copied.
	AcceptCopiedTimes bool
	// GuessedOrigin is set by who writes and is not sure of the origin.
	GuessedOrigin bool
	// keys maps the name of each key's variable to the flag's value.
	keys map[string]*string
}

// AddRead declares what a command needs that reads.
func (f *RepositoryFlags) AddRead(fs *pflag.FlagSet) {
	f.addKeys(fs)
	fs.BoolVar(&f.AcceptCopiedTimes, "accept-copied-times", false, "read a repository that was copied and whose objects have the copy's times; signatures count as ever")
}

func (f *RepositoryFlags) addKeys(fs *pflag.FlagSet) {
	f.keys = map[string]*string{}
	f.Store.Add(fs)
	f.key(fs, "trusted-writers", repository.NameTrustedWriters, "public keys of the writers whose backups count")
	f.key(fs, "restore-identity-file", repository.NameRestoreIdentity+"_FILE", "file with the identity that opens an encrypted backup")
}

// AddWrite declares what a command needs that writes.
func (f *RepositoryFlags) AddWrite(fs *pflag.FlagSet) {
	f.addKeys(fs)
	f.Store.AddWrite(fs)
	f.addWriter(fs)
	fs.BoolVar(&f.NoExtraVerify, "no-extra-verify", false, "do not decode and compare each new piece before it is uploaded (faster)")
}

// AddInit declares what `backup init` needs.
func (f *RepositoryFlags) AddInit(fs *pflag.FlagSet) {
	f.keys = map[string]*string{}
	f.Store.Add(fs)
	f.Store.AddWrite(fs)
	f.Store.Make = true
	f.addWriter(fs)
	f.key(fs, "key-files-file", repository.NameKeyFiles+"_FILE", "file with the locked keys that keygen prints")
}

func (f *RepositoryFlags) addWriter(fs *pflag.FlagSet) {
	f.key(fs, "writer-key-file", repository.NameWriterKey+"_FILE", "file with the key that signs backups")
	f.key(fs, "data-recipient", repository.NameDataRecipient, "public key that data is encrypted to")
	f.key(fs, "index-identity-file", repository.NameIndexIdentity+"_FILE", "file with the key of the index, which finds duplicates")
}

func (f *RepositoryFlags) key(fs *pflag.FlagSet, flag, variable, usage string) {
	f.keys[variable] = fs.String(flag, "", usage)
}

// AddProve declares what a drill needs: to read, and to sign what it found.
func (f *RepositoryFlags) AddProve(fs *pflag.FlagSet) {
	f.AddRead(fs)
	f.Store.AddWrite(fs)
	f.key(fs, "proof-key-file", repository.NameProofKey+"_FILE", "file with the key that signs what a drill found")
}

// addProvers declares whose proofs count.
func (f *RepositoryFlags) addProvers(fs *pflag.FlagSet) {
	f.key(fs, "trusted-provers", repository.NameTrustedProvers, "public keys of the drills whose proofs count")
}

// Keys reads the keys from flags and environment.
func (f *RepositoryFlags) Keys(a *App) (repository.Keys, error) {
	keys, err := repository.LoadKeys(func(name string) string {
		if value, ok := f.keys[name]; ok && *value != "" {
			return *value
		}
		if file, ok := f.keys[name+"_FILE"]; ok && *file != "" {
			return "" // the flag's file wins over the variable's value
		}
		return a.Getenv(name)
	})
	if err != nil {
		return keys, Usage("read the repository's keys: %w", err)
	}
	return keys, nil
}

// Open opens the repository.
func (f *RepositoryFlags) Open(ctx context.Context, a *App) (*repository.Repository, error) {
	store, err := f.Store.Open(ctx, a)
	if err != nil {
		return nil, err
	}
	keys, err := f.Keys(a)
	if err != nil {
		return nil, err
	}
	return repository.Open(ctx, store, keys, repository.Options{
		Clock: a.Clock, Logger: a.Log, NoExtraVerify: f.NoExtraVerify, AcceptCopiedTimes: f.AcceptCopiedTimes,
		GuessedOrigin: f.GuessedOrigin, ReuseWithin: f.Store.Lock.reuseWithin(),
	})
}

// ChoiceFlags say which backup is restored.
type ChoiceFlags struct {
	Backup                        string
	AllowIncomplete, AllowSuspect bool
	AllowFiltered                 bool
}

// Add declares the flags.
func (f *ChoiceFlags) Add(fs *pflag.FlagSet) {
	fs.StringVar(&f.Backup, "backup", "latest", "an ID, latest, or a time, which means the newest backup all of which was captured by then")
	fs.BoolVar(&f.AllowIncomplete, "allow-incomplete", false, "with an ID: also a backup in which members are missing")
	fs.BoolVar(&f.AllowSuspect, "allow-suspect", false, "with an ID: also a backup that is suspect")
}

// AddWhole declares what a restore of whole members needs besides.
func (f *ChoiceFlags) AddWhole(fs *pflag.FlagSet) {
	fs.BoolVar(&f.AllowFiltered, "allow-filtered", false, "also a backup taken with --exclude, and with an ID one of single databases (--database) or paths (--include-path)")
}

// Choice reads them.
func (f *ChoiceFlags) Choice() (job.Choice, error) {
	selector, err := repository.ParseSelector(f.Backup)
	if err != nil {
		return job.Choice{}, Usage("--backup: %w", err)
	}
	if selector.ID == "" && (f.AllowIncomplete || f.AllowSuspect) {
		return job.Choice{}, Usage("--allow-incomplete and --allow-suspect need --backup with an ID: such a backup is never chosen by itself")
	}
	return job.Choice{Selector: selector, AllowIncomplete: f.AllowIncomplete, AllowSuspect: f.AllowSuspect, AllowFiltered: f.AllowFiltered}, nil
}
