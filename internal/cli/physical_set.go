package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"keepset/internal/dbdump/postgres"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// bases fills the job for claims that are filled with the files of servers.
func (f *RestoreFlags) bases(a *App, r *job.Restore) error {
	if f.Files.NoDevices || f.Files.NoXattrs {
		return Usage("--no-devices and --no-xattrs do not go with --method %s: a server's files are of one kind", f.Method)
	}
	moved, err := parseTablespaces(f.Tablespaces, 2)
	if err != nil {
		return err
	}
	load := LoadFlags{Server: f.Server, Upstream: f.Upstream, Files: f.Files}
	// A server runs as the owner of its files, and so does a worker that is not root.
	load.Files.NoOwner = load.Files.NoOwner || !f.Workers.Root
	r.Request.Slot = f.Upstream.Slot
	r.Files.Place = func(set statefulset.Set, report record.Report) (statefulset.DataPlace, error) {
		return f.place(set, r.Seed.DiscoverOptions, report, moved)
	}
	r.Files.Args = func(plan *job.RestorePlan, item job.RestoreItem, dir string) []string {
		follow := orDefault(item.Follow, "none")
		args := append(f.loadArgs(a, plan, item, dir), boolFlag("no-owner", load.Files.NoOwner), "--as-follower-of="+follow,
			"--replication-user="+f.Upstream.User, "--replication-password-file="+f.Upstream.PasswordFile,
			boolFlag("replication-tls", f.Upstream.TLS), "--replication-tls-ca="+f.Upstream.TLSCA, "--replication-slot="+item.Slot)
		for _, space := range spacesOf(item) {
			args = append(args, "--tablespace="+space)
		}
		return args
	}
	r.Files.Base = func(item job.RestoreItem) (job.Base, error) {
		load := load
		load.Upstream.Follow, load.Upstream.Slot, load.Tablespaces = item.Follow, item.Slot, spacesOf(item)
		b, err := load.base(a, path.Join(statefulset.WorkerPath, pathOf(item)), 1)
		if err != nil {
			return nil, err
		}
		b.patience = 0
		return claimBase{b, item.Replace && !f.Request.All}, nil
	}
	r.Files.Ask, err = f.asker(a)
	return err
}

// place finds where in a claim a server's files go, and those of its tablespaces.
func (f *RestoreFlags) place(set statefulset.Set, o statefulset.DiscoverOptions, report record.Report, moved map[string][]string) (statefulset.DataPlace, error) {
	if !postgres.IsBase(report) {
		return statefulset.DataPlace{}, fmt.Errorf("%w: the backup holds no files of a server of PostgreSQL: its layout is %s", job.ErrConfig, report.Layout)
	}
	place, err := set.DataPlace(o, statefulset.DataDirectory{Said: f.DataDirectory, Variable: "PGDATA", Default: postgres.DefaultDirectory(report.Version)})
	if err != nil {
		return place, err
	}
	known := map[string]bool{}
	for _, space := range postgres.Tablespaces(report) {
		was := space.Location
		known[was] = true
		seen := was
		if now := moved[was]; now != nil {
			seen = now[0]
		}
		if strings.ContainsAny(was+seen, "=\n") {
			return place, fmt.Errorf("%w: %s of the backup is in %q, a name that cannot be told a seed pod: restore load --target file:///dir brings such a server into directories", job.ErrConfig, space, was)
		}
		if place, err = set.Beside(o, place, was, seen); err != nil {
			return place, fmt.Errorf("%w: %s of the backup was in %s: %w: say where it goes, --tablespace %s=/dir, a directory of the container's that is on that claim and apart from the data directory; "+
				"restore load --target file:///dir brings a server into directories wherever they are", job.ErrConfig, space, was, err, was)
		}
	}
	for was := range moved {
		if !known[was] {
			return place, fmt.Errorf("%w: --tablespace %s=%s: the backup has no tablespace that was in %s", job.ErrConfig, was, moved[was][0], was)
		}
	}
	return place, nil
}

// pathOf is where in its claim an item's data directory goes.
func pathOf(item job.RestoreItem) string {
	if item.Place == nil {
		return ""
	}
	return item.Place.Path
}

