package mysql

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"keepset/internal/dbdump/mysql/xbstream"
	"keepset/internal/record"
)

// The programs say in small files of their own what they have copied. Their names begin with one of these.
var infoPrefixes = []string{"xtrabackup_", "mariadb_backup_"}

// What comes behind the prefix.
const (
	infoCheckpoints = "checkpoints" // from where to where the log is there
	infoItself      = "info"        // of which kind it is
	infoBinlog      = "binlog_info" // the server's own position
	infoSlave       = "slave_info"  // that in its upstreams
)

// isInfo tells whether a file is one of those. Others with such a name, xtrabackup_logfile among them, are the server's.
func isInfo(name string) bool {
	return slices.ContainsFunc(infoPrefixes, func(p string) bool {
		rest, ok := strings.CutPrefix(name, p)
		return ok && slices.Contains([]string{infoCheckpoints, infoItself, infoBinlog, infoSlave}, rest)
	})
}

// infos are the files, by what comes behind the prefix.
type infos map[string]string

func (f *fileSet) infos() infos {
	found := infos{}
	for name, content := range f.kept {
		for _, p := range infoPrefixes {
			if rest, ok := strings.CutPrefix(name, p); ok {
				found[rest] = string(content)
			}
		}
	}
	return found
}

// parseProperties reads lines of "name = value".
func parseProperties(text string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, "="); ok {
			found[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return found
}

// check makes sure that it is all of a server, and returns how far the log goes.
func (i infos) check(program string) (last uint64, err error) {
	for _, name := range []string{infoCheckpoints, infoItself} {
		if i[name] == "" {
			return 0, fmt.Errorf("%w: it ends without the file in which %s says what it has copied (%s%s)", xbstream.ErrStream, program, infoPrefixes[0], name)
		}
	}
	points, itself := parseProperties(i[infoCheckpoints]), parseProperties(i[infoItself])
	if points["backup_type"] != "full-backuped" || itself["partial"] != "N" || itself["incremental"] != "N" || itself["compressed"] != "N" || itself["encrypted"] == "Y" || itself["compact"] == "Y" {
		return 0, fmt.Errorf("%w: it is not a whole backup as it is: type %q, partial %s, incremental %s, compressed %s, encrypted %s, compact %s", xbstream.ErrStream,
			points["backup_type"], itself["partial"], itself["incremental"], itself["compressed"], itself["encrypted"], itself["compact"])
	}
	last = unsigned(points["last_lsn"])
	if to := unsigned(points["to_lsn"]); last == 0 || last < to {
		return 0, fmt.Errorf("%w: its log goes to %q, and its last checkpoint is at %q", xbstream.ErrStream, points["last_lsn"], points["to_lsn"])
	}
	return last, nil
}

// own is the server's own position; zero for one that writes no binary log.
func (i infos) own(mariaDB bool) (c record.Coordinates, err error) {
	text := strings.TrimRight(i[infoBinlog], "\n")
	switch {
	case text == "":
		return c, nil
	case !mariaDB:
		return parseMySQLBinlogInfo(text)
	}
	return parseBinlogInfo(text)
}

// parseBinlogInfo reads a position: file, offset, and where there are GTIDs those, with tabs between them.
func parseBinlogInfo(text string) (c record.Coordinates, err error) {
	fields := strings.Split(text, "\t")
	if len(fields) < 2 || len(fields) > 3 || fields[0] == "" || unsigned(fields[1]) == 0 {
		return c, fmt.Errorf("%w: the binary log's position is %q", xbstream.ErrStream, text)
	}
	c.File, c.Position = fields[0], unsigned(fields[1])
	if len(fields) == 3 {
		if _, err := parseMariaDB(fields[2]); err != nil {
			return c, err
		}
		c.GTID = fields[2]
	}
	return c, nil
}

var (
	slaveGTID   = regexp.MustCompile(`(?i)gtid_slave_pos\s*=\s*'([^']*)'`)
	slaveChange = regexp.MustCompile(`(?i)CHANGE MASTER\s*(?:'((?:[^']|'')*)'\s*)?TO\s+(?:MASTER_LOG_FILE\s*=\s*'([^']+)'\s*,\s*MASTER_LOG_POS\s*=\s*([0-9]+)|MASTER_USE_GTID)`)
)

// parseSlaveInfo reads positions in upstreams: statements, one for each channel, and the GTID position of all.
func parseSlaveInfo(text string) (gtid string, channels map[string]record.UpstreamCoordinates, err error) {
	channels = map[string]record.UpstreamCoordinates{}
	if m := slaveGTID.FindStringSubmatch(text); m != nil {
		gtid = m[1]
		if _, err := parseMariaDB(gtid); err != nil {
			return "", nil, err
		}
	}
	for _, m := range slaveChange.FindAllStringSubmatch(text, -1) {
		name := strings.ReplaceAll(m[1], "''", "'")
		channels[name] = record.UpstreamCoordinates{Channel: name, GTID: gtid, File: m[2], Position: unsigned(m[3])}
	}
	return gtid, channels, nil
}

// upstreams completes what the server has said of its channels by where they were at the moment of the copy.
func (i infos) upstreams(c *record.Coordinates, said []channel, mariaDB bool) error {
	if len(said) == 0 {
		return nil
	}
	parse := parseMySQLSlaveInfo
	if mariaDB {
		parse = parseSlaveInfo
	}
	_, found, err := parse(i[infoSlave])
	if err != nil {
		return err
	}
	for n, s := range said {
		at, ok := found[s.Channel]
		if !ok {
			return fmt.Errorf("%w: it does not say where the server was in its upstream %s:%d (channel %q), but %q", xbstream.ErrStream, s.Host, s.Port, s.Channel, i[infoSlave])
		}
		s.GTID, s.File, s.Position = at.GTID, at.File, at.Position
		if n == 0 {
			c.Upstream = &s.UpstreamCoordinates
			continue
		}
		c.OtherUpstreams = append(c.OtherUpstreams, s.UpstreamCoordinates)
	}
	return nil
}
