package filetree

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no string // names
	}{
		{"*.tmp", "a.tmp var/b.tmp", "a.tmpx tmp"},
		{"cache", "cache var/cache", "caches var/cached"},
		{"/cache", "cache", "var/cache"},
		{"var/cache", "var/cache", "x/var/cache var"},
		{"var/cache/", "var/cache", "x/var/cache"},
		{"var/*/x", "var/a/x", "var/x var/a/b/x"},
		{"var/**/x", "var/x var/a/x var/a/b/x", "x var/a"},
		{"**/x", "x a/x a/b/x", "xx"},
		{"a/**", "a/b a/b/c", "b"},
		{"[a-c]?", "b1 x/c2", "d1 b"},
		{"\\*", "* a/*", "a"},
		{"\xff*", "\xff \xffa", "a"},
	} {
		p, err := ParsePatterns(nil, []string{c.pattern})
		require.NoError(t, err)
		for name := range strings.FieldsSeq(c.yes) {
			require.True(t, p.excludes(name), "%q is for %q", c.pattern, name)
		}
		for name := range strings.FieldsSeq(c.no) {
			require.False(t, p.excludes(name), "%q is not for %q", c.pattern, name)
		}
	}
	for _, bad := range []string{"", "/", "a//b", "..", "a/../b", "./a", "[", "a/[b"} {
		_, err := ParsePatterns([]string{bad}, nil)
		require.ErrorIs(t, err, errPattern, "%q", bad)
	}
	p, err := ParsePatterns([]string{"var/lib"}, []string{"*.tmp"})
	require.NoError(t, err)
	require.True(t, p.chooses("var/lib/a/b"))
	require.False(t, p.chooses("var"))
	require.False(t, p.chooses("var/lib/a.tmp/b"))
	require.False(t, p.chooses("."))
}

// FuzzPattern: no pattern takes long, whatever it and the name are.
func FuzzPattern(f *testing.F) {
	f.Add("**/**/**/**/a", strings.Repeat("b/", 300)+"c")
	f.Add("*a*a*a*a*b", strings.Repeat("a", 200))
	f.Fuzz(func(t *testing.T, text, name string) {
		if len(text) > 200 || len(name) > 1000 {
			return
		}
		p, err := ParsePatterns([]string{text}, []string{text})
		if err != nil {
			require.ErrorIs(t, err, errPattern)
			return
		}
		start := time.Now()
		if p.excludes(name) {
			require.False(t, p.chooses(name))
			require.True(t, p.includes(name))
		}
		require.Less(t, time.Since(start), 10*time.Second)
	})
}
