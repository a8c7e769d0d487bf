package timesten

import (
	"fmt"
	"regexp"
	"strings"

	"keepset/internal/dbdump"
)

// parseRows reads the rows that ttIsql prints, "< 2, 1, abc >" each in its line.
// A value that has a comma or a line's end is not to be had in this way; those
// that are asked for have none.
func parseRows(text string) [][]string {
	var rows [][]string
	for line := range strings.Lines(text) {
		inner, begins := strings.CutPrefix(strings.TrimSpace(line), "< ")
		inner, ends := strings.CutSuffix(inner, " >")
		if !begins || !ends {
			continue
		}
		row := strings.Split(inner, ",")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	return rows
}

// backupStatus is the row of ttBackupStatus (database reference,
// "ttBackupStatus"): of the current or last backup of the database since it was
// loaded.
type backupStatus struct {
	// status 0: none, 1: under way, 2: well, 3: failed.
	status string
	// destination 0: file, 1: stream, 2: replication's duplicate.
	destination string
	// started is a time; it tells one backup from another.
	started string
	// failure is the number of the error.
	failure string
}

const backupColumns = 9

func parseBackupStatus(row []string) (backupStatus, error) {
	if len(row) != backupColumns {
		return backupStatus{}, fmt.Errorf("ttBackupStatus: the row has %d columns where %d are documented", len(row), backupColumns)
	}
	return backupStatus{status: row[0], destination: row[1], started: row[3], failure: row[7]}, nil
}

// judge is nil when the row is of a backup that began after the one of before,
// went to a stream, and ended well.
func (s backupStatus) judge(before backupStatus) error {
	switch {
	case s.status == "3" || s.failure != "0":
		return fmt.Errorf("ttBackup ended with status 0, and ttBackupStatus says that the backup failed with error TT-%s", s.failure)
	case s.status != "2":
		return fmt.Errorf("ttBackup ended with status 0, and ttBackupStatus does not say that the backup is complete (status %s)", s.status)
	case s.started == before.started:
		return fmt.Errorf("ttBackup ended with status 0, and the last backup that ttBackupStatus knows began before it, at %s", s.started)
	case s.destination != "1":
		return fmt.Errorf("ttBackupStatus tells of another backup than ours (destination %s): let only one run at a time", s.destination)
	}
	return nil
}

// version is what ttVersion says first: the release and, in brackets, bits and
// platform.
type version struct{ release, platform string }

var versionForm = regexp.MustCompile(`(?m)^TimesTen Release (\d+\.\d+(?:\.\d+)*) \(([^()]+)\)`)

func parseVersion(text string) (version, error) {
	m := versionForm.FindStringSubmatch(text)
	if m == nil {
		return version{}, fmt.Errorf("ttVersion: %q does not name a release and a platform", oneLine(text))
	}
	return version{release: m[1], platform: m[2]}, nil
}

// fits says whether a backup of another version can be restored.
func (v version) fits(release, platform string) error {
	if firstTwo(release) == firstTwo(v.release) && platform == v.platform {
		return nil
	}
	return fmt.Errorf("%w: the backup is of TimesTen %s (%s), and here is %s (%s): ttRestore needs the same first two numbers and platform; between releases ttMigrate goes",
		dbdump.ErrMismatch, release, platform, v.release, v.platform)
}

func firstTwo(release string) string {
	parts := strings.SplitN(release, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}
