package cli

import (
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
)

// A consent or a backup that an earlier restore left in the ConfigMap is not
// that of this one.
func TestEarlierParametersDoNotJoinIn(t *testing.T) {
	env := map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true"}
	forgetEarlier(env)
	for _, name := range []string{
		"KEEPSET_REPLICAS", "KEEPSET_ALL", "KEEPSET_KEEP", "KEEPSET_BACKUP", "KEEPSET_BASE",
		"KEEPSET_ALLOW_ROLLBACK", "KEEPSET_ALLOW_INCOMPLETE", "KEEPSET_ALLOW_SUSPECT", "KEEPSET_FORCE_POD",
	} {
		value, set := env[name]
		assert.True(t, set && value == "", name)
	}
	assert.Equal(t, "1", env["KEEPSET_ORDINAL"])
	assert.Equal(t, "true", env["KEEPSET_REPLACE"])

	env = map[string]string{"KEEPSET_VERBOSE": "true"}
	forgetEarlier(env)
	assert.Len(t, env, 1, "the ConfigMap says what to restore")

	known := map[string]bool{}
	flags := pflag.NewFlagSet("restore", pflag.ContinueOnError)
	new(RestoreFlags).Add(flags)
	flags.VisitAll(func(f *pflag.Flag) { known[EnvName(f.Name)] = true })
	for _, name := range append(append([]string{}, whatToRestore...), ofOneRestore...) {
		assert.True(t, known[name], "%s belongs to a flag", name)
	}
}
