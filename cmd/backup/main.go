// Command backup takes backups of Kubernetes StatefulSets and of plain
// servers, and says what backups there are.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
)

func main() { os.Exit(cli.Main("backup", newRoot)) }

func newRoot(a *cli.App) *cobra.Command {
	return cli.NewRoot(a,
		"Back up StatefulSets and database servers",
		"backup takes backups of every replica of a StatefulSet, or of a list of database\nservers, into a repository in object storage or in a directory.",
		newInit(a), newKeygen(a), newKeys(a), newRun(a), newList(a), newShow(a), newVerify(a), newStatus(a),
		newPrune(a), newDelete(a), newPin(a), newUnpin(a), newAccept(a), newAdopt(a), newCopy(a),
		newSuspend(a), newResume(a), newSchedule(a),
	)
}
