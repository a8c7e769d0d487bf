package cli

import (
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keepset/internal/repository"
)

// Prefix begins the name of every environment variable of Keepset.
const Prefix = "KEEPSET_"

// otherVariables have no flag, or belong to the other binary's flags while
// looking like one of this binary's.
var otherVariables = []string{
	"KEEPSET_SOURCE_PASSWORD", "KEEPSET_TARGET_PASSWORD", "KEEPSET_REPLICATION_PASSWORD", "KEEPSET_METRICS_PASSWORD",
	repository.NameWriterKey, repository.NameTrustedWriters, repository.NameDataRecipient,
	repository.NameIndexIdentity, repository.NameKeyFiles, repository.NameRestoreIdentity,
	repository.NameProofKey, repository.NameTrustedProvers, "KEEPSET_TRUSTED_PROVERS_FILE",
	"KEEPSET_TRUSTED_WRITERS_FILE", "KEEPSET_DATA_RECIPIENT_FILE", "KEEPSET_SEED_PATCH",
	"KEEPSET_POD_NAME", "KEEPSET_POD_UID", "KEEPSET_POD_NAMESPACE", "KEEPSET_JOB_NAME", "KEEPSET_JOB_UID",
	"KEEPSET_MEMBER", envWorker, envWorkerSnapshot, envWorkerCutAt,
}

// EnvName is the variable that stands for a flag: --lock-timeout is
// KEEPSET_LOCK_TIMEOUT.
func EnvName(flag string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Getenv returns a variable's value, empty when it is not set.
func (a *App) Getenv(name string) string {
	for _, kv := range a.Environ() {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}

// typo is a variable that looks like a known one and is not.
type typo struct{ variable, known string }

// applyEnvironment sets every flag of cmd that was not given as an argument
// from its variable. An empty variable counts as not set, because that is how
// an optional key of a ConfigMap arrives. It returns the variables that look
// like a misspelt known one; other unknown ones are left alone, since
// Kubernetes itself sets KEEPSET_SERVICE_HOST for a Service called keepset.
func (a *App) applyEnvironment(cmd *cobra.Command) ([]typo, error) {
	values := map[string]string{}
	for _, kv := range a.Environ() {
		if k, v, _ := strings.Cut(kv, "="); strings.HasPrefix(k, Prefix) && v != "" {
			values[k] = v
		}
	}
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		v, ok := values[EnvName(f.Name)]
		if !ok || f.Changed || f.Name == "help" || failed != nil {
			return
		}
		if err := cmd.Flags().Set(f.Name, v); err != nil {
			failed = Usage("environment variable %s: %w", EnvName(f.Name), err)
		}
	})
	if failed != nil {
		return nil, failed
	}
	return misspelt(values, KnownVariables(cmd.Root())), nil
}

// KnownVariables lists every variable that some command of the tree reads.
func KnownVariables(root *cobra.Command) []string {
	seen := map[string]bool{}
	for _, name := range otherVariables {
		seen[name] = true
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		add := func(f *pflag.Flag) { seen[EnvName(f.Name)] = true }
		c.Flags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
	known := make([]string, 0, len(seen))
	for name := range seen {
		known = append(known, name)
	}
	sort.Strings(known)
	return known
}

// misspelt finds the variables within two edits of a known one.
func misspelt(values map[string]string, known []string) []typo {
	isKnown := map[string]bool{}
	for _, k := range known {
		isKnown[k] = true
	}
	var found []typo
	for v := range values {
		if isKnown[v] {
			continue
		}
		best, distance := "", 3
		for _, k := range known {
			if d := editDistance(v, k); d < distance {
				best, distance = k, d
			}
		}
		if best != "" {
			found = append(found, typo{variable: v, known: best})
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].variable < found[j].variable })
	return found
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			above := row[j]
			row[j] = min(above+1, row[j-1]+1, diagonal+cost)
			diagonal = above
		}
	}
	return row[len(b)]
}
