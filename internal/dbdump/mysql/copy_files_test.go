package mysql

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/mysql/xbstream"
	"keepset/internal/filetree"
	"keepset/internal/record"
)

// chunk is one message of a stream as mariadb-backup writes it.
func chunk(kind xbstream.Kind, anew bool, name string, offset int, data string) []byte {
	b := append([]byte("XBSTCK01"), 0, byte(kind))
	if anew {
		b[8] = 2
	}
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(name))), name...)
	switch kind {
	case xbstream.Payload:
		b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
		b = binary.LittleEndian.AppendUint64(b, uint64(offset))
		b = append(binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(data))), data...)
	case xbstream.Seek:
		b = binary.LittleEndian.AppendUint64(b, uint64(offset))
	case xbstream.Rename:
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
	}
	return b
}

// whole is a file in one piece.
func wholeFile(name, data string, anew bool) []byte {
	return append(chunk(xbstream.Payload, anew, name, 0, data), chunk(xbstream.End, false, name, 0, "")...)
}

// gathered stores a stream.
func gathered(t testing.TB, stream ...[]byte) (*memoryFiles, error) {
	t.Helper()
	m := &memoryFiles{}
	f, err := newFileSet(t.Context(), m, isInfo, func(string) error { return nil })
	require.NoError(t, err)
	if err := f.read(xbstream.NewReader(bytes.NewReader(bytes.Join(stream, nil)), xbstream.MariaDB)); err != nil {
		return nil, err
	}
	tree, err := f.close()
	require.NoError(t, err)
	m.report = record.Report{Layout: CopyLayout, Version: "10.11.19", Objects: append([]record.Object{tree}, f.large...)}
	return m, nil
}

// contents are the files of a directory, the large ones by their length and beginning.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if len(data) > smallFile {
			data = fmt.Appendf(nil, "%d bytes %s", len(data), data[:8])
		}
		all[strings.TrimPrefix(name, dir+"/")] = string(data)
		return err
	}))
	return all
}

