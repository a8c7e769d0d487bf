package mysql

import (
	"fmt"
	"regexp"
	"strings"

	"keepset/internal/dbdump/mysql/xbstream"
	"keepset/internal/record"
)

// gtidSet is a set of MySQL's, without spaces: servers, from 8.3 on with tags, and intervals.
var gtidSet = regexp.MustCompile(`^[0-9A-Za-z_:,-]*$`)

func parseGTIDSet(text string) (string, error) {
	set := oneLine(text)
	if !gtidSet.MatchString(set) {
		return "", fmt.Errorf("%w: the set of GTIDs is %q", xbstream.ErrStream, text)
	}
	return set, nil
}

// parseMySQLBinlogInfo reads a position as xtrabackup writes it: file, offset, and where there are GTIDs those, with tabs
// between them. The set may be one of several lines. Without a binary log, file and offset are empty and 0.
func parseMySQLBinlogInfo(text string) (c record.Coordinates, err error) {
	fields := strings.SplitN(text, "\t", 3)
	if len(fields) == 3 {
		if c.GTID, err = parseGTIDSet(fields[2]); err != nil {
			return c, err
		}
	}
	if len(fields) < 2 || (fields[0] == "") != (unsigned(fields[1]) == 0) || fields[0] == "" && c.GTID == "" {
		return c, fmt.Errorf("%w: the binary log's position is %q", xbstream.ErrStream, text)
	}
	c.File, c.Position = fields[0], unsigned(fields[1])
	return c, nil
}

var (
	purgedGTID   = regexp.MustCompile(`(?i)gtid_purged\s*=\s*'([^']*)'`)
	sourceChange = regexp.MustCompile(`(?i)CHANGE (?:MASTER|REPLICATION SOURCE) TO\s+` +
		`(?:(?:MASTER|SOURCE)_LOG_FILE\s*=\s*'([^']+)'\s*,\s*(?:MASTER|SOURCE)_LOG_POS\s*=\s*([0-9]+)|(?:MASTER|SOURCE)_AUTO_POSITION\s*=\s*1)` +
		`(?:\s+FOR CHANNEL\s+'((?:[^']|'')*)')?`)
)

// parseMySQLSlaveInfo reads positions in upstreams: statements, one for each channel, and the GTIDs that all have.
func parseMySQLSlaveInfo(text string) (gtid string, channels map[string]record.UpstreamCoordinates, err error) {
	channels = map[string]record.UpstreamCoordinates{}
	if m := purgedGTID.FindStringSubmatch(text); m != nil {
		if gtid, err = parseGTIDSet(m[1]); err != nil {
			return "", nil, err
		}
	}
	for _, m := range sourceChange.FindAllStringSubmatch(text, -1) {
		name := strings.ReplaceAll(m[3], "''", "'")
		channels[name] = record.UpstreamCoordinates{Channel: name, GTID: gtid, File: m[1], Position: unsigned(m[2])}
	}
	return gtid, channels, nil
}
