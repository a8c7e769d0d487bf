package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/repository"
)

func newAddRecipient(a *cli.App) *cobra.Command {
	var f recipientFlags
	cmd := &cobra.Command{
		Use:   "add-recipient AGE-PUBLIC-KEY",
		Short: "Let one more key restore",
		Long: `Let one more age key restore, all that is stored and all that will be: a colleague's, a paper
key, the new one that takes the place of yours. No data is touched; for each epoch a small
key file is added. It takes the restore identity: only who can restore decides who else can.`,
		Example: `
			backup keys add-recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p --restore-identity-file mine.key`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := cli.Recipient(args[0])
			if err != nil {
				return cli.Usage("recipient %w", err)
			}
			return f.run(cmd.Context(), a, "can open", func(r *repository.Repository) (repository.RecipientChange, error) {
				return r.AddRecipient(cmd.Context(), to, f.dryRun)
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newRemoveRecipient(a *cli.App) *cobra.Command {
	var f recipientFlags
	cmd := &cobra.Command{
		Use:   "remove-recipient FINGERPRINT|AGE-PUBLIC-KEY",
		Short: "Let a key restore no longer",
		Long: `Let a key restore no longer: its key files are deleted, and it is named no more. The restore
identity that is given has to be another one, which opens all that this one does, so that
nothing is locked for good. It takes the right to delete below keys/.

What its holder has copied before cannot be taken back. If the key is stolen, begin a new
epoch without it ("backup keys new-epoch"), so that it opens nothing that comes.`,
		Example: `
			backup keys remove-recipient 3f1f4f0b8f9a2c11 --restore-identity-file mine.key
			backup keys remove-recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fingerprint := args[0]
			if to, err := cli.Recipient(fingerprint); err == nil {
				fingerprint = repository.Fingerprint(to.String())
			}
			return f.run(cmd.Context(), a, "can no longer open", func(r *repository.Repository) (repository.RecipientChange, error) {
				return r.RemoveRecipient(cmd.Context(), fingerprint, f.dryRun)
			})
		},
	}
	f.add(cmd)
	return cmd
}

// recipientFlags are those of add-recipient and remove-recipient.
type recipientFlags struct {
	repo   cli.RepositoryFlags
	dryRun bool
}

func (f *recipientFlags) add(cmd *cobra.Command) {
	f.repo.AddKeys(cmd.Flags())
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be changed and stop")
}

// changedRecipient is what --json prints.
type changedRecipient struct {
	Fingerprint string `json:"fingerprint"`
	Epochs      []int  `json:"epochs"`
	// Left are epochs that the restore identity does not open.
	Left []int `json:"left,omitempty"`
	// Found are key files that were there and are not proven.
	Found   []string `json:"found,omitempty"`
	Deleted []string `json:"deleted,omitempty"`
	DryRun  bool     `json:"dryRun,omitempty"`
}

func (f *recipientFlags) run(ctx context.Context, a *cli.App, can string, do func(*repository.Repository) (repository.RecipientChange, error)) error {
	r, err := f.repo.Open(ctx, a)
	if err != nil {
		return err
	}
	change, err := do(r)
	if err != nil {
		return err
	}
	result := changedRecipient{Fingerprint: change.Fingerprint, Epochs: change.Epochs, Left: change.Left, Found: change.Found, Deleted: change.Deleted, DryRun: f.dryRun}
	return a.Print(result, func(w io.Writer) error { return printChangedRecipient(w, &result, can) })
}

func printChangedRecipient(w io.Writer, r *changedRecipient, can string) error {
	would := ""
	if r.DryRun {
		would = "would: "
	}
	var lines []string
	switch {
	case len(r.Epochs) > 0:
		lines = append(lines, fmt.Sprintf("%srecipient %s %s epoch %s", would, r.Fingerprint, can, strings.Trim(fmt.Sprint(r.Epochs), "[]")))
	case len(r.Deleted) == 0:
		lines = append(lines, fmt.Sprintf("recipient %s is as it should be, nothing to change", r.Fingerprint))
	}
	for _, n := range r.Left {
		lines = append(lines, fmt.Sprintf("epoch %d is left as it is: the restore identity does not open it", n))
	}
	for _, key := range r.Found {
		lines = append(lines, fmt.Sprintf("%s was there already: let its holder prove it with `backup keys list`", key))
	}
	for _, key := range r.Deleted {
		lines = append(lines, would+"deleted "+key)
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}
