package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/repository"
)

func newRotateWriter(a *cli.App) *cobra.Command {
	var f cli.RenewFlags
	cmd := &cobra.Command{
		Use:   "rotate-writer",
		Short: "Replace the key that signs backups",
		Long: `Replace the key that signs backups. The new writer's Secret is written to a file, whole; the
former writer is retired: its backups stay good, what it signs from now on counts nowhere,
and a run that still has its key ends at once, with exit code 64. The next backup goes on
from the last one, as the keys of the data stay: if the whole Secret was stolen, begin a new
epoch ("backup keys new-epoch").

With --valid-until in the past nothing counts that was signed since, good or forged; in the
future runs go on with the former key until then.

It takes KEEPSET_TRUSTED_WRITERS of now, and in an encrypted repository the restore identity.
Put the new value of ` + "`trusted-writers.txt`" + ` wherever the former one stands.`,
		Example: `
			backup keys rotate-writer --restore-identity-file mine.key --out keys-2 --namespace mysql
			backup keys rotate-writer --out keys-2 --valid-until 2026-11-20T13:17:30Z
			backup keys rotate-writer --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return renew(cmd, a, &f, func(r *repository.Repository, o repository.RenewOptions) (repository.Renewal, error) {
				return r.RotateWriter(cmd.Context(), o)
			})
		},
	}
	f.Add(cmd.Flags(), "a time before a theft, or one to come, up to which they go on")
	return cmd
}

func newNewEpoch(a *cli.App) *cobra.Command {
	var f cli.RenewFlags
	var recipients []string
	cmd := &cobra.Command{
		Use:   "new-epoch",
		Short: "Replace all keys that a backup pod holds, after a theft",
		Long: `Replace all keys that a backup pod holds, after a theft of its Secret or of a restore
identity: the key of the data, that of the index, and the writer's. The former writer is
retired, as by "backup keys rotate-writer". What is stored stays as it is, readable for who
could read it; new backups take nothing over from it, so that the first one stores
everything anew.

All who may restore what comes are given by --recipient, with their public keys; who is
left out can restore what is there, and nothing that comes. It takes
KEEPSET_TRUSTED_WRITERS of now.`,
		Example: `
			backup keys new-epoch --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p --out keys-2
			backup keys new-epoch --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p --valid-until 2026-11-20T13:17:30Z --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			to, err := cli.Recipients("recipient", recipients)
			if err != nil {
				return err
			}
			if len(to) == 0 {
				return cli.Usage("--recipient is required, once for each key that may restore")
			}
			return renew(cmd, a, &f, func(r *repository.Repository, o repository.RenewOptions) (repository.Renewal, error) {
				if o.Until.After(a.Clock()) {
					return repository.Renewal{}, cli.Usage("--valid-until %s is to come, and a new epoch begins now: nobody goes on with the keys of before", f.ValidUntil)
				}
				return r.NewEpoch(cmd.Context(), to, o)
			})
		},
	}
	f.Add(cmd.Flags(), "a time before the theft")
	cmd.Flags().StringSliceVar(&recipients, "recipient", nil, "age public key (age1...) of somebody who may restore what comes; repeatable")
	return cmd
}

// renewed is what --json prints.
type renewed struct {
	// Writer is the key ID of the new writer, and Retired are those of before.
	Writer  string          `json:"writer,omitempty"`
	Retired []retiredWriter `json:"retired"`
	// Epoch of the data keys; absent where nothing is encrypted.
	Epoch      int      `json:"epoch,omitempty"`
	NewEpoch   bool     `json:"newEpoch"`
	Recipients []string `json:"recipients,omitempty"`
	// Dropped could open the epoch before, and not this one.
	Dropped []string `json:"dropped,omitempty"`
	Files   []string `json:"files,omitempty"`
	DryRun  bool     `json:"dryRun,omitempty"`
}

// retiredWriter: Until is absent where a dry run does not know it.
type retiredWriter struct {
	Key   string    `json:"key"`
	Until time.Time `json:"until,omitzero"`
}

func renew(cmd *cobra.Command, a *cli.App, f *cli.RenewFlags, do func(*repository.Repository, repository.RenewOptions) (repository.Renewal, error)) error {
	r, files, err := f.Renew(cmd.Context(), a, do)
	if err != nil {
		return err
	}
	result := renewed{
		Writer: r.Writer, Retired: []retiredWriter{}, Epoch: r.Epoch, NewEpoch: r.New, Recipients: r.Recipients, Dropped: r.Dropped,
		Files: files, DryRun: f.DryRun,
	}
	for _, one := range r.Retired {
		result.Retired = append(result.Retired, retiredWriter(one))
	}
	return a.Print(result, func(w io.Writer) error { return printRenewed(w, &result) })
}

func printRenewed(w io.Writer, r *renewed) error {
	would := ""
	if r.DryRun {
		would = "would: "
	}
	var lines []string
	if r.NewEpoch {
		lines = append(lines, fmt.Sprintf("%sepoch %d begins, for the recipients %s", would, r.Epoch, strings.Join(r.Recipients, ", ")))
	}
	for _, fingerprint := range r.Dropped {
		lines = append(lines, fmt.Sprintf("%srecipient %s opens what is stored, and nothing that comes", would, fingerprint))
	}
	for _, one := range r.Retired {
		until := "now"
		if !one.Until.IsZero() {
			until = cli.Time(one.Until)
		}
		lines = append(lines, fmt.Sprintf("%swriter %s is retired, what it signs counts until %s", would, one.Key, until))
	}
	if !r.DryRun {
		lines = append(lines,
			"writer "+r.Writer+" takes its place",
			r.Files[0]+": for backups, in place of the former Secret",
			r.Files[1]+": KEEPSET_TRUSTED_WRITERS for all who restore, prune, verify or watch")
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}
