package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/repository"
)

func newKeys(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Look at the keys of a repository, and change them",
		Long: `Look at the keys of a repository, and change them, while it is in use and without touching
the data: who may restore, who writes, and new keys of everything after a theft.`,
	}
	cmd.AddCommand(newKeysList(a), newAddRecipient(a), newRemoveRecipient(a), newRotateWriter(a), newNewEpoch(a))
	return cmd
}

func newKeysList(a *cli.App) *cobra.Command {
	var f cli.RepositoryFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show who may restore and who writes, and prove the keys that are held",
		Long: `Show who may restore what, and whose backups count. The keys that are held here are proven:
with a restore identity (--restore-identity-file) the key files are opened, and a key that
does not fit is an error. Do that with each identity that lies in a safe, now and then.

Recipients and writers are shown by the first 16 hex digits of a SHA-256: of a recipient's
text that is "printf %s age1... | sha256sum".`,
		Example: `
			backup keys list
			backup keys list --restore-identity-file paper.key --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.Open(cmd.Context(), a)
			if err != nil {
				return err
			}
			k, err := r.Keyring(cmd.Context())
			if err != nil {
				return err
			}
			result := newKeyring(&k)
			return a.Print(result, func(w io.Writer) error { return printKeyring(w, &result) })
		},
	}
	f.AddKeys(cmd.Flags())
	return cmd
}

// keyring is what --json prints.
type keyring struct {
	Repository    string          `json:"repository"`
	Configuration int             `json:"configuration"`
	Encrypted     bool            `json:"encrypted"`
	Signed        bool            `json:"signed"`
	Epochs        []keyringEpoch  `json:"epochs"`
	Writers       []keyringWriter `json:"writers"`
}

type keyringEpoch struct {
	Number     int                `json:"number"`
	Current    bool               `json:"current"`
	Recipients []keyringRecipient `json:"recipients"`
}

// keyringRecipient: KeyFile is stored, missing or damaged, and opened where the
// identity that is held has opened it.
type keyringRecipient struct {
	Fingerprint string `json:"fingerprint"`
	KeyFile     string `json:"keyFile"`
	Why         string `json:"why,omitempty"`
}

// keyringWriter: Until is when what it signs ceases to count.
type keyringWriter struct {
	Key     string    `json:"key"`
	Until   time.Time `json:"until,omitzero"`
	Active  bool      `json:"active"`
	Trusted bool      `json:"trusted"`
	Held    bool      `json:"held"`
}

func newKeyring(k *repository.Keyring) keyring {
	result := keyring{
		Repository: k.Repository, Configuration: k.Configuration, Encrypted: len(k.Epochs) > 0, Signed: len(k.Writers) > 0,
		Epochs: []keyringEpoch{}, Writers: []keyringWriter{},
	}
	for i, e := range k.Epochs {
		epoch := keyringEpoch{Number: e.Number, Current: i == len(k.Epochs)-1, Recipients: []keyringRecipient{}}
		for _, r := range e.Recipients {
			one := keyringRecipient{Fingerprint: r.Fingerprint, KeyFile: "stored", Why: r.Why}
			switch {
			case !r.Stored:
				one.KeyFile = "missing"
			case r.Why != "":
				one.KeyFile = "damaged"
			case r.Opened:
				one.KeyFile = "opened"
			}
			epoch.Recipients = append(epoch.Recipients, one)
		}
		result.Epochs = append(result.Epochs, epoch)
	}
	for _, w := range k.Writers {
		result.Writers = append(result.Writers, keyringWriter(w))
	}
	return result
}

func printKeyring(w io.Writer, k *keyring) error {
	if _, err := fmt.Fprintf(w, "repository %s, %s, configuration %d\n", k.Repository, protection(k.Encrypted, k.Signed), k.Configuration); err != nil {
		return err
	}
	var rows [][]string
	for _, e := range k.Epochs {
		for _, r := range e.Recipients {
			state := r.KeyFile
			if r.Why != "" {
				state += ": " + r.Why
			}
			rows = append(rows, []string{"recipient", r.Fingerprint, "of epoch " + strconv.Itoa(e.Number), "key file " + state})
		}
	}
	for _, one := range k.Writers {
		rows = append(rows, []string{"writer", one.Key, writerState(&one), writerHere(&one)})
	}
	if len(rows) == 0 {
		return nil
	}
	return cli.Table(w, []string{"KEY", "FINGERPRINT", "STATE", "HERE"}, rows)
}

func writerState(w *keyringWriter) string {
	switch {
	case w.Until.IsZero():
		return "active"
	case w.Active:
		return "active until " + cli.Time(w.Until)
	default:
		return "retired, counts until " + cli.Time(w.Until)
	}
}

func writerHere(w *keyringWriter) string {
	var here []string
	if w.Held {
		here = append(here, "held")
	}
	if w.Trusted {
		here = append(here, "trusted")
	}
	if len(here) == 0 {
		return "not trusted"
	}
	return strings.Join(here, ", ")
}
