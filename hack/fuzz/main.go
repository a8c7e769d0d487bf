// Command fuzz runs every fuzz target of the module for a time each, one after the other, and tells how many inputs each
// has seen. `go test` runs the seeds of the targets alone, and can look for new inputs with one target at a time only.
//
// It fails when a target does, or has not run: what crashed it is written below testdata/fuzz of its package, from where
// every later `go test` takes it.
//
//	go run ./hack/fuzz -time 20s ./...
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	each := flag.Duration("time", 20*time.Second, "how long each target runs")
	flag.Parse()
	patterns := flag.Args()
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	if err := (&fuzz{dir: ".", each: *each, out: os.Stdout}).run(ctx, patterns); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// fuzz runs targets.
type fuzz struct {
	dir  string // of the module
	each time.Duration
	out  io.Writer
}

// target is a function that go test can fuzz.
type target struct{ pkg, name string }

func (f *fuzz) run(ctx context.Context, patterns []string) error {
	targets, err := f.find(ctx, patterns)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fmt.Errorf("no fuzz target in %s", strings.Join(patterns, " "))
	}
	var failed []error
	total := 0
	say := func(format string, args ...any) { fmt.Fprintf(f.out, format, args...) } //nolint:errcheck // nobody to tell
	for _, t := range targets {
		n, err := f.one(ctx, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		total += n
		if err != nil {
			failed = append(failed, fmt.Errorf("%s %s: %w", t.pkg, t.name, err))
			say("%s %s: FAIL: %v\n", t.pkg, t.name, err)
			continue
		}
		say("%s %s: %d executions\n", t.pkg, t.name, n)
	}
	say("%d fuzz targets, %s each: %d executions, %d failed\n", len(targets), f.each, total, len(failed))
	return errors.Join(failed...)
}

// find reads the targets out of the test files: go test -list would have to build them all first.
func (f *fuzz) find(ctx context.Context, patterns []string) ([]target, error) {
	const files = `{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}`
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-f", files}, patterns...)...)
	cmd.Dir, cmd.Stderr = f.dir, os.Stderr
	list, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the packages %s: %w", strings.Join(patterns, " "), err)
	}
	var targets []target
	for line := range strings.Lines(string(list)) {
		pkg, path, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") {
				targets = append(targets, target{pkg, f.Name.Name})
			}
		}
	}
	return targets, nil
}

// one runs a target, and returns how many inputs it was given.
func (f *fuzz) one(ctx context.Context, t target) (int, error) {
	args := []string{"test", "-run", "^$", "-fuzz", "^" + t.name + "$", "-fuzztime", f.each.String(), t.pkg}
	for try := 0; ; try++ {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = f.dir
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		said, err := cmd.CombinedOutput()
		executions := executionsIn(said)
		switch {
		case err == nil && executions == 0:
			return 0, fmt.Errorf("it has not run:\n%s", said)
		case err == nil:
			return executions, nil
		case try == 0 && outOfTime(said):
			continue
		}
		return executions, fmt.Errorf("%w\n%s", err, bytes.TrimSpace(said))
	}
}

var counted = regexp.MustCompile(`(?m)^fuzz: elapsed: .*, execs: (\d+) `)

// executionsIn is the last of the figures that go test gives as it goes.
func executionsIn(said []byte) int {
	all := counted.FindAllSubmatch(said, -1)
	if len(all) == 0 {
		return 0
	}
	n, err := strconv.Atoi(string(all[len(all)-1][1]))
	if err != nil {
		return 0
	}
	return n
}

// outOfTime tells the one failure that is go test's own: when the time is over while a worker starts, it takes the end of
// its own context for a failure of the target (https://go.dev/issue/48591). A target that fails names its input.
func outOfTime(said []byte) bool {
	return bytes.Contains(said, []byte("context deadline exceeded")) && !bytes.Contains(said, []byte("Failing input written"))
}
