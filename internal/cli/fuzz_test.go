package cli

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

// A server's URL is understood as a whole or refused, and a refusal never
// repeats what may be a password.
func FuzzServerURL(f *testing.F) {
	for _, s := range []string{
		"mysql://root@db:3307/", "mysql://db", "mysql://a%40b@[::1]:33", "mysql://u@h:0", "mysql://u@h:99999", "mysql://u@h#fragment", "mysql://u@h?",
		"mysql:u:hunter2@h", "u:hunter2@h:3306", "mysql://u@h/?password=hunter2", "mysql:///u:hunter2@h", "mysql://u@h%0a", "mysql://u@h:", "mysql://h/u:hunter2@x", "postgres://u@h", "postgres://u:hunter2@h",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		flags := ServerFlags{side: "source", User: "backup"}
		s, err := flags.ParseServerURL("source", raw)
		if err != nil {
			require.Equal(t, ExitUsage, ExitCode(err))
			require.Zero(t, s)
			require.ErrorContains(t, err, "--source")
			if strings.Contains(raw, ":hunter2@") || strings.Contains(raw, "?password=hunter2") {
				require.NotContains(t, err.Error(), ":hunter2@")
				require.NotContains(t, err.Error(), "=hunter2")
			}
			return
		}
		require.Contains(t, Engines(), s.Engine)
		require.NotEmpty(t, s.User)
		host, port, err := net.SplitHostPort(s.Address)
		require.NoError(t, err)
		require.NotEmpty(t, host)
		n, err := strconv.Atoi(port)
		require.NoError(t, err)
		require.True(t, n > 0 && n < 1<<16, "port %s", port)
		require.NotContains(t, raw, "#")
		require.NotContains(t, raw, "?")
	})
}

// host:port that was understood means the same when it is written down again.
func FuzzSplitHostPort(f *testing.F) {
	for _, s := range []string{"db:3307", "db", "[::1]:3307", "::1", "[::1]", "[]", "a]b", "[fe80::1%eth0]:1", "db:+1", ":1", "a b", "db:03306", "1:2:3", "h/x:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		host, port, err := SplitHostPort("as-follower-of", text, 3306)
		if err != nil {
			require.Equal(t, ExitUsage, ExitCode(err))
			require.ErrorContains(t, err, "--as-follower-of")
			return
		}
		require.NotEmpty(t, host)
		require.True(t, port > 0 && port < 1<<16)
		require.False(t, strings.ContainsAny(host, "[]/ \t\n@"), "%q", host)
		if strings.Contains(host, ":") {
			address, _, _ := strings.Cut(host, "%")
			require.NotNil(t, net.ParseIP(address), "%q", host)
		}
		again, samePort, err := SplitHostPort("x", net.JoinHostPort(host, strconv.Itoa(port)), 1)
		require.NoError(t, err)
		require.Equal(t, host, again)
		require.Equal(t, port, samePort)
	})
}

// A cgroup's limit is a positive number of bytes or none.
func FuzzMemoryLimit(f *testing.F) {
	for _, s := range []string{"268435456\n", "max\n", "9223372036854771712", "-1", "0x10", "1_000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, ok := parseMemoryLimit(text)
		require.Equal(t, ok, n > 0)
		if ok {
			again, ok := parseMemoryLimit(strconv.FormatInt(n, 10) + "\n")
			require.True(t, ok)
			require.Equal(t, n, again)
		}
	})
}

// Whatever a server says ends up as one line of at most 4096 bytes of text.
func FuzzTerminationMessage(f *testing.F) {
	f.Add("one\r\ntwo\n\nthree")
	f.Add("x" + strings.Repeat("é", 3000))
	f.Add("\xff\xfe\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "log")
		a, _ := app("TERMINATION_LOG=" + path)
		a.writeTermination(errors.New(text))
		content, err := os.ReadFile(path)
		if oneLine(text) == "" {
			require.ErrorIs(t, err, os.ErrNotExist)
			return
		}
		require.NoError(t, err)
		require.LessOrEqual(t, len(content), terminationLimit)
		require.False(t, strings.ContainsAny(string(content), "\r\n"))
		require.True(t, utf8.Valid(content) || !utf8.ValidString(text), "a letter was cut in half")
	})
}

// A secret file gives what is in it, less one line's end.
func FuzzSecret(f *testing.F) {
	f.Add([]byte("pass word \n"))
	f.Add([]byte("x\r\n"))
	f.Add([]byte("\n\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		file := filepath.Join(t.TempDir(), "password")
		require.NoError(t, os.WriteFile(file, content, 0o600))
		a, _ := app()
		s, err := a.Secret(file, "KEEPSET_SOURCE_PASSWORD")
		if err != nil {
			require.Equal(t, ExitUsage, ExitCode(err))
			require.Contains(t, []string{"", "\n", "\r\n", "\r"}, string(content))
			return
		}
		require.NotEmpty(t, s)
		require.Contains(t, []string{s, s + "\n", s + "\r\n", s + "\r"}, string(content))
	})
}

