package postgres

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// TestJudge: a base backup without all of the log that makes it consistent is none,
// whatever its manifest says, and so is one whose manifest speaks of another stretch.
func TestJudge(t *testing.T) {
	const segment = 16 << 20
	usual := func() *copying {
		return &copying{
			system: "7", timeline: 2, segment: segment, start: 3*segment + 40, end: 5*segment + 8,
			segments: map[string]int64{"000000020000000000000003": segment, "000000020000000000000004": segment, "000000020000000000000005": segment},
		}
	}
	said := func() *manifest {
		return &manifest{system: "7", ranges: []walRange{{Timeline: 2, Start: formatLSN(3*segment + 40), End: formatLSN(5*segment + 8)}}}
	}
	require.NoError(t, usual().judge(said(), 0))
	for name, c := range map[string]struct {
		harm func(*copying, *manifest)
		want string
	}{
		"the first file of the log":   {func(c *copying, _ *manifest) { delete(c.segments, "000000020000000000000003") }, "000000020000000000000003 of the log is missing"},
		"one in the middle":           {func(c *copying, _ *manifest) { delete(c.segments, "000000020000000000000004") }, "000000020000000000000004 of the log is missing"},
		"the last":                    {func(c *copying, _ *manifest) { delete(c.segments, "000000020000000000000005") }, "000000020000000000000005 of the log is missing"},
		"half of one":                 {func(c *copying, _ *manifest) { c.segments["000000020000000000000004"] = segment / 2 }, "is missing or cut off"},
		"of another timeline":         {func(_ *copying, m *manifest) { m.ranges[0].Timeline = 1 }, "000000010000000000000003 of the log is missing"},
		"a range that begins later":   {func(_ *copying, m *manifest) { m.ranges[0].Start = formatLSN(4 * segment) }, "it does not have the log from"},
		"one that ends before":        {func(_ *copying, m *manifest) { m.ranges[0].End = formatLSN(5 * segment) }, "it does not have the log from"},
		"one that ends after the end": {func(_ *copying, m *manifest) { m.ranges[0].End = formatLSN(5*segment + 9) }, "in a backup that ends at"},
		"no range":                    {func(_ *copying, m *manifest) { m.ranges = nil }, "it does not have the log from"},
		"another system":              {func(_ *copying, m *manifest) { m.system = "8" }, "it is of the system 8, and the server is 7"},
		"a file that nobody listed":   {func(c *copying, _ *manifest) { c.files = map[string]fileSum{"base/1/2": {}} }, `1 files are not in it, "base/1/2" one of them`},
		"an archive that is missing":  {func(c *copying, _ *manifest) { c.trees = nil }, "0 archives of 1 have come"},
	} {
		t.Run(name, func(t *testing.T) {
			judged, manifest, archives := usual(), said(), 0
			if name == "an archive that is missing" {
				archives = 1
			}
			c.harm(judged, manifest)
			require.ErrorContains(t, judged.judge(manifest, archives), c.want)
		})
	}
	require.ErrorContains(t, usual().judge(nil, 0), "it has no manifest")
}

// TestRestoreLooksForTheManifestsFiles: what is restored is held against the server's
// own list, and where that has another file no server starts on it.
func TestRestoreLooksForTheManifestsFiles(t *testing.T) {
	t.Parallel()
	s := servers.Postgres15(t)
	m := copied(t, options(s))
	good := bytes.Clone(m.streams[manifestStream].Bytes())
	version := regexp.MustCompile(`"Path": "PG_VERSION", "Size": 3`)
	require.True(t, version.Match(good))
	for _, c := range []struct{ put, want string }{
		{`"Path": "PG_VERSION", "Size": 4`, `file "PG_VERSION" has 3 bytes of 4`},
		{`"Path": "PG_VERSION_", "Size": 3`, "PG_VERSION_: no such file"},
	} {
		text := version.ReplaceAll(good, []byte(c.put))
		body := text[:bytes.LastIndexByte(bytes.TrimRight(text, "\n"), '\n')+1]
		m.streams[manifestStream].Reset()
		_, err := fmt.Fprintf(m.streams[manifestStream], "%s\"Manifest-Checksum\": \"%x\"}\n", body, sha256.Sum256(body))
		require.NoError(t, err)
		o := BaseRestore{Path: filepath.Join(t.TempDir(), "data"), Workers: 2, NoOwner: true}
		_, err = o.Restore(t.Context(), m)
		require.ErrorIs(t, err, dbdump.ErrMismatch)
		require.ErrorContains(t, err, c.want)
		require.NoFileExists(t, filepath.Join(o.Path, controlFile))
	}
}
