package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

// TestQuiesceFlags: a command without its word, and the word without a command,
// are refused before anything is asked.
func TestQuiesceFlags(t *testing.T) {
	for _, tc := range []struct {
		quiesce, command string
		says             string
	}{
		{quiesceEngine, "", ""},
		{quiesceNone, "", ""},
		{quiesceCommand, "echo held; exec cat", ""},
		{quiesceCommand, "", "go together"},
		{quiesceEngine, "echo held", "go together"},
		{quiesceNone, "echo held", "go together"},
		{"fsfreeze", "", "is not one of engine, command, none"},
	} {
		f := &VolumeFlags{Snapshotter: record.ProviderCSI, Quiesce: tc.quiesce, Command: tc.command, Hold: time.Second}
		if err := f.check(); tc.says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, tc.says)
		}
	}
}
