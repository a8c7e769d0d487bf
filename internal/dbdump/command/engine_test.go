package command_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
)

// engine runs a line of the shell here.
func engine(t *testing.T, line string, change ...func(*command.Options)) *command.Engine {
	t.Helper()
	argv, err := command.ParseLine(line)
	require.NoError(t, err)
	o := command.Options{Exec: command.Local(os.Environ()), Program: argv, Clock: time.Now}
	for _, c := range change {
		c(&o)
	}
	e, err := command.New(o)
	require.NoError(t, err)
	return e
}

// dump returns what was stored, nil when the dump failed.
func dump(t *testing.T, e *command.Engine) (string, record.Report, error) {
	t.Helper()
	m := dbdumptest.NewMemory()
	report, err := e.Dump(t.Context(), m)
	require.Empty(t, m.Open())
	if err != nil {
		return "", report, err
	}
	require.Equal(t, []string{command.Output}, m.Names())
	return string(m.Bytes(command.Output)), report, nil
}

func unmarked(o *command.Options) { o.Unmarked = true }

// TestOutputIsStoredExactly: the end mark is taken off again, whatever the
// output is like, and nothing else.
func TestOutputIsStoredExactly(t *testing.T) {
	long := strings.Repeat("\x00\xff\n%s%d\\", 50000)
	file := filepath.Join(t.TempDir(), "f")
	for name, content := range map[string]string{"one byte": "x", "no newline": "abc", "shorter than a mark": "0123456789\n", "long": long} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
			for _, change := range []func(*command.Options){func(*command.Options) {}, unmarked} {
				got, report, err := dump(t, engine(t, "cat "+file, change))
				require.NoError(t, err)
				require.True(t, content == got, "%d bytes for %d", len(got), len(content))
				require.Equal(t, int64(len(content)), report.Bytes)
			}
		})
	}
}

// TestDumpFails: each of these has full or half an output, and is no backup.
func TestDumpFails(t *testing.T) {
	ends := func(expression string) func(*command.Options) {
		return func(o *command.Options) { o.Proof.EndsWith = regexp.MustCompile(expression) }
	}
	none := func(*command.Options) {}
	for _, c := range []struct {
		name, line, want string
		change           func(*command.Options)
	}{
		{"non-zero after full output", "echo row; echo end; echo disk is full >&2; exit 3", "(status 3|exit status 3).*it said: disk is full", none},
		{"zero after half", "echo row; exit 0", `does not end with .end\\\\n`, ends(`end\n\z`)},
		{"zero after half, by size", "echo row", "after 4 bytes, and at least 5", func(o *command.Options) { o.Proof.MinBytes = 5 }},
		{"zero after half, by a check", "echo row", "check command: .*status 9.*it said: 1 of 2 rows", func(o *command.Options) {
			o.Proof.Check = []string{"sh", "-c", "echo 1 of 2 rows; exit 9"}
		}},
		{"nothing", "echo to the wrong place >&2", "printed nothing.*it said: to the wrong place", none},
		{"a signal", "echo row; kill -KILL $$", "137", none},
		{"the shell around it is killed", "echo row; kill -KILL $PPID; exec cat /dev/zero", "signal: killed", none},
		{"something writes behind it", "echo row; (sleep 0.3; echo more) & exit 0", "without the end mark", none},
		{"no such program", "exec /nowhere/program", "127", none},
		{"it hangs", "echo row; exec sleep 60", "neither read nor wrote anything for 1s", func(o *command.Options) { o.Silence = time.Second }},
		{"it takes too long", "while echo row; do :; done", "had not ended after 500ms", func(o *command.Options) { o.Timeout = 500 * time.Millisecond }},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := dump(t, engine(t, c.line, c.change))
			require.Error(t, err)
			require.Regexp(t, c.want, err.Error())
		})
	}
}

// TestCheckPasses: a proof that holds is no hindrance.
func TestCheckPasses(t *testing.T) {
	asked := 0
	got, _, err := dump(t, engine(t, "echo row; echo end", func(o *command.Options) {
		o.Proof = command.Proof{EndsWith: regexp.MustCompile(`end\n\z`), MinBytes: 8, Check: []string{"sh", "-c", "exit 0"}, Ask: func(context.Context) error {
			asked++
			return nil
		}}
	}))
	require.NoError(t, err)
	require.Equal(t, "row\nend\n", got)
	require.Equal(t, 1, asked)
}

