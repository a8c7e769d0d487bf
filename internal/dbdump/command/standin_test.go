package command_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain makes the test's own binary the database's client program as well.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "database-client" {
		if err := client(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "client:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// clientProgram is the client as a command: what is dump or load.
func clientProgram(t *testing.T, what, socket string) []string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return []string{self, "database-client", what, socket}
}

// client dumps or loads over the database's socket. As many programs do, it
// takes the end of its input for the end of the data, and commits.
func client(what, socket string) (err error) {
	conn, err := new(net.Dialer).DialContext(context.Background(), "unix", socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := fmt.Fprintln(conn, what, os.Getenv("DATABASE_ACCOUNT")); err != nil {
		return err
	}
	answer := bufio.NewReader(conn)
	if what == "load" {
		if line, err := answer.ReadString('\n'); err != nil || line != "go\n" {
			return fmt.Errorf("refused: %s (%w)", strings.TrimSpace(line), err)
		}
		if _, err := io.Copy(conn, os.Stdin); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, "commit\n"); err != nil {
			return err
		}
		if line, err := answer.ReadString('\n'); err != nil || line != "done\n" {
			return fmt.Errorf("not committed: %s (%w)", line, err)
		}
		return nil
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<16)
	for {
		line, err := answer.ReadString('\n')
		switch {
		case err != nil:
			return fmt.Errorf("the server has gone: %w", err)
		case line == "end\n":
			return out.Flush()
		}
		if strings.HasPrefix(line, "refused") {
			return errors.New(strings.TrimSpace(line))
		}
		if _, err := out.WriteString(line); err != nil {
			return err
		}
	}
}

// database is a server of rows, on a socket.
type database struct {
	socket   string
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	rows  []string
	conns []net.Conn
}

func startDatabase(t *testing.T) *database {
	t.Helper()
	dir, err := os.MkdirTemp("", "db") //nolint:usetesting // t.TempDir is too long for a socket
	require.NoError(t, err)
	d := &database{socket: filepath.Join(dir, "s")}
	d.listener, err = new(net.ListenConfig).Listen(t.Context(), "unix", d.socket)
	require.NoError(t, err)
	d.wg.Go(d.serve)
	t.Cleanup(func() {
		d.Kill()
		d.wg.Wait()
		require.NoError(t, os.RemoveAll(dir))
	})
	return d
}

func (d *database) serve() {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.conns = append(d.conns, conn)
		d.mu.Unlock()
		d.wg.Go(func() {
			d.talk(conn)
			_ = conn.Close() // Kill may have closed it
		})
	}
}

// talk serves a client. What goes wrong, the client sees.
func (d *database) talk(conn net.Conn) {
	in := bufio.NewReader(conn)
	what, err := in.ReadString('\n')
	if err != nil {
		return
	}
	d.mu.Lock()
	rows := d.rows
	d.mu.Unlock()
	switch fields := strings.Fields(what); {
	case len(fields) > 1:
		_, _ = fmt.Fprintln(conn, "refused: who are you")
	case fields[0] == "dump":
		_, _ = fmt.Fprintln(conn, "a dump")
		_, _ = io.WriteString(conn, strings.Join(rows, "")+"end\n")
	case len(rows) > 0:
		_, _ = fmt.Fprintln(conn, "refused: the database is not empty")
	default:
		_, _ = fmt.Fprintln(conn, "go")
		d.load(conn, in)
	}
}

func (d *database) load(conn net.Conn, in *bufio.Reader) {
	var rows []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if line == "commit\n" {
			break
		}
		rows = append(rows, line)
	}
	d.mu.Lock()
	d.rows = rows[min(1, len(rows)):]
	d.mu.Unlock()
	_, _ = fmt.Fprintln(conn, "done")
}

// Kill implements dbdumptest.Server.
func (d *database) Kill() {
	_ = d.listener.Close() // it may be closed
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		_ = c.Close()
	}
}

// Fill implements dbdumptest.Server.
func (d *database) Fill(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range 2000 {
		d.rows = append(d.rows, fmt.Sprintf("row %d of the database, \x00\xff, %s\n", i, bytes.Repeat([]byte{byte('a' + i%26)}, i)))
	}
}

// Content implements dbdumptest.Server.
func (d *database) Content(*testing.T) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(slices.Clone(d.rows), "")
}

// Reset implements dbdumptest.Server.
func (d *database) Reset(*testing.T) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows = nil
}
