// Command gotest runs `go test` with the arguments that it is given and tells what matters: a line for each package,
// everything that a failed test wrote, the figures that tests measured, and at the end how many tests ran and what failed: tests,
// and packages that ended by themselves, without one that did, with the first lines of what they wrote.
//
// A figure is a line that a test logs beginning with "measured:"; it is shown when the test passes, too. Tests that take
// long are named with their times.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// event is one line of `go test -json`, as `go doc test2json` describes it.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	// Interrupted, go test is told so, and its tests get the time to clean up.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s := summary{logs: map[string][]string{}, own: map[string][]string{}}
	readErr := s.read(out)
	waitErr := cmd.Wait()
	for _, f := range s.failures {
		fmt.Println("--- FAIL:", f)
	}
	fmt.Printf("%d tests passed, %d failed, %d skipped, in %d packages\n", s.passed, s.failed, s.skipped, s.packages)
	if s.skipped > 0 {
		waitErr = errors.Join(waitErr, errors.New("tests were skipped: a test says what it lacks and fails"))
	}
	return errors.Join(readErr, waitErr)
}

// ownLines are how many lines of a package that failed are shown once more at the end.
const ownLines = 40

// slow is how many seconds make a test worth naming.
const slow = 20

// summary collects the events of a run.
type summary struct {
	passed, failed, skipped, packages int
	logs                              map[string][]string // what each unfinished test wrote, by package and name
	own                               map[string][]string // what each package wrote outside of its tests
	failures                          []string
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				s.add(e)
			} else {
				fmt.Print(string(line)) // not every message of the go command is JSON
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the output of go test: %w", err)
		}
	}
}

func (s *summary) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		s.output(key, e)
	case "build-output":
		fmt.Print(e.Output)
	case "pass", "fail", "skip":
		s.end(key, e)
	}
}

// output keeps what a test wrote until it has ended, and shows the lines of packages and the figures at once.
func (s *summary) output(key string, e event) {
	if e.Test == "" {
		if e.Output != "PASS\n" && !strings.HasPrefix(e.Output, "coverage:") {
			fmt.Print(e.Output)
		}
		if lines := s.own[e.Package]; len(lines) < ownLines {
			s.own[e.Package] = append(lines, e.Output)
		}
		return
	}
	if _, figure, found := strings.Cut(e.Output, "measured:"); found {
		fmt.Printf("    %s: %s\n", e.Test, strings.TrimSpace(figure))
	}
	s.logs[key] = append(s.logs[key], e.Output)
}

// unfinished shows what the tests wrote whose end a package did not live to see, for example since it took too long, and
// returns their names.
func (s *summary) unfinished(pkg string) (names string) {
	for _, key := range slices.Sorted(maps.Keys(s.logs)) {
		if test, found := strings.CutPrefix(key, pkg+" "); found {
			fmt.Printf("not ended: %s\n%s", key, strings.Join(s.logs[key], ""))
			names += ", not ended: " + test
			delete(s.logs, key)
		}
	}
	return names
}

func (s *summary) end(key string, e event) {
	if e.Test == "" {
		if e.Action != "skip" { // a package without tests
			s.packages++
		}
		if e.Action == "fail" && !slices.ContainsFunc(s.failures, func(f string) bool { return strings.HasPrefix(f, e.Package+" ") }) {
			s.failed++
			s.failures = append(s.failures, e.Package+" itself"+s.unfinished(e.Package)+"\n"+strings.Join(s.own[e.Package], ""))
		}
		return
	}
	switch e.Action {
	case "pass":
		s.passed++
		if e.Elapsed >= slow && !strings.Contains(e.Test, "/") {
			fmt.Printf("    %s: took %.0f s\n", e.Test, e.Elapsed)
		}
	case "skip":
		s.skipped++
		fmt.Printf("skipped: %s %s\n", e.Package, e.Test)
	case "fail":
		s.failed++
		s.failures = append(s.failures, key)
		fmt.Printf("failed: %s %s\n%s", e.Package, e.Test, strings.Join(s.logs[key], ""))
	}
	delete(s.logs, key)
}