// spacesOf are the tablespaces of an item as its seed pod is told.
func spacesOf(item job.RestoreItem) (all []string) {
	if item.Place == nil {
		return nil
	}
	for _, p := range item.Place.Apart {
		all = append(all, p.Was+"="+path.Join(statefulset.WorkerPath, p.Path)+"="+p.Seen)
	}
	return all
}

// parseTablespaces reads where tablespaces go by where they were, with at most so
// many parts each, which are one a line in a variable.
func parseTablespaces(given []string, most int) (map[string][]string, error) {
	spaces := map[string][]string{}
	for raw := range strings.SplitSeq(strings.Join(given, "\n"), "\n") {
		if raw == "" {
			continue
		}
		parts := strings.Split(raw, "=")
		if len(parts) < 2 || len(parts) > most {
			return nil, Usage("--tablespace %q: want /old=/new, where it was and where it goes", raw)
		}
		for _, part := range parts {
			if !strings.HasPrefix(part, "/") {
				return nil, Usage("--tablespace %q: %q is no absolute path; want /old=/new, where it was and where it goes", raw, part)
			}
		}
		if spaces[parts[0]] != nil {
			return nil, Usage("--tablespace %s is given twice", parts[0])
		}
		spaces[parts[0]] = parts[1:]
	}
	return spaces, nil
}

// claimBase is a base backup that goes into a claim.
type claimBase struct {
	*postgresBase
	// replaces: the ordinal is there, and may be who uses the slot.
	replaces bool
}

// Check implements job.Base. A slot that is in use will be free, by all that is
// known, once the ordinal's pod is gone, for which the seed pod waits.
func (b claimBase) Check(ctx context.Context, r record.Report) error {
	err := b.postgresBase.Check(ctx, r)
	if !b.replaces || !errors.Is(err, postgres.ErrSlotInUse) {
		return err
	}
	b.app.Log.Info("the replication slot is in use, by the standby that will be replaced perhaps", "slot", b.Slot)
	return b.upstream.CanFollow(ctx, r.Coordinates, "")
}

// makeAbove makes the directories above places within the claim at root, as an
// image does for its own. Whatever else the claim holds, none is outside of it.
func makeAbove(root string, places []string) error {
	claim, err := os.OpenRoot(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no seed pod
	}
	if err != nil {
		return err
	}
	for _, place := range places {
		inside, ok := strings.CutPrefix(filepath.Clean(place), root+"/")
		if above := path.Dir(inside); ok && above != "." {
			err = errors.Join(err, claim.MkdirAll(above, 0o755))
		}
	}
	return errors.Join(err, claim.Close())
}

// asker says as whom the restored servers are asked what they are: as the account
// that replicates, as their upstream is, or else as that of the target.
func (f *RestoreFlags) asker(a *App) (func(job.RestoreItem) job.Asker, error) {
	o := postgres.Options{ConnectTimeout: f.Server.ConnectTimeout}
	switch {
	case f.Upstream.User != "":
		account, err := f.Upstream.account(a, "", 0)
		if err != nil {
			return nil, err
		}
		o.User, o.Password = account.User, account.Password
		if account.TLS { // a pod's address is in no certificate
			o.TLS = postgres.TLS{Required: true, SkipVerify: true}
		}
	case f.Server.User != "":
		opts, err := f.Server.Options(a, Server{Engine: enginePostgres, User: f.Server.User, Address: "localhost:1"}, a.Log)
		if err == nil {
			err = tryEngine(enginePostgres, opts) // a file that is missing is said before a claim goes
		}
		if err != nil {
			return nil, err
		}
		o = opts.Postgres
		o.TLS.AnyName = o.TLS.CA != "" // a pod's address is in no certificate
	default:
		return func(job.RestoreItem) job.Asker {
			return func(context.Context, string) (string, error) {
				return "no account was given that could ask it: --replication-user, or --target-user", nil
			}
		}, nil
	}
	return func(item job.RestoreItem) job.Asker {
		server := &postgres.Restored{Options: o, Coordinates: *item.Coordinates, Standby: item.Follow != ""}
		return server.Ask
	}, nil
}
