package xtrabackup

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// logFile holds what the clone's log was, as an archive.
const logFile = "xtrabackup_logfile"

const checkpoints = "xtrabackup_checkpoints"

// packed are the directories of a clone that are its log.
func packed(clone string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	root := os.DirFS(clone)
	err := fs.WalkDir(root, "#innodb_redo", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Mode: 0o640, Size: int64(len(data))})
		}
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	})
	return b.Bytes(), errors.Join(err, w.Close())
}

// prepare makes a copy the files of a server.
func (p *program) prepare() error {
	dir := p.options["target-dir"]
	switch p.lie {
	case "unprepared":
		p.say("xtrabackup: nothing was done")
		return nil
	case "prepare-failed":
		return errors.New("the log cannot be read")
	}
	points, err := os.ReadFile(filepath.Join(dir, checkpoints))
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", checkpoints, err)
	}
	if !strings.Contains(string(points), "backup_type = full-backuped\n") {
		return fmt.Errorf("%s: not a full backup: %s", dir, points)
	}
	if err := unpack(dir); err != nil {
		return err
	}
	points = []byte(strings.Replace(string(points), "full-backuped", "full-prepared", 1))
	if err := os.WriteFile(filepath.Join(dir, checkpoints), points, 0o640); err != nil { //nolint:gosec // as the program does
		return err
	}
	p.say("xtrabackup: starting shutdown with innodb_fast_shutdown = 1\ncompleted OK!")
	return nil
}

func unpack(dir string) error {
	f, err := os.Open(filepath.Clean(filepath.Join(dir, logFile)))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing is written by it
	files := 0
	for r := tar.NewReader(f); ; files++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", logFile, err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("%s: %w", logFile, err)
		}
		if err := root.Mkdir(filepath.Dir(h.Name), 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := root.WriteFile(h.Name, data, 0o640); err != nil {
			return err
		}
	}
	if files == 0 {
		return fmt.Errorf("%s is empty", logFile)
	}
	return nil
}
