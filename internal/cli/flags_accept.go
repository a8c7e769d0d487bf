package cli

import (
	"context"

	"github.com/spf13/pflag"

	"keepset/internal/record"
	"keepset/internal/repository"
)

// AddSign declares what it takes to write a record that the user signs: the
// writer's key, and none that opens anything.
func (f *RepositoryFlags) AddSign(fs *pflag.FlagSet) {
	f.AddPrune(fs)
	f.key(fs, "writer-key-file", repository.NameWriterKey+"_FILE", "file with the key that signs backups")
}

// AcceptFlags are those of `backup accept` and `backup adopt`.
type AcceptFlags struct {
	Repository RepositoryFlags
	Set        SetFlags
	Reason     string
	DryRun     bool
}

// Add declares the flags.
func (f *AcceptFlags) Add(fs *pflag.FlagSet) {
	f.Repository.AddSign(fs)
	f.Set.Add(fs)
	fs.StringVar(&f.Reason, "reason", "", "why, for those who find it")
	fs.BoolVar(&f.DryRun, "dry-run", false, "say what would be stored and stop")
}

// Open opens the repository and finds the set.
func (f *AcceptFlags) Open(ctx context.Context, a *App) (*repository.Repository, record.SetID, error) {
	if _, _, err := f.Set.split(); err != nil {
		return nil, record.SetID{}, err
	}
	r, err := f.Repository.Open(ctx, a)
	if err != nil {
		return nil, record.SetID{}, err
	}
	set, err := f.Set.Find(ctx, a, r)
	return r, set, err
}

// Origin is the one that a set is adopted for: the one that is given, or the
// cluster's own; empty for a set of plain servers.
func (f *AcceptFlags) Origin(a *App, set record.SetID, given string) (string, error) {
	if given != "" || set.Namespace == record.NoNamespace {
		return given, nil
	}
	client, _, err := f.Set.Cluster(a)
	if err != nil {
		return "", err
	}
	return client.Origin()
}