// TestTailIsBounded: a program that talks a lot does not fill the memory, and
// its last words are those that are repeated.
func TestTailIsBounded(t *testing.T) {
	_, _, err := dump(t, engine(t, "yes 'nonsense' | head -c 1000000 >&2; echo at last >&2; exit 1"))
	require.Error(t, err)
	require.Less(t, len(err.Error()), 3000)
	require.True(t, strings.HasSuffix(err.Error(), "at last"), err)
}

// source is a backup of these bytes.
func source(t *testing.T, content string) *dbdumptest.Source {
	t.Helper()
	m := dbdumptest.NewMemory()
	stream, err := m.Create(t.Context(), command.Output, dbdump.StreamOptions{})
	require.NoError(t, err)
	_, err = io.WriteString(stream, content)
	require.NoError(t, err)
	require.NoError(t, stream.Close())
	return m.Source(record.Report{Engine: command.Name, Layout: command.Layout, Bytes: int64(len(content)), Objects: []record.Object{
		{Kind: record.KindStream, Name: command.Output, Data: []string{command.Output}, Rows: -1},
	}})
}

// TestLoad: the program gets the bytes, and its end decides.
func TestLoad(t *testing.T) {
	content := strings.Repeat("\x00row\xff\n", 100000)
	file := filepath.Join(t.TempDir(), "f")
	for name, change := range map[string]func(*command.Options){"marked": func(*command.Options) {}, "unmarked": unmarked} {
		t.Run(name, func(t *testing.T) {
			_, err := engine(t, "cat >"+file, change).Load(t.Context(), source(t, content))
			require.NoError(t, err)
			got, err := os.ReadFile(file)
			require.NoError(t, err)
			require.True(t, content == string(got))

			_, err = engine(t, "cat >/dev/null; echo no room; exit 4", change).Load(t.Context(), source(t, content))
			require.ErrorContains(t, err, "status 4")
			require.ErrorContains(t, err, "it said: no room")
			_, err = engine(t, "head -c 10 >/dev/null", change).Load(t.Context(), source(t, content))
			require.ErrorContains(t, err, "before it had read the whole backup")
			_, err = engine(t, "head -c 10 >/dev/null; exit 5", change).Load(t.Context(), source(t, content))
			require.ErrorContains(t, err, "status 5")
		})
	}
	_, err := engine(t, "cat >/dev/null", func(o *command.Options) { o.Proof.Check = []string{"false"} }).Load(t.Context(), source(t, content))
	require.ErrorContains(t, err, "check command")
}

// TestLoadNeverEndsEarly: a program that takes the end of its input for the end
// of the data does not get to see it, nor do its children.
func TestLoadNeverEndsEarly(t *testing.T) {
	content := strings.Repeat("row\n", 100000)
	broken := errors.New("broken")
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"error": func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, 200000), iotest.ErrReader(broken))
		},
		"clean end":  func(r io.Reader) io.Reader { return io.LimitReader(r, 200000) },
		"at the end": func(r io.Reader) io.Reader { return io.MultiReader(r, iotest.ErrReader(broken)) },
	} {
		for form, change := range map[string]func(*command.Options){"marked": func(*command.Options) {}, "unmarked": unmarked} {
			t.Run(name+"/"+form, func(t *testing.T) {
				committed := filepath.Join(t.TempDir(), "committed")
				s := source(t, content)
				s.Wrap = func(_ string, r io.Reader) io.Reader { return wrap(r) }
				_, err := engine(t, "cat | cat >/dev/null; touch "+committed, change).Load(t.Context(), s)
				require.Error(t, err)
				if name == "clean end" {
					require.ErrorIs(t, err, dbdump.ErrMismatch)
				} else {
					require.ErrorIs(t, err, broken)
				}
				require.NoFileExists(t, committed)
			})
		}
	}
}

// TestInputCutInTheContainer: the connection is gone, and nobody here can end
// the program. The shell around it does, which counts.
func TestInputCutInTheContainer(t *testing.T) {
	committed := filepath.Join(t.TempDir(), "committed")
	for _, n := range []int64{0, 1, 200000, 399999} {
		cut := func(o *command.Options) {
			run := o.Exec
			o.Exec = func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
				return run(ctx, argv, io.LimitReader(stdin, n), stdout, stderr)
			}
		}
		_, err := engine(t, "cat | cat >/dev/null; touch "+committed, cut).Load(t.Context(), source(t, strings.Repeat("row\n", 100000)))
		require.ErrorContains(t, err, "killed")
		require.NoFileExists(t, committed)
	}
}

