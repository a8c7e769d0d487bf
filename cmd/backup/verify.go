package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/record"
	"keepset/internal/repository"
)

func newVerify(a *cli.App) *cobra.Command {
	var repo cli.RepositoryFlags
	var set cli.SetFlags
	var percent float64
	cmd := &cobra.Command{
		Use:   "verify [BACKUP...]",
		Short: "Check that backups are whole",
		Long: `Check that every object that a backup needs is there in its right size, and with
--read-data that its bytes are unchanged. No key is needed: the names of objects are
the hashes of their content. Harmed backups and members are named.`,
		Example: `
			backup verify --repository s3://backups/prod
			backup verify --set mysql/mysql --read-data 100
			backup verify --set mysql/mysql 20261120T131730Z-1a2b3c4d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := repository.VerifyOptions{ReadData: percent}
			if percent < 0 || percent > 100 {
				return cli.Usage("--read-data %v is not a percentage", percent)
			}
			for _, arg := range args {
				id, err := record.ParseBackupID(arg)
				if err != nil {
					return cli.Usage("%w", err)
				}
				o.IDs = append(o.IDs, id)
			}
			if len(o.IDs) > 0 && set.Name == "" {
				return cli.Usage("--set is required when backups are named")
			}
			r, err := repo.Open(cmd.Context(), a)
			if err != nil {
				return err
			}
			if set.Name != "" {
				if o.Set, err = set.Find(cmd.Context(), a, r); err != nil {
					return err
				}
			}
			report, err := r.Verify(cmd.Context(), o)
			if err != nil {
				return err
			}
			return finishVerify(a, report)
		},
	}
	repo.AddRead(cmd.Flags())
	set.Add(cmd.Flags())
	cmd.Flags().Float64Var(&percent, "read-data", 0, "percentage of the objects whose bytes are read and compared")
	return cmd
}

var errDamaged = errors.New("the repository is damaged")

func finishVerify(a *cli.App, r repository.VerifyReport) error {
	summary := fmt.Sprintf("checked %d backups, %d members, %d objects; read %d objects, %s; %d damaged",
		r.Backups, r.Members, r.Objects, r.ObjectsRead, cli.Bytes(r.BytesRead), len(r.Damages))
	a.SetMessage(summary)
	err := a.Print(verifiedOf(r), func(w io.Writer) error {
		for _, problem := range r.Problems {
			if _, err := fmt.Fprintln(w, "note:", problem); err != nil {
				return err
			}
		}
		for _, d := range r.Damages {
			if _, err := fmt.Fprintf(w, "damaged: %s of %s: %s; harms %s\n", d.Key, d.Set, d.What, harms(d.Harmed)); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(w, summary)
		return err
	})
	if err != nil {
		return err
	}
	if len(r.Damages) > 0 {
		return fmt.Errorf("%w: %d objects are missing or changed", errDamaged, len(r.Damages))
	}
	return nil
}

// verified is the report in the form that --json prints.
type verified struct {
	Backups     int       `json:"backups"`
	Members     int       `json:"members"`
	Objects     int       `json:"objects"`
	ObjectsRead int       `json:"objectsRead"`
	BytesRead   int64     `json:"bytesRead"`
	Damages     []damage  `json:"damages"`
	Problems    []string  `json:"problems,omitempty"`
	Started     time.Time `json:"startedAt"`
	Finished    time.Time `json:"finishedAt"`
}

// damage is one object that is missing or changed, and what it harms.
type damage struct {
	Set    string `json:"set"`
	Object string `json:"object"`
	What   string `json:"what"`
	Harmed []harm `json:"harmed"`
}

type harm struct {
	Backup  record.BackupID `json:"backup"`
	Ordinal int             `json:"ordinal"`
	Streams []string        `json:"streams,omitempty"`
	Note    string          `json:"note,omitempty"`
}

func verifiedOf(r repository.VerifyReport) verified {
	v := verified{
		Backups: r.Backups, Members: r.Members, Objects: r.Objects, ObjectsRead: r.ObjectsRead, BytesRead: r.BytesRead,
		Damages: []damage{}, Problems: r.Problems, Started: r.Started, Finished: r.Finished,
	}
	for _, d := range r.Damages {
		one := damage{Set: d.Set.String(), Object: d.Key, What: d.What, Harmed: []harm{}}
		for _, h := range d.Harmed {
			one.Harmed = append(one.Harmed, harm{h.Backup, h.Ordinal, h.Streams, h.Note})
		}
		v.Damages = append(v.Damages, one)
	}
	return v
}

func harms(list []repository.Harm) string {
	if len(list) == 0 {
		return "no backup"
	}
	parts := make([]string, 0, len(list))
	for _, h := range list {
		part := fmt.Sprintf("%s ordinal %d", h.Backup, h.Ordinal)
		if len(h.Streams) > 0 {
			part += " (" + strings.Join(h.Streams, ", ") + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
