package cli

import (
	"context"
	"strings"

	"github.com/spf13/pflag"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// SetFlags say which set, and how to reach the cluster that it lives in.
type SetFlags struct {
	Name       string
	Namespace  string
	Kubeconfig string
	Context    string
}

// Add declares the flags.
func (f *SetFlags) Add(fs *pflag.FlagSet) {
	fs.StringVar(&f.Name, "set", "", "the set: [namespace/]name of a StatefulSet, or a name for plain servers")
	fs.StringVarP(&f.Namespace, "namespace", "n", "", "namespace of the set (default: the pod's own, or the kubeconfig's)")
	fs.StringVar(&f.Kubeconfig, "kubeconfig", "", "kubeconfig file")
	fs.StringVar(&f.Context, "context", "", "context of the kubeconfig")
}

// split reads [namespace/]name and --namespace, which must agree.
func (f *SetFlags) split() (namespace, name string, err error) {
	if f.Name == "" {
		return "", "", Usage("--set is required (or %s)", EnvName("set"))
	}
	namespace, name, found := strings.Cut(f.Name, "/")
	if !found {
		namespace, name = f.Namespace, f.Name
	} else if namespace == "" {
		return "", "", Usage("--set %q: there is no namespace before the slash", f.Name)
	} else if f.Namespace != "" && f.Namespace != namespace {
		return "", "", Usage("--set %s and --namespace %s do not agree", f.Name, f.Namespace)
	}
	id := record.SetID{Namespace: orDefault(namespace, record.NoNamespace), Name: name}
	if err := id.Validate(); err != nil {
		return "", "", Usage("--set %q: %w", f.Name, err)
	}
	return namespace, name, nil
}

// ID is the set's name in the repository when nothing has to be looked up: a
// name without a namespace is the pod's own namespace in a pod, and a set of
// plain servers elsewhere.
func (f *SetFlags) ID(a *App) (record.SetID, error) {
	namespace, name, err := f.split()
	if err != nil {
		return record.SetID{}, err
	}
	if namespace == "" {
		namespace = orDefault(a.Getenv(EnvName("pod-namespace")), record.NoNamespace)
	}
	return record.SetID{Namespace: namespace, Name: name}, nil
}

// Find is the set's name in the repository for commands that read: a name
// without a namespace may be any set of that name, if there is only one.
func (f *SetFlags) Find(ctx context.Context, a *App, r *repository.Repository) (record.SetID, error) {
	id, err := f.ID(a)
	if err != nil {
		return id, err
	}
	sets, err := r.Sets(ctx)
	if err != nil {
		return id, err
	}
	var same []record.SetID
	for _, s := range sets {
		if s == id {
			return id, nil
		}
		if s.Name == id.Name {
			same = append(same, s)
		}
	}
	explicit := strings.Contains(f.Name, "/") || f.Namespace != ""
	switch {
	case len(same) == 1 && !explicit:
		return same[0], nil
	case len(same) > 1 && !explicit:
		return id, Usage("--set %s: the repository has several sets of that name; write one of %s", f.Name, joinSets(same))
	default:
		return id, Usage("--set %s: the repository has no backup of that set; it has %s", f.Name, joinSets(sets))
	}
}

func joinSets(sets []record.SetID) string {
	if len(sets) == 0 {
		return "none"
	}
	names := make([]string, 0, len(sets))
	for _, s := range sets {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}

// Cluster connects to the cluster and returns the StatefulSet's name there.
func (f *SetFlags) Cluster(a *App) (*statefulset.Client, string, error) {
	namespace, name, err := f.split()
	if err != nil {
		return nil, "", err
	}
	client, err := statefulset.Connect(statefulset.Options{
		Kubeconfig: f.Kubeconfig, Context: f.Context,
		Namespace: orDefault(namespace, a.Getenv(EnvName("pod-namespace"))), Log: a.Log,
	})
	if err != nil {
		return nil, "", Usage("connect to the cluster: %w", err)
	}
	return client, name, nil
}
