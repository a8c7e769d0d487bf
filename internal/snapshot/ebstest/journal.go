package ebstest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// journalSuffix ends the name of the file that holds the checksums of the
// blocks of a snapshot that is being written, one line for each PutSnapshotBlock.
// They are not in the state, which is written whole with every change.
const journalSuffix = ".written"

func (s *Server) journalPath(id string) string {
	return filepath.Join(s.options.Dir, snapshotDir, id+journalSuffix)
}

// journal appends a block. The caller holds s.mu.
func (s *Server) journal(n *snapshot, index int32, sum string) error {
	f, err := os.OpenFile(s.journalPath(n.ID), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("fake ec2: %w", err)
	}
	_, err = fmt.Fprintf(f, "%d %s\n", index, sum)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("fake ec2: %w", err)
	}
	n.Direct.Written[index] = sum
	return nil
}

// readJournal reads what was appended.
func readJournal(path string) (map[int32]string, error) {
	written := map[int32]string{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return written, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fake ec2: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var index int32
		var sum string
		if _, err := fmt.Sscan(lines.Text(), &index, &sum); err == nil { // the last line may be torn
			written[index] = sum
		}
	}
	return written, lines.Err()
}
