package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
)

func text(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks: each link leads to a file that is there, and to a heading that it
// has. There are no links out of the project.
func TestLinks(t *testing.T) {
	seen := 0
	for _, page := range append(pages(t), written...) {
		for _, m := range link.FindAllStringSubmatch(text(t, root+page), -1) {
			seen++
			file, anchor, _ := strings.Cut(m[1], "#")
			if !assert.NotContains(t, file, "://", page) {
				continue
			}
			target := root + page
			if file != "" {
				target = filepath.Join(filepath.Dir(root+page), file)
			}
			_, err := os.Stat(target)
			if assert.NoError(t, err, "%s links to %s", page, m[1]) && anchor != "" {
				assert.Contains(t, anchors(t, target), anchor, "%s links to %s", page, m[1])
			}
		}
	}
	require.Greater(t, seen, 40)
}

// anchors are the names of a page's headings, as the usual viewers make them.
func anchors(t *testing.T, path string) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(text(t, path)) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		name := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		name = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(name, "")
		list = append(list, strings.ReplaceAll(name, " ", "-"))
	}
	return list
}

var path = regexp.MustCompile("`((?:deploy|docs|test|internal|cmd|hack)/[A-Za-z0-9_./-]+)`")

// TestNamedFiles: files and folders of the project that a page names are there.
func TestNamedFiles(t *testing.T) {
	seen := 0
	for _, page := range append(pages(t), written...) {
		for _, m := range path.FindAllStringSubmatch(text(t, root+page), -1) {
			seen++
			_, err := os.Stat(root + m[1])
			assert.NoError(t, err, "%s names %s", page, m[1])
		}
	}
	require.Greater(t, seen, 5)
}

// known are the variables of the programs: those of docs/commands, which the
// programs write, and those without a flag.
func known(t *testing.T) []string {
	t.Helper()
	list := cli.KnownVariables(cli.NewRoot(&cli.App{Name: "backup"}, "", ""))
	for _, page := range written {
		list = append(list, variable.FindAllString(text(t, root+page), -1)...)
	}
	return list
}

var variable = regexp.MustCompile(`\bKEEPSET_[A-Z0-9_]*[A-Z0-9]\b`)

// TestVariables: the programs read every variable that a page or the YAML of
// deploy/ names. They leave unknown ones alone, so that a misspelt one would
// be a setting that is silently not made.
func TestVariables(t *testing.T) {
	files := pages(t)
	require.NoError(t, filepath.WalkDir(root+"deploy", func(path string, e os.DirEntry, err error) error {
		require.NoError(t, err)
		if !e.IsDir() {
			files = append(files, strings.TrimPrefix(path, root))
		}
		return nil
	}))
	names := known(t)
	seen := 0
	for _, file := range files {
		for _, name := range variable.FindAllString(text(t, root+file), -1) {
			seen++
			assert.True(t, slices.Contains(names, name), "%s names %s, which no program reads", file, name)
		}
	}
	require.Greater(t, seen, 60)
}

// foreign are flags of other programs that pages speak of.
var foreign = []string{"--event-scheduler", "--force", "--help", "--lock-ddl", "--persisted-globals-load", "--skip-replica-start", "--skip-slave-start"}

var flag = regexp.MustCompile("`(--[a-z0-9-]+)(?:[ =][^`]*)?`")

// TestFlags: a flag that a page speaks of is one of ours.
func TestFlags(t *testing.T) {
	ours := text(t, root+written[0]) + text(t, root+written[1])
	seen := 0
	for _, page := range pages(t) {
		for _, m := range flag.FindAllStringSubmatch(text(t, root+page), -1) {
			seen++
			if !slices.Contains(foreign, m[1]) {
				known := strings.Contains(ours, "`"+m[1]+"`") || strings.Contains(ours, ", "+m[1]+"`") // one with a short form
				assert.True(t, known, "%s speaks of %s", page, m[1])
			}
		}
	}
	require.Greater(t, seen, 30)
}

// TestTargets: make has every target that a page speaks of.
func TestTargets(t *testing.T) {
	rules := text(t, root+"Makefile") + text(t, root+"test/cluster/cluster.mk")
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z-]+)").FindAllStringSubmatch(text(t, root+page), -1) {
			assert.Regexp(t, `(?m)^`+m[1]+`:`, rules, "%s speaks of make %s", page, m[1])
		}
	}
}

// TestAccountOfInstall: the account that docs/install.md makes is the one that
// docs/mysql.md explains and that the engine's tests create.
func TestAccountOfInstall(t *testing.T) {
	assert.Equal(t, heading(t, "Backup account on MariaDB"), read(t, "docs/install.md").In("sql"))
}
