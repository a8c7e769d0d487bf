package cli

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage"
)

// CopyFlags are the flags of `backup copy`.
type CopyFlags struct {
	Repository RepositoryFlags
	Set        SetFlags
	To         StoreFlags
	DryRun     bool
}

// Add declares the flags. The settings of new objects are those of the copy.
func (f *CopyFlags) Add(fs *pflag.FlagSet) {
	f.Repository.keys = map[string]*string{}
	f.Repository.Store.Add(fs)
	f.Repository.key(fs, "trusted-writers", repository.NameTrustedWriters, "public keys of the writers whose backups count")
	f.Set.Add(fs)
	fs.StringVar(&f.To.URL, "to", "", "where the copy is: s3://bucket/prefix or file:///dir, which is created")
	fs.StringVar(&f.To.Profile, "to-profile", "", "AWS profile of the copy's account, region and endpoint (default: those of --repository)")
	f.To.AddWrite(fs)
	fs.BoolVar(&f.DryRun, "dry-run", false, "say what would be copied and stop")
}

// Open opens both places.
func (f *CopyFlags) Open(ctx context.Context, a *App) (r *repository.Repository, set record.SetID, to storage.Store, err error) {
	switch {
	case f.To.URL == "":
		return nil, set, nil, Usage("--to is required (or %s): s3://bucket/prefix or file:///dir", EnvName("to"))
	case f.To.URL == f.Repository.Store.URL && f.To.Profile == "":
		return nil, set, nil, Usage("--to %s is the repository itself", f.To.URL)
	}
	if _, _, err := f.Set.split(); err != nil {
		return nil, set, nil, err
	}
	if r, err = f.Repository.Open(ctx, a); err != nil {
		return nil, set, nil, err
	}
	if set, err = f.Set.Find(ctx, a, r); err != nil {
		return nil, set, nil, err
	}
	f.To.Timeout, f.To.Make = f.Repository.Store.Timeout, !f.DryRun
	if to, err = f.To.Open(ctx, a); err != nil {
		return nil, set, nil, fmt.Errorf("--to: %w", err)
	}
	return r, set, to, nil
}
