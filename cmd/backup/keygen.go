package main

import (
	"github.com/spf13/cobra"

	"keepset/internal/cli"
)

func newKeygen(a *cli.App) *cobra.Command {
	var f cli.KeygenFlags
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make the keys of an encrypted repository",
		Long: `Make the keys of an encrypted repository: one Secret for the backup side, which can
write and deduplicate and cannot read a byte back, and one for the restore side, to be
kept off the cluster. With --recipient the keys of the data are locked to your own age
keys (several: colleagues, a paper key); without, a restore identity is made, and what
is printed is its only copy.`,
		Example: `
			backup keygen > secrets.yaml
			backup keygen --format env --out keys
			backup keygen --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p --namespace mysql`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return f.Run(a) },
	}
	f.Add(cmd.Flags())
	return cmd
}
