// Command restore brings backups back: a replica of a StatefulSet, a whole
// set, one server, one table, or files.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
)

func main() { os.Exit(cli.Main("restore", newRoot)) }

func newRoot(a *cli.App) *cobra.Command {
	return cli.NewRoot(a,
		"Restore StatefulSets and database servers",
		"restore brings backups back: new or lost replicas of a StatefulSet, a whole set in\nanother namespace, any server, one table or database, or plain files.",
		newPlan(a), newRun(a), newLoad(a), newDrill(a), newExport(a), newObjects(a), newStatus(a), newAbort(a),
	)
}
