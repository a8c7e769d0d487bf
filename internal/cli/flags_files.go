package cli

import (
	"context"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"keepset/internal/filetree"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/storage"
)

// FileFlags say which files of a directory are meant, and what may be missing
// of them.
type FileFlags struct {
	Include, Exclude             []string
	OneFileSystem, Fuzzy         bool
	NoOwner, NoDevices, NoXattrs bool
}

// AddSave declares what a backup of files needs.
func (f *FileFlags) AddSave(fs *pflag.FlagSet) {
	f.addPatterns(fs)
	fs.BoolVar(&f.OneFileSystem, "one-file-system", false, "with --method files: leave out what is mounted within the directory")
	fs.BoolVar(&f.Fuzzy, "fuzzy", false, "with --method files: files that change while they are read do not make a member suspect")
}

// AddRestore declares what a restore of files needs.
func (f *FileFlags) AddRestore(fs *pflag.FlagSet) {
	f.addPatterns(fs)
	f.addLenience(fs)
}

// addLenience declares what may be missing of files that are restored.
func (f *FileFlags) addLenience(fs *pflag.FlagSet) {
	fs.BoolVar(&f.NoOwner, "no-owner", false, "files belong to who restores them, without the bits for set-user-ID and set-group-ID")
	fs.BoolVar(&f.NoDevices, "no-devices", false, "leave device files out")
	fs.BoolVar(&f.NoXattrs, "no-xattrs", false, "leave extended attributes and ACLs of files out")
}

func (f *FileFlags) addPatterns(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.Include, "include-path", nil, "only files of this path, from the directory's root, or of this name anywhere; globs, ** for any directories; repeatable")
	fs.StringSliceVar(&f.Exclude, "exclude-path", nil, "no files of this path or name; repeatable")
}

func (f *FileFlags) patterns() (filetree.Patterns, error) {
	p, err := filetree.ParsePatterns(f.Include, f.Exclude)
	if err != nil {
		return p, Usage("--include-path, --exclude-path: %w", err)
	}
	return p, nil
}

// planned are the patterns as a plan records them.
func (f *FileFlags) planned() []string {
	all := slices.Clone(f.Include)
	for _, p := range f.Exclude {
		all = append(all, "!"+p)
	}
	return all
}

// isDirectoryURL tells directories from servers.
func isDirectoryURL(raw string) bool { return strings.HasPrefix(raw, "file:") }

// parseDirectoryURL reads file:///dir. Nothing is percent-decoded, as in the
// repository's URL.
func parseDirectoryURL(flag, raw string) (string, error) {
	dir, ok := strings.CutPrefix(raw, "file://")
	if !ok || !strings.HasPrefix(dir, "/") || !utf8.ValidString(dir) || strings.IndexByte(dir, 0) >= 0 {
		return "", Usage("--%s %q: want file:///dir, an absolute path", flag, raw)
	}
	return path.Clean(dir), nil
}

// files fills the job for the files of a StatefulSet, for a worker's share of
// them, or for directories given by --source.
func (f *BackupFlags) files(ctx context.Context, a *App, b *job.Backup) error {
	if len(f.Server.patterns()) > 0 || b.FollowersOnly {
		return Usage("--method files goes with none of --database, --exclude and --role; --include-path and --exclude-path choose files")
	}
	switch {
	case a.Getenv(envWorker) != "":
		return f.asWorker(ctx, a, b)
	case len(f.Sources) == 0:
		return f.ofSet(ctx, a, b)
	case f.Workers.FromSnapshot:
		return Usage("--from-snapshot is for the claims of a StatefulSet: it does not go with --source")
	}
	return f.directories(a, b)
}