// A source or target on this machine is its name or refused.
func FuzzLocal(f *testing.F) {
	for _, s := range []string{"local", "local:db0", "local:", "local:a b", "mysql://u@h", "local:local", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := parseLocal("source", text)
		if err != nil {
			require.Equal(t, ExitUsage, ExitCode(err))
			require.ErrorContains(t, err, "--source")
			return
		}
		require.NotEmpty(t, name)
		require.Contains(t, []string{name, "local:" + name}, text)
		require.NotContains(t, name, "\n")
	})
}

// A set's name is [namespace/]name, and what was understood agrees with what
// was written.
func FuzzSet(f *testing.F) {
	f.Add("shop/mysql", "")
	f.Add("mysql", "shop")
	f.Add("a/b/c", "")
	f.Add("/x", "")
	f.Add("_/x", "_")
	f.Fuzz(func(t *testing.T, text, namespace string) {
		ns, name, err := (&SetFlags{Name: text, Namespace: namespace}).split()
		if err != nil {
			require.Equal(t, ExitUsage, ExitCode(err))
			require.ErrorContains(t, err, "--set")
			return
		}
		if ns == "" {
			require.Equal(t, text, name)
			return
		}
		require.Contains(t, []string{ns + "/" + name, name}, text)
		require.True(t, namespace == "" || namespace == ns)
		require.NoError(t, record.SetID{Namespace: ns, Name: name}.Validate())
	})
}

// A renaming says of each database once what becomes of it.
func FuzzRename(f *testing.F) {
	f.Add("a=b", "c=d")
	f.Add("a=b", "a=c")
	f.Add("a", "=b")
	f.Add("a=", "a=b=c")
	f.Fuzz(func(t *testing.T, one, two string) {
		o, err := (&LoadFlags{Rename: []string{one, two}}).options(false)
		if err != nil {
			require.Equal(t, ExitUsage, ExitCode(err))
			require.ErrorContains(t, err, "--rename")
			return
		}
		want := map[string]bool{one: true, two: true}
		require.Len(t, o.Rename, len(want))
		for from, to := range o.Rename {
			require.True(t, from != "" && to != "" && want[from+"="+to])
		}
	})
}

// The distance by which misspelt variables are found is one: equal names have
// none, both ways are as far, and no detour is shorter.
func FuzzEditDistance(f *testing.F) {
	f.Add("KEEPSET_SET", "KEEPSET_SETS", "KEPSET_SET")
	f.Add("", "a", "é")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if len(a)+len(b)+len(c) > 1000 {
			return
		}
		d := editDistance(a, b)
		require.Equal(t, a == b, d == 0)
		require.Equal(t, d, editDistance(b, a))
		require.LessOrEqual(t, d, max(len(a), len(b)))
		require.LessOrEqual(t, d, editDistance(a, c)+editDistance(c, b))
	})
}

// FuzzDirectoryURL: a directory is an absolute path in its shortest form.
func FuzzDirectoryURL(f *testing.F) {
	for _, s := range []string{"file:///srv", "file:///", "file://host/dir", "file:/srv", "file:///a/../b/", "/srv", "file:///%41"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		dir, err := parseDirectoryURL("source", raw)
		if err != nil {
			require.True(t, isUsage(err))
			return
		}
		require.True(t, filepath.IsAbs(dir))
		require.Equal(t, filepath.Clean(dir), dir)
		again, err := parseDirectoryURL("source", "file://"+dir)
		require.NoError(t, err)
		require.Equal(t, dir, again)
	})
}

// Where tablespaces go is understood as a whole or refused, and every place is one
// from the root.
func FuzzTablespaces(f *testing.F) {
	for _, s := range []string{"/old=/new", "/old=/new=/seen", "/a=/b\n/c=/d", "/a=/b\n/a=/c", "old=/new", "/old=", "/old", "=", "/a=/b=/c=/d", "", "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		spaces, err := parseTablespaces([]string{text}, 3)
		if err != nil {
			require.Equal(t, ExitUsage, ExitCode(err))
			require.ErrorContains(t, err, "--tablespace")
			return
		}
		var lines []string
		for was, now := range spaces {
			require.True(t, len(now) == 1 || len(now) == 2)
			line := was + "=" + strings.Join(now, "=")
			require.Contains(t, "\n"+text+"\n", "\n"+line+"\n")
			lines = append(lines, line)
		}
		again, err := parseTablespaces(lines, 3)
		require.NoError(t, err)
		require.Equal(t, spaces, again)
	})
}
