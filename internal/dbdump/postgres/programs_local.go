package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Local runs the programs of this machine.
type Local struct {
	// Dir is where they are. Empty: where Debian keeps those of the server's
	// version, else the first in PATH.
	Dir string
}

// Run implements Programs.
func (l Local) Run(ctx context.Context, p Program) error {
	path, err := l.find(p)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, p.command()[1:]...)
	// What is set for psql here must not lead to another server.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	cmd.Env = append(cmd.Env, "LC_ALL=C", "PGPASSWORD="+p.Server.Password)
	cmd.Env = append(cmd.Env, p.Server.TLS.environment()...)
	cmd.Stdout, cmd.Stderr = p.Stdout, p.Stderr
	cmd.WaitDelay = 5 * time.Second // then its output is cut off, which is an error
	if err := cmd.Run(); err != nil {
		return errors.Join(context.Cause(ctx), fmt.Errorf("%s: %w", path, err))
	}
	return nil
}

// find returns the program's path.
func (l Local) find(p Program) (string, error) {
	remedy := fmt.Sprintf("install the client programs of PostgreSQL %d (Debian: postgresql-client-%d) here, or name their folder with --postgres-programs", p.Major, p.Major)
	if l.Dir != "" {
		path := filepath.Join(l.Dir, p.Name)
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("find %s: %w; %s", p.Name, err, remedy)
		}
		return path, nil
	}
	path := filepath.Join("/usr/lib/postgresql", strconv.Itoa(p.Major), "bin", p.Name)
	switch _, err := os.Stat(path); {
	case err == nil:
		return path, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("find %s: %w", p.Name, err)
	}
	path, err := exec.LookPath(p.Name)
	if err != nil {
		return "", fmt.Errorf("find %s: %w; %s", p.Name, err, remedy)
	}
	return path, nil
}