// directories fills the job for those given by --source.
func (f *BackupFlags) directories(a *App, b *job.Backup) (err error) {
	if b.Files, err = f.saveOptions(a); err != nil {
		return err
	}
	if b.Set, err = f.Set.ID(a); err != nil {
		return err
	}
	paths := make([]string, 0, len(f.Sources))
	for _, raw := range f.Sources {
		dir, err := parseDirectoryURL("source", raw)
		if err != nil {
			return err
		}
		if slices.Contains(paths, dir) {
			return Usage("--source %s is given twice", raw)
		}
		if err := f.checkOutside(dir); err != nil {
			return err
		}
		paths = append(paths, dir)
	}
	b.ID, b.Attempt = record.NewBackupID(a.Clock(), ""), record.NewAttemptID()
	b.Plan.Method, b.Plan.Engine, b.Plan.Paths = record.MethodFiles, "", f.Files.planned()
	b.Discover = job.Directories(paths)
	return nil
}

// checkOutside refuses a repository within the directory: a backup would hold
// itself, and grow as it is read.
func (f *BackupFlags) checkOutside(dir string) error {
	repo, err := storage.ParseURL(f.Repository.Store.URL)
	if err != nil || repo.Scheme != "file" {
		return nil //nolint:nilerr // who opens the repository says what is wrong with its URL
	}
	inside, err := filepath.Rel(resolved(dir), resolved(repo.Path))
	if err == nil && inside != ".." && !strings.HasPrefix(inside, "../") {
		return Usage("--source file://%s holds the repository %s: keep it elsewhere, or back up the directories beside it", dir, f.Repository.Store.URL)
	}
	return nil
}

// resolved is a path without symbolic links, as far as it is there.
func resolved(p string) string {
	if r, err := filepath.EvalSymlinks(p); err == nil {
		return r
	}
	if p == "/" {
		return p
	}
	return filepath.Join(resolved(filepath.Dir(p)), filepath.Base(p))
}

// Loader brings one member back.
type Loader interface {
	// Of is the set whose member it is.
	Of() record.SetID
	Run(ctx context.Context) (*job.LoadReport, error)
	DryRun(ctx context.Context) (*job.LoadReport, error)
}

// files makes the job that restores a directory.
func (f *LoadFlags) files(ctx context.Context, a *App) (*job.LoadFiles, func(), error) {
	dir, err := parseDirectoryURL("target", f.Target)
	if err != nil {
		return nil, nil, err
	}
	if len(f.Objects.Databases)+len(f.Objects.Tables)+len(f.Rename) > 0 || f.WithUsers || f.SkipBinlog {
		return nil, nil, Usage("--target %s is a directory: the flags for databases and accounts do not go with it", f.Target)
	}
	workers := max(2, runtime.GOMAXPROCS(0))
	base, err := f.serverFiles(a, dir, workers)
	if err != nil {
		return nil, nil, err
	}
	l := &job.LoadFiles{Ordinal: f.Ordinal, Clock: a.Clock, Log: a.Log, Base: base, BaseOnly: base.postgres.particular(), FilesOnly: f.Files.particular(), Options: filetree.RestoreOptions{
		Path: dir, Replace: f.Replace, NoOwner: f.Files.NoOwner, NoDevices: f.Files.NoDevices, NoXattrs: f.Files.NoXattrs,
		Workers: workers,
	}}
	if f.Replace && l.FilesOnly == "" {
		l.FilesOnly = "--replace"
	}
	if l.Options.Patterns, err = f.Files.patterns(); err != nil {
		return nil, nil, err
	}
	if l.Choice, err = f.Choice.Choice(); err != nil {
		return nil, nil, err
	}
	l.Choice.Whole, l.Choice.Ordinals = len(f.Files.Include) == 0, []int{f.Ordinal}
	if l.Repository, err = f.Repository.Open(ctx, a); err != nil {
		return nil, nil, err
	}
	if l.Set, err = f.Set.Find(ctx, a, l.Repository); err != nil {
		return nil, nil, err
	}
	progress, end := a.StartProgress()
	l.Progress = progress
	return l, sync.OnceFunc(end), nil
}