// What mariadb-backup sends in pieces that alternate, takes back, renames and sends anew is in the end what mbstream would
// make of it.
func TestCopyFiles(t *testing.T) {
	t.Parallel()
	big, other := strings.Repeat("ABCDEFGH", smallFile/4), strings.Repeat("x", smallFile)
	m, err := gathered(t,
		chunk(xbstream.Payload, false, "ib_logfile0", 0, "re"),
		chunk(xbstream.Payload, false, "d/big.ibd", 0, big[:smallFile]), wholeFile("d/a.MYD", "old", false),
		chunk(xbstream.Payload, false, "d/big.ibd", smallFile, big[smallFile:]), chunk(xbstream.End, false, "d/big.ibd", 0, ""),
		chunk(xbstream.Payload, false, "ib_logfile0", 2, "do"), chunk(xbstream.End, false, "ib_logfile0", 0, ""),
		chunk(xbstream.End, false, "d/empty.MYD", 0, ""),
		// Written into, where it has been sent: a small file and a large one.
		chunk(xbstream.Payload, false, "aria_log.00000001", 0, "header and log"), chunk(xbstream.Seek, false, "aria_log.00000001", 2, ""),
		chunk(xbstream.Payload, false, "aria_log.00000001", 2, "AD"), chunk(xbstream.End, false, "aria_log.00000001", 0, ""),
		chunk(xbstream.Payload, false, "aria_log.00000002", 0, big), chunk(xbstream.Seek, false, "aria_log.00000002", 1, ""),
		chunk(xbstream.Payload, false, "aria_log.00000002", 1, "bc"), chunk(xbstream.End, false, "aria_log.00000002", 0, ""),
		// Two that change places, and one that is sent anew; twice.
		wholeFile("d/x.frm", "was x", false), wholeFile("d/y.frm", "was y", false),
		chunk(xbstream.Rename, false, "d/x.frm", 0, "d/z.frm"), chunk(xbstream.Rename, false, "d/y.frm", 0, "d/x.frm"), chunk(xbstream.Rename, false, "d/z.frm", 0, "d/y.frm"),
		wholeFile("d/a.MYD", "new", true), wholeFile("d/a.MYD", "newer", true), chunk(xbstream.End, false, "d/empty.MYD", 0, ""),
		// Dropped, never there, dropped and made again, renamed into another database, onto another file.
		wholeFile("d/gone.frm", "gone", false), chunk(xbstream.Remove, false, "d/gone.frm", 0, ""), chunk(xbstream.Remove, false, "d/never.frm", 0, ""),
		chunk(xbstream.Rename, false, "d/young.MAD", 0, "d/younger.MAD"),
		wholeFile("d/again.frm", "first", false), chunk(xbstream.Remove, false, "d/again.frm", 0, ""), wholeFile("d/again.frm", "second", false),
		wholeFile("d/moved.frm", "moved", false), chunk(xbstream.Rename, false, "d/moved.frm", 0, "e/moved.frm"),
		wholeFile("d/over.frm", "over", false), wholeFile("d/under.frm", "under", false), chunk(xbstream.Rename, false, "d/over.frm", 0, "d/under.frm"),
		// Large ones, too.
		wholeFile("d/l.ibd", other+"1", false), chunk(xbstream.Rename, false, "d/l.ibd", 0, "d/m.ibd"), wholeFile("d/l.ibd", other+"22", false),
		wholeFile("d/n.ibd", other+"333", false), chunk(xbstream.Remove, false, "d/n.ibd", 0, ""),
		wholeFile("#keepset/7", "its own", false), wholeFile("xtrabackup_checkpoints", "points", false),
	)
	require.NoError(t, err)
	o := CopyRestore{Path: filepath.Join(t.TempDir(), "data"), Workers: 3}
	_, err = o.Restore(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"ib_logfile0": "redo", "d/a.MYD": "newer", "d/empty.MYD": "", "aria_log.00000001": "heADer and log",
		"d/big.ibd": fmt.Sprintf("%d bytes ABCDEFGH", len(big)), "aria_log.00000002": fmt.Sprintf("%d bytes AbcDEFGH", len(big)),
		"d/x.frm": "was y", "d/y.frm": "was x", "d/again.frm": "second", "e/moved.frm": "moved", "d/under.frm": "over",
		"d/l.ibd": fmt.Sprintf("%d bytes xxxxxxxx", len(other)+2), "d/m.ibd": fmt.Sprintf("%d bytes xxxxxxxx", len(other)+1),
		"#keepset/7": "its own", "xtrabackup_checkpoints": "points",
	}, contents(t, o.Path))

	// Whatever is missing of it, there is nothing that could be prepared.
	for name := range m.streams {
		if name == "large/d/n.ibd" {
			continue // which was taken back
		}
		cut := &memoryFiles{streams: map[string]*memoryFile{}, report: m.report}
		for n, s := range m.streams {
			if n != name {
				cut.streams[n] = s
			}
		}
		o.Path = filepath.Join(t.TempDir(), "data")
		_, err := o.Restore(t.Context(), lacking{cut, name})
		require.Error(t, err, name)
		require.NoFileExists(t, filepath.Join(o.Path, "xtrabackup_checkpoints"), name)
	}
	o.Path = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(o.Path, "x"), nil, 0o600))
	require.ErrorIs(t, o.Check(m.report), filetree.ErrNotEmpty)
}

// lacking lists a stream that cannot be read.
type lacking struct {
	*memoryFiles
	name string
}

func (l lacking) Streams() []string { return append(l.memoryFiles.Streams(), l.name) }

// What makes no sense is an error.
func TestCopyFilesRefused(t *testing.T) {
	t.Parallel()
	file := wholeFile("d/a", "a", false)
	open := chunk(xbstream.Payload, false, "d/b", 0, "b")
	for name, c := range map[string]struct {
		stream [][]byte
		want   string
	}{
		"twice":             {[][]byte{file, file}, "a second time"},
		"out of order":      {[][]byte{chunk(xbstream.Payload, false, "d/b", 1, "b")}, "for offset 1 instead of 0"},
		"a gap":             {[][]byte{open, chunk(xbstream.Seek, false, "d/b", 7, ""), chunk(xbstream.Payload, false, "d/b", 7, "b")}, "were left out"},
		"not ended":         {[][]byte{file, open}, `"d/b" one of them`},
		"removed too early": {[][]byte{open, chunk(xbstream.Remove, false, "d/b", 0, "")}, "before it has ended"},
		"renamed too early": {[][]byte{open, chunk(xbstream.Rename, false, "d/b", 0, "d/c")}, "cannot be renamed"},
		"renamed away":      {[][]byte{file, chunk(xbstream.Rename, false, "d/a", 0, "../a")}, "cannot be renamed"},
		"above":             {[][]byte{wholeFile("../a", "a", false)}, "no path of a file below"},
		"absolute":          {[][]byte{wholeFile("/etc/a", "a", false)}, "no path of a file below"},
		"not UTF-8":         {[][]byte{wholeFile("d/\xff", "a", false)}, "no path of a file below"},
		"elsewhere":         {[][]byte{wholeFile("d/a.isl", "/srv/a.ibd", false)}, "DATA DIRECTORY"},
		"large and patched beyond its end": {[][]byte{
			chunk(xbstream.Payload, false, "d/b", 0, strings.Repeat("b", smallFile+1)), chunk(xbstream.Seek, false, "d/b", smallFile, ""), chunk(xbstream.Payload, false, "d/b", smallFile, "bb"),
		}, "of what has been sent already"},
		"large information": {[][]byte{wholeFile("xtrabackup_info", strings.Repeat("i", smallFile+1), false)}, "larger than a file of its kind"},
	} {
		_, err := gathered(t, c.stream...)
		require.ErrorContains(t, err, c.want, name)
	}
}

