package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"keepset/internal/cli"
	"keepset/internal/job"
)

func newObjects(a *cli.App) *cobra.Command {
	var f cli.SetObjectsFlags
	cmd := &cobra.Command{
		Use:   "objects",
		Short: "Create the Kubernetes objects that a backup holds",
		Long: `Create the Kubernetes objects that a backup holds: the set, its Services, ConfigMaps,
ServiceAccount, PodDisruptionBudgets and, if they were kept, Secrets. What exists is never
changed: it is said whether it is the same. The set is created with no replicas, so that
no pod starts on an empty claim; "restore run --all" fills it and scales it up, and with
--with-objects does all of it in one go.

With -o yaml the manifests are printed, for kubectl apply.`,
		Example: `
			restore objects --set mysql/mysql --dry-run
			restore objects --set staging/mysql --from-set mysql/mysql
			restore objects --set mysql/mysql -o yaml > mysql.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, namespace, err := f.Job(cmd.Context(), a)
			if err != nil {
				return err
			}
			if f.Output != "" {
				return printManifests(cmd.Context(), a.Out, r, namespace)
			}
			report, err := r.Run(cmd.Context())
			if err != nil {
				return err
			}
			return a.Print(report, func(w io.Writer) error { return printObjects(w, report) })
		},
	}
	f.Add(cmd.Flags())
	return cmd
}

func printManifests(ctx context.Context, w io.Writer, r *job.RestoreObjects, namespace string) error {
	objects, _, err := r.Read(ctx)
	if err != nil {
		return err
	}
	for i, o := range objects.Creatable() {
		fields, err := o.Manifest(namespace)
		if err != nil {
			return err
		}
		text, err := yaml.Marshal(fields)
		if err != nil {
			return fmt.Errorf("print %s %s: %w", o.Kind, o.Name, err)
		}
		separator := "---\n"
		if i == 0 {
			separator = ""
		}
		if _, err := io.WriteString(w, separator+string(text)); err != nil {
			return fmt.Errorf("write result to standard output: %w", err)
		}
	}
	return nil
}

func printObjects(w io.Writer, r *job.ObjectsReport) error {
	var b strings.Builder
	would := ""
	if r.DryRun {
		would = " (nothing is changed by this)"
	}
	fmt.Fprintf(&b, "objects of %s from backup %s, in namespace %s%s\n", r.From, r.Backup, r.Namespace, would)
	rows := make([][]string, 0, len(r.Objects))
	for _, o := range r.Objects {
		action := o.Action
		if r.DryRun && action == "created" {
			action = "would be created"
		}
		rows = append(rows, []string{o.Kind, o.Name, action, dash(o.Note)})
	}
	if err := cli.Table(&b, []string{"KIND", "NAME", "WHAT", "NOTE"}, rows); err != nil {
		return err
	}
	for _, o := range r.Omitted {
		fmt.Fprintf(&b, "not in the backup: %s\n", o)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
