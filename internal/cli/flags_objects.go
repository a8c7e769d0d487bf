package cli

import (
	"context"
	"strings"

	"github.com/spf13/pflag"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// FromNothingFlags are what `restore run` needs where there is nothing but a
// bucket, its keys and an empty cluster.
type FromNothingFlags struct {
	Objects     bool
	PortForward bool
	// Password and Replication are NAME/KEY of Secrets of the namespace.
	Password, Replication string
}

// Add declares the flags.
func (f *FromNothingFlags) Add(fs *pflag.FlagSet) {
	fs.BoolVar(&f.Objects, "with-objects", false, "first create what is missing of the set, its Services, ConfigMaps and so on, as they are in the backup")
	fs.BoolVar(&f.PortForward, "port-forward", false, "with --local: reach the pods through the API server, as kubectl port-forward does")
	fs.StringVar(&f.Password, "target-password-secret", "", "NAME/KEY of a Secret of the namespace that holds the password of --target-user")
	fs.StringVar(&f.Replication, "replication-password-secret", "", "NAME/KEY of a Secret of the namespace that holds the password of --replication-user")
}

// apply tells the job, and the servers whose passwords will only be known once
// the set's Secrets are there.
func (f *FromNothingFlags) apply(r *job.Restore, servers *mysqlServers) error {
	r.Objects = f.Objects
	if f.PortForward {
		servers.dial = r.Cluster.DialPod
	}
	var wanted []wantedSecret
	for _, s := range []struct {
		flag, text, file string
		set              func(string)
	}{
		{"target-password-secret", f.Password, servers.server.PasswordFile, func(p string) { servers.server.password = p }},
		{"replication-password-secret", f.Replication, servers.upstream.PasswordFile, func(p string) { servers.upstream.password = p }},
	} {
		if s.text == "" {
			continue
		}
		name, key, ok := strings.Cut(s.text, "/")
		if !ok || name == "" || key == "" {
			return Usage("--%s %q: want NAME/KEY of a Secret", s.flag, s.text)
		}
		if s.file != "" {
			return Usage("--%s: the password is given by a file, too", s.flag)
		}
		wanted = append(wanted, wantedSecret{name, key, s.set})
	}
	if len(wanted) > 0 {
		r.Prepared = func(ctx context.Context) error { return readSecrets(ctx, r.Cluster, wanted) }
	}
	return nil
}

// applyFiles tells a job that fills claims with files, which needs no database.
func (f *FromNothingFlags) applyFiles(r *job.Restore, method string) error {
	r.Objects = f.Objects
	if f.PortForward || f.Password != "" || f.Replication != "" {
		return Usage("--port-forward, --target-password-secret and --replication-password-secret are for databases: they do not go with --method %s", method)
	}
	return nil
}

// wantedSecret is a key of a Secret, and what takes its value.
type wantedSecret struct {
	name, key string
	set       func(string)
}

func readSecrets(ctx context.Context, c *statefulset.Client, wanted []wantedSecret) error {
	for _, w := range wanted {
		value, err := c.SecretValue(ctx, w.name, w.key)
		if err != nil {
			return err
		}
		w.set(value)
	}
	return nil
}

// SetObjectsFlags are the flags of `restore objects`.
type SetObjectsFlags struct {
	Repository RepositoryFlags
	Set        SetFlags
	FromSet    string
	Choice     ChoiceFlags
	DryRun     bool
	Output     string
}

// Add declares the flags.
func (f *SetObjectsFlags) Add(fs *pflag.FlagSet) {
	f.Repository.AddRead(fs)
	f.Set.Add(fs)
	f.Choice.Add(fs)
	fs.StringVar(&f.FromSet, "from-set", "", "the set's [namespace/]name in the repository, where it is not --set's")
	fs.BoolVar(&f.DryRun, "dry-run", false, "say what would be created and stop")
	fs.StringVarP(&f.Output, "output", "o", "", outputYAML+" prints the manifests for kubectl apply, and needs no cluster; the set has replicas: 0 in them")
}

// Job makes the job. With -o yaml there is no cluster in it, and the namespace is
// the one that was given, if any.
func (f *SetObjectsFlags) Job(ctx context.Context, a *App) (r *job.RestoreObjects, namespace string, err error) {
	if f.Output != "" && f.Output != outputYAML {
		return nil, "", Usage("--output %q is not %s", f.Output, outputYAML)
	}
	r = &job.RestoreObjects{DryRun: f.DryRun, Log: a.Log}
	if r.Choice, err = f.Choice.Choice(); err != nil {
		return nil, "", err
	}
	namespace, name, err := f.Set.split()
	if err != nil {
		return nil, "", err
	}
	if f.Output == "" {
		if r.Cluster, _, err = f.Set.Cluster(a); err != nil {
			return nil, "", err
		}
		namespace = r.Cluster.Namespace()
	}
	if r.Repository, err = f.Repository.Open(ctx, a); err != nil {
		return nil, "", err
	}
	if f.FromSet == "" && f.Output != "" {
		r.From, err = f.Set.Find(ctx, a, r.Repository)
		return r, namespace, err
	}
	if r.From, err = fromSet(f.FromSet, orDefault(namespace, record.NoNamespace), name); err != nil {
		return nil, "", err
	}
	if r.From.Name != name {
		return nil, "", Usage("--from-set %s: the objects are of a set called %s and --set says %s; give another name by hand, in what -o yaml prints", f.FromSet, r.From.Name, name)
	}
	return r, namespace, nil
}

const outputYAML = "yaml"