// No line of files.jsonl leads out of the directory.
func FuzzStoredName(f *testing.F) {
	f.Add(`{"stored":"d/a.frm","path":"d/b.frm"}`)
	f.Add(`{"stored":"#keepset/1"}`)
	f.Add(`{"stored":"aria_log.00000001","offset":5,"data":"AAA="}`)
	f.Add(`{"stored":"../a"}`)
	f.Fuzz(func(t *testing.T, line string) {
		n, err := parseStoredName([]byte(line))
		if err != nil {
			require.ErrorIs(t, err, filetree.ErrArchive)
			return
		}
		require.True(t, filepath.IsLocal(n.Stored))
		require.True(t, n.Path == "" || filepath.IsLocal(n.Path))
		require.GreaterOrEqual(t, n.Offset, int64(0))
	})
}

// The positions that mariadb-backup writes are read, or refused.
func FuzzCopyInfo(f *testing.F) {
	f.Add("binlog.000002\t1234\t0-1-100", "SET GLOBAL gtid_slave_pos = '0-1-5,1-2-3';\nCHANGE MASTER 'a''b' TO master_use_gtid = slave_pos;\n", "backup_type = full-backuped\nlast_lsn = 7\n")
	f.Add("binlog.000002\t1234", "CHANGE MASTER TO MASTER_LOG_FILE='m.000001', MASTER_LOG_POS=4;\n", "a=b=c")
	f.Add("binlog.000002\t1234\t3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:1-2:7", "SET GLOBAL gtid_purged='3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5';\nCHANGE MASTER TO MASTER_AUTO_POSITION=1 FOR CHANNEL 'a';\n", "")
	f.Fuzz(func(t *testing.T, binlog, slave, properties string) {
		if c, err := parseBinlogInfo(binlog); err == nil {
			require.NotEmpty(t, c.File)
			require.NotZero(t, c.Position)
		}
		if c, err := parseMySQLBinlogInfo(binlog); err == nil {
			require.True(t, c.File != "" && c.Position > 0 || c.File == "" && c.Position == 0 && c.GTID != "", "%+v", c)
			require.NotContains(t, c.GTID, "\n")
		}
		for _, parse := range []func(string) (string, map[string]record.UpstreamCoordinates, error){parseSlaveInfo, parseMySQLSlaveInfo} {
			gtid, channels, err := parse(slave)
			if err != nil {
				continue
			}
			for name, c := range channels {
				require.Equal(t, name, c.Channel)
				require.Equal(t, gtid, c.GTID)
			}
		}
		for name, value := range parseProperties(properties) {
			require.Equal(t, strings.TrimSpace(name), name)
			require.Equal(t, strings.TrimSpace(value), value)
		}
	})
}

// A version is three numbers of the program's own words.
func FuzzProgramVersion(f *testing.F) {
	f.Add("mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)")
	f.Add("xtrabackup version 8.4.0-1 based on MySQL server 8.4.0 Linux (x86_64)")
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range []copier{mariadbBackup, xtrabackup} {
			version, err := parseProgramVersion(c, text)
			if err != nil {
				continue
			}
			require.Contains(t, text, version)
			require.Equal(t, 2, strings.Count(version, "."))
			require.Equal(t, 1, strings.Count(majorMinor(version), "."))
		}
	})
}
