package timesten

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzInstance: an instance has an absolute path and an owner, and a program
// of it is run as that owner.
func FuzzInstance(f *testing.F) {
	for _, s := range []string{
		"uid 0\ninstance 333 oracle /tt/home/oracle/instances/instance1\n", "uid 333\ninstance 333 oracle /tt/home/oracle/instances/a b\n",
		"uid 7\ninstance 333 oracle /x\n", "uid 0\n", "instance 0 root /x\n", "uid 0\ninstance 1 a /x\ninstance 1 a /y\n", "uid 0\ninstance\n", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		in, err := parseInstance(text)
		if err != nil {
			require.Zero(t, in)
			return
		}
		require.True(t, strings.HasPrefix(in.path, "/"))
		require.NotEmpty(t, in.owner)
		argv := in.command("ttVersion")
		require.Equal(t, []string{in.path + "/bin/ttenv", "ttVersion"}, argv[len(argv)-2:])
		if !in.ours {
			require.Equal(t, []string{"runuser", "-u", in.owner, "--"}, argv[:4])
			require.Contains(t, text, "uid 0\n")
		}
	})
}

// FuzzBackupStatus: only a row that says so is of a good backup.
func FuzzBackupStatus(f *testing.F) {
	for _, s := range []string{
		"< 2, 1, 1, 2021-09-13 13:10:32.587557, 2005-08-12 13:10:33.193269, 1, 1531840, 0, 6968 >\n1 row found.\n",
		"< 0, <NULL>, <NULL>, <NULL>, <NULL>, <NULL>, <NULL>, 0, <NULL> >", "< 3, 1, 1, a, b, 1, 1, 611, 1 >", "<>", "< >", "<  >", "", "< 2 >",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, row := range parseRows(text) {
			require.NotEmpty(t, row)
			s, err := parseBackupStatus(row)
			if err != nil {
				require.NotEqual(t, backupColumns, len(row))
				continue
			}
			if s.judge(backupStatus{started: "before"}) == nil {
				require.Equal(t, "2", row[0])
				require.Equal(t, "1", row[1])
				require.Equal(t, "0", row[7])
			}
			require.Error(t, s.judge(s), "a backup is not newer than itself")
		}
	})
}

// FuzzVersion: what is understood of a version fits itself.
func FuzzVersion(f *testing.F) {
	for _, s := range []string{"TimesTen Release 18.1.4.1.0 (64 bit Linux/x86_64) (instance1:6624)", "TimesTen Release 22 (x)", "x", "\nTimesTen Release 1.2 (a) (b)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseVersion(text)
		if err != nil {
			return
		}
		require.Contains(t, text, v.release)
		require.NoError(t, v.fits(v.release, v.platform))
		require.Error(t, v.fits(v.release, v.platform+"x"))
		require.Error(t, v.fits("9"+v.release, v.platform))
	})
}
