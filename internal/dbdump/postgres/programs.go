package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"

	"keepset/internal/dbdump"
)

// Program is one run of one of PostgreSQL's client programs.
type Program struct {
	// Name is pg_dump or pg_dumpall.
	Name string
	// Major is the server's version, 15 for example: that of the program that is wanted.
	Major int
	// Args are what it is asked for. Where the server is comes from Server.
	Args []string
	// Server is the server to connect to; zero where no connection is made.
	Server ProgramServer
	// Stdout and Stderr take what it writes.
	Stdout, Stderr io.Writer
}

// ProgramServer is a server as libpq wants to be told of it. The password is
// never put on a command line.
type ProgramServer struct {
	Host, Port, User, Password, Database string
	TLS                                  TLS
}

// Programs runs PostgreSQL's client programs.
type Programs interface {
	// Run runs a program. Nil means that it ended with status 0 and that all it
	// wrote has been given to Stdout. The end of a connection to it is not the
	// end of the program, but an error.
	Run(ctx context.Context, p Program) error
}

// connection is the argument that says where the server is: a conninfo string,
// so that no name can be mistaken for an option or a URL.
func (s ProgramServer) connection() string {
	var b strings.Builder
	for _, p := range [][2]string{{"host", s.Host}, {"port", s.Port}, {"user", s.User}, {"dbname", s.Database}} {
		fmt.Fprintf(&b, "%s='%s' ", p[0], strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p[1]))
	}
	return "--dbname=" + strings.TrimSpace(b.String())
}

// command is the program's words.
func (p Program) command() []string {
	words := append([]string{p.Name}, p.Args...)
	if p.Server != (ProgramServer{}) {
		words = append(words, "--no-password", p.Server.connection())
	}
	return words
}

// errTruncated: a program ended well and did not say that it was done.
var errTruncated = errors.New("its output ends without the line with which it says that it is complete")

// output runs a program and reads what it writes as it comes. The reader ends
// with io.EOF only when the program ended with status 0; its failure is the
// reader's error. Closing the reader ends the program and waits for it.
func (e *Engine) output(ctx context.Context, p Program) *programOutput {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	o := &programOutput{PipeReader: r, cancel: cancel, done: make(chan struct{})}
	p.Stdout, p.Stderr = w, &o.words
	go func() {
		defer close(o.done)
		err := e.opts.Programs.Run(ctx, p)
		if err != nil {
			err = fmt.Errorf("run %s: %w", p.Name, err)
			if words := o.words.String(); words != "" {
				err = fmt.Errorf("%w; it said: %s", err, words)
			}
		}
		w.CloseWithError(err) // nil is io.EOF
	}()
	return o
}

type programOutput struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
	words  dbdump.LastWords
}

// Close implements io.Closer.
func (o *programOutput) Close() error {
	o.cancel()
	err := o.PipeReader.Close()
	<-o.done
	return err
}

// serverFor is the server for a program that connects to a database.
func (e *Engine) serverFor(database string) ProgramServer {
	host, port, _ := net.SplitHostPort(e.opts.Address) // checked in New
	return ProgramServer{Host: host, Port: port, User: e.opts.User, Password: e.opts.Password, Database: database, TLS: e.opts.TLS}
}

// checkProgram asks a program for its version, which has to be the server's: a
// later pg_dump writes what the server does not understand, an earlier one
// refuses it.
func (e *Engine) checkProgram(ctx context.Context, name string, major int) error {
	out := e.output(ctx, Program{Name: name, Major: major, Args: []string{"--version"}})
	text, err := io.ReadAll(io.LimitReader(out, 4<<10))
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	found, err := parseProgramVersion(string(text))
	if err != nil {
		return fmt.Errorf("run %s --version: %w", name, err)
	}
	if found != major {
		return fmt.Errorf("the server is PostgreSQL %d and the %s that was found is of version %d: they have to be of the same major version", major, name, found)
	}
	return nil
}

var programVersion = regexp.MustCompile(`^\w+ \(PostgreSQL\) ([0-9]{1,3})(\D|$)`)

// parseProgramVersion reads the major version out of what --version says.
func parseProgramVersion(text string) (int, error) {
	m := programVersion.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("not a version of PostgreSQL: %q", shortened(text))
	}
	return strconv.Atoi(m[1])
}