// TestInputWithoutAProcessGroup: crun makes none for what it executes, so the
// shell makes one; and an input that is cut off ends the program, and not what
// runs beside it in the group that it came from.
func TestInputWithoutAProcessGroup(t *testing.T) {
	in := func(n int64) func(*command.Options) {
		return func(o *command.Options) {
			o.Exec = func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
				cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) // in the tests' own group
				cmd.Stdin, cmd.Stdout, cmd.Stderr = io.LimitReader(stdin, n), stdout, stderr
				return cmd.Run()
			}
		}
	}
	content := strings.Repeat("row\n", 100000)
	got := filepath.Join(t.TempDir(), "got")
	_, err := engine(t, "cat >"+got, in(1<<30)).Load(t.Context(), source(t, content))
	require.NoError(t, err)
	text, err := os.ReadFile(got)
	require.NoError(t, err)
	require.Equal(t, content, string(text))

	committed := filepath.Join(t.TempDir(), "committed")
	_, err = engine(t, "cat >/dev/null; touch "+committed, in(200000)).Load(t.Context(), source(t, content))
	require.ErrorContains(t, err, "killed")
	require.NoFileExists(t, committed)
}

// TestLoadRefusesOtherLayouts: a dump of rows is not for a command.
func TestLoadRefusesOtherLayouts(t *testing.T) {
	s := dbdumptest.NewMemory().Source(record.Report{Engine: "mysql", Layout: "mysql/1"})
	_, err := engine(t, "cat").Load(t.Context(), s)
	require.ErrorIs(t, err, dbdump.ErrForeign)
	require.ErrorContains(t, err, "load it with --engine mysql")
}

// TestLies: what a connection that is cut looks like from here: no error, and
// half the output.
func TestLies(t *testing.T) {
	lying := func(output string) func(*command.Options) {
		return func(o *command.Options) {
			o.Exec = func(_ context.Context, argv []string, _ io.Reader, stdout, _ io.Writer) error {
				_, err := io.Copy(stdout, bytes.NewBufferString(strings.ReplaceAll(output, "NONCE", argv[slices.Index(argv, command.Name)+1])))
				return err
			}
		}
	}
	for name, output := range map[string]string{
		"half": "row 1\nrow", "nothing": "", "cut within the mark": "row\nNONCE00", "another's mark": "row\n0123456789abcdef0123456789abcdef000w",
		"no status": "row\nNONCE   w", "status of three letters": "row\nNONCE+00w", "not fed": "row\nNONCE000x", "behind the mark": "row\nNONCE000w\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := dump(t, engine(t, "unused", lying(output)))
			require.ErrorContains(t, err, "without the end mark")
		})
	}
	_, _, err := dump(t, engine(t, "unused", lying("row\nNONCE001w")))
	require.ErrorContains(t, err, "status 1")
	got, _, err := dump(t, engine(t, "unused", lying("row\nNONCE000w")))
	require.NoError(t, err)
	require.Equal(t, "row\n", got)
	_, err = engine(t, "unused", lying("NONCE000w")).Load(t.Context(), source(t, "row\n"))
	require.ErrorContains(t, err, "before it had read the whole backup", "nobody has read it")
}

// TestNoShell: the remedy is named where there is no shell, and nowhere else.
func TestNoShell(t *testing.T) {
	failing := func(text, output string) func(*command.Options) {
		return func(o *command.Options) {
			o.Exec = func(_ context.Context, _ []string, _ io.Reader, stdout, _ io.Writer) error {
				_, err := io.WriteString(stdout, output)
				return errors.Join(errors.New(text), err)
			}
		}
	}
	const remedy = "is there no sh in the container?"
	for _, text := range []string{`exec: "sh": executable file not found in $PATH`, "ended with exit code 127", "ended with exit code 128"} {
		_, _, err := dump(t, engine(t, "unused", failing(text, "")))
		require.ErrorContains(t, err, remedy)
		_, _, err = dump(t, engine(t, "unused", failing(text, "row\n")))
		require.ErrorContains(t, err, text)
		require.NotContains(t, err.Error(), remedy, "it has printed something")
	}
	_, _, err := dump(t, engine(t, "unused", failing("ended with exit code 1", "")))
	require.NotContains(t, err.Error(), remedy)
}
