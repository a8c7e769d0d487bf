package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"keepset/internal/filetree"
	"keepset/internal/record"
)

// BaseLayout is the name of the streams of a base backup: the server's files, as
// the server itself gives them out.
//
//	tree/...                     the data directory, a tree of files (package filetree)
//	tablespaces/<oid>/tree/...   a tablespace, likewise
//	backup_manifest              the server's manifest, with checksums of all files
//
// The links in pg_tblspc are not in it: where tablespaces go is said anew by who
// restores. The data directory has the write-ahead log in it that makes the files
// one state, which is that of its end: Coordinates have that position.
const BaseLayout = "postgres-base/1"

// Keys of record.Object.Attributes of a base backup's trees.
const (
	attrOID      = "oid"      // tablespace
	attrLocation = "location" // tablespace: where it was
	attrName     = "name"     // tablespace: what it is called
	attrArchives = "archives" // data directory: "yes" where the server archives its log
)

const (
	// oldestBase is the first version that sends all archives as one copy.
	oldestBase = 15
	// manifestStream is the stream with the manifest, and the file that it becomes.
	manifestStream = "backup_manifest"
	// controlFile is without which no server starts.
	controlFile = "global/pg_control"
	// linksDirectory has a link for each tablespace.
	linksDirectory = "pg_tblspc"
	walDirectory   = "pg_wal"
)

// omittedFromBase are in no base backup: the server does not send them.
var omittedFromBase = []string{
	"rows of unlogged tables, and temporary tables",
	"replication slots, and what the server has outside of its data directory, such as configuration in /etc",
}

// Copy writes the server's files to the sink, by the replication protocol. It
// returns nil only if the files are those of the server's manifest, and the log
// that they need is among them.
func (e *Engine) Copy(ctx context.Context, sink filetree.Sink) (record.Report, error) {
	r, err := e.copy(ctx, sink)
	if err != nil {
		return r, fmt.Errorf("base backup of %s: %w", e.opts.Address, baseRemedy(err))
	}
	return r, nil
}

func (e *Engine) copy(ctx context.Context, sink filetree.Sink) (r record.Report, err error) {
	s, err := e.admin(ctx)
	if err != nil {
		return r, err
	}
	defer s.abandon()
	v, err := detect(ctx, s)
	if err == nil && v.major < oldestBase {
		err = fmt.Errorf("the server is PostgreSQL %s: base backups are taken of %d and later", v.version, oldestBase)
	}
	if err != nil {
		return r, err
	}
	c := &copying{sink: sink, files: map[string]fileSum{}, segments: map[string]int64{}, spaces: map[string]string{}}
	if err := c.settings(ctx, s); err != nil {
		return r, err
	}
	conn, err := e.replication(ctx)
	if err != nil {
		return r, err
	}
	defer conn.abandon()
	if err := c.run(ctx, conn); err != nil {
		return r, err
	}
	r = record.Report{
		Engine: "postgres", Layout: BaseLayout, Flavor: "postgresql", Version: v.version, Consistency: "base-backup",
		Omitted: slices.Clone(omittedFromBase), Objects: c.trees, Coordinates: record.Coordinates{Server: c.system, Position: c.end, File: walFile(c.end, c.timeline, c.segment)},
	}
	r.Doubts = c.doubts
	for _, tree := range c.trees {
		counts, err := filetree.CountsOfTree(tree)
		if err != nil {
			return r, err
		}
		r.Rows, r.Bytes = r.Rows+counts.Entries(), r.Bytes+counts.Bytes
	}
	if r.CapturedAt, err = serverClock(ctx, s); err != nil {
		return r, err
	}
	if v.standby {
		r.Coordinates.Upstream, err = readUpstream(ctx, s, r.Coordinates)
	}
	return r, err
}

// replication connects as a standby does.
func (e *Engine) replication(ctx context.Context) (*session, error) {
	config, err := e.opts.driverConfig("")
	if err != nil {
		return nil, err
	}
	config.RuntimeParams = map[string]string{"application_name": "keepset", "replication": "true"}
	bounded, cancel := context.WithTimeout(ctx, e.opts.ConnectTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(bounded, config)
	if err != nil {
		return nil, e.opts.connectError("(replication)", err)
	}
	return &session{conn: conn, database: "(replication)"}, nil
}

// fileSum is what is compared of a file.
type fileSum struct {
	size int64
	crc  uint32
}

// copying is one base backup.
type copying struct {
	sink filetree.Sink

	// Of the server.
	system   string
	timeline uint64
	segment  uint64            // bytes of a file of the log
	mode     uint32            // of the data directory
	archives bool              // archive_mode is on
	spaces   map[string]string // names of tablespaces, by their OID

	start, end uint64
	trees      []record.Object
	// doubts are what the server has warned of.
	doubts []string
	// files are those that the manifest has to have, segments those of the log.
	files    map[string]fileSum
	segments map[string]int64
}

// settings asks what is not in the backup itself.
func (c *copying) settings(ctx context.Context, s *session) error {
	const q = "SELECT (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'), pg_catalog.current_setting('data_directory_mode'), " +
		"pg_catalog.current_setting('wal_level'), pg_catalog.current_setting('archive_mode')"
	err := s.each(ctx, q, func(r row) (err error) {
		if c.segment, err = strconv.ParseUint(r.at(0), 10, 64); err != nil || c.segment == 0 {
			return fmt.Errorf("wal_segment_size is %q", r.at(0))
		}
		if r.at(2) == "minimal" {
			return errors.New("wal_level is minimal, with which no files can be copied: set it to replica, and max_wal_senders to some, and restart the server")
		}
		c.archives = r.at(3) != "off"
		mode, err := strconv.ParseUint(r.at(1), 8, 12)
		c.mode = uint32(mode)
		return err
	})
	if err != nil {
		return err
	}
	return s.each(ctx, "SELECT oid, spcname FROM pg_catalog.pg_tablespace", func(r row) error {
		c.spaces[r.at(0)] = r.at(1)
		return nil
	})
}

// run takes the backup. A temporary slot keeps the log until it has been sent;
// it goes with the connection.
func (c *copying) run(ctx context.Context, conn *session) error {
	at, err := identify(ctx, conn)
	if err != nil {
		return err
	}
	c.system = at.system
	if err := conn.exec(ctx, `CREATE_REPLICATION_SLOT "keepset_`+randomName()+`" TEMPORARY PHYSICAL RESERVE_WAL`); err != nil {
		return err
	}
	const command = "BASE_BACKUP (LABEL 'keepset', CHECKPOINT 'fast', WAL, WAIT 0, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')"
	b := &baseStream{ctx: ctx, conn: conn.conn}
	err = c.read(b, command)
	for _, w := range b.warnings {
		c.doubts = append(c.doubts, "the server warns: "+w)
	}
	if err != nil {
		if len(c.doubts) > 0 {
			err = fmt.Errorf("%w (%s)", err, strings.Join(c.doubts, "; "))
		}
		return conn.queryError(ctx, command, err)
	}
	return nil
}

// read reads the server's answer.
func (c *copying) read(b *baseStream, command string) error {
	before, err := b.begin(command)
	if err != nil {
		return err
	}
	if len(before) != 2 {
		return fmt.Errorf("%w: %d results at its beginning", errBase, len(before))
	}
	if c.start, _, err = position(before[0]); err != nil {
		return err
	}
	for _, space := range before[1] {
		// One within the data directory is for developers of PostgreSQL: nobody could say where it goes.
		if len(space) > 1 && !space.null(1) && !strings.HasPrefix(space.at(1), "/") {
			return fmt.Errorf("%w: tablespace %s lies in %s, within the data directory (allow_in_place_tablespaces)", errBase, space.at(0), space.at(1))
		}
	}
	var said *manifest
	for {
		head, err := b.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if said != nil {
			return fmt.Errorf("%w: an archive after the manifest", errBase)
		}
		if head.manifest {
			if said, err = c.manifest(b); err != nil {
				return err
			}
			continue
		}
		if err := c.archive(b, head); err != nil {
			return err
		}
	}
	after, err := b.end()
	if err != nil {
		return err
	}
	if len(after) != 1 {
		return fmt.Errorf("%w: %d results at its end", errBase, len(after))
	}
	if c.end, c.timeline, err = position(after[0]); err != nil {
		return err
	}
	return c.judge(said, len(before[1]))
}

// position reads a result that is a position and its timeline.
func position(rows []row) (at, timeline uint64, err error) {
	if len(rows) != 1 || len(rows[0]) < 2 {
		return 0, 0, fmt.Errorf("%w: it does not say where in the log it is", errBase)
	}
	if timeline, err = strconv.ParseUint(rows[0].at(1), 10, 32); err != nil {
		return 0, 0, err
	}
	at, err = parseLSN(rows[0].at(0))
	return at, timeline, err
}

// manifest keeps the manifest, and holds the files to it.
func (c *copying) manifest(b *baseStream) (*manifest, error) {
	stream, err := c.sink.Create(b.ctx, manifestStream)
	if err != nil {
		return nil, err
	}
	m, err := readManifest(io.TeeReader(b, stream), c.compare)
	if err != nil {
		stream.Abort(err)
		return nil, err
	}
	return &m, stream.Close()
}

// compare takes a file of the manifest off those that have come.
func (c *copying) compare(f *manifestFile) error {
	name, err := f.path()
	if err != nil {
		return err
	}
	got, ok := c.files[name]
	if !ok {
		return fmt.Errorf("file %q has not come", name)
	}
	delete(c.files, name)
	if got.size != f.Size {
		return fmt.Errorf("file %q has come with %d bytes, and has %d", name, got.size, f.Size)
	}
	if f.Algorithm != "CRC32C" {
		return fmt.Errorf("file %q has a checksum of the kind %q", name, f.Algorithm)
	}
	// The bytes stand as they lie in the server's memory.
	little := hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, got.crc))
	big := hex.EncodeToString(binary.BigEndian.AppendUint32(nil, got.crc))
	if said := strings.ToLower(f.Checksum); said != little && said != big {
		return fmt.Errorf("file %q has come with the checksum %s, and has %s", name, little, f.Checksum)
	}
	return nil
}

// judge says whether all of it has come.
func (c *copying) judge(m *manifest, archives int) error {
	if m == nil {
		return fmt.Errorf("%w: it has no manifest", errBase)
	}
	for name := range c.files {
		return fmt.Errorf("%w: %d files are not in it, %q one of them", errManifest, len(c.files), name)
	}
	if len(c.trees) != archives {
		return fmt.Errorf("%w: %d archives of %d have come", errBase, len(c.trees), archives)
	}
	if m.system != "" && m.system != c.system {
		return fmt.Errorf("%w: it is of the system %s, and the server is %s", errManifest, m.system, c.system)
	}
	begins, ends := false, false
	for _, w := range m.ranges { // several, after a standby was promoted
		from, to, err := c.hasLog(w)
		if err != nil {
			return err
		}
		begins = begins || from == c.start
		ends = ends || to == c.end && w.Timeline == c.timeline
	}
	if !begins || !ends {
		return fmt.Errorf("%w: it does not have the log from %s to %s", errManifest, formatLSN(c.start), formatLSN(c.end))
	}
	return nil
}

// hasLog says whether the log of a range is there, in whole files.
func (c *copying) hasLog(w walRange) (from, to uint64, err error) {
	if from, err = parseLSN(w.Start); err != nil {
		return 0, 0, err
	}
	if to, err = parseLSN(w.End); err != nil {
		return 0, 0, err
	}
	if to < from || to > c.end {
		return 0, 0, fmt.Errorf("%w: the log from %s to %s, in a backup that ends at %s", errManifest, w.Start, w.End, formatLSN(c.end))
	}
	for at := from - from%c.segment; at < to; at += c.segment {
		name := walFile(at+1, w.Timeline, c.segment)
		if size, ok := c.segments[name]; !ok || uint64(size) != c.segment {
			return 0, 0, fmt.Errorf("%w: file %s of the log is missing or cut off, without which it is worth nothing", errBase, name)
		}
	}
	return from, to, nil
}

// randomName is for what two backups at once must not share.
func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// baseRemedy says what to do about what a server refuses.
func baseRemedy(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	remedy := ""
	switch text := e.Message; {
	case e.Code == "28000" && strings.Contains(text, "replication connection"):
		remedy = "allow it in pg_hba.conf: host replication <account> <address> scram-sha-256"
	case e.Code == stateNoPrivilege:
		remedy = "ALTER ROLE <account> REPLICATION gives the right"
	case e.Code == "53300" && strings.Contains(text, "max_wal_senders"):
		remedy = "raise max_wal_senders"
	case e.Code == "53400" || strings.Contains(text, "max_replication_slots"):
		remedy = "raise max_replication_slots, or drop a slot that nobody uses"
	case e.Code == "57P01" || e.Code == "58P01":
		remedy = "if the server was not shut down, it has taken away the slot that keeps the log: raise max_slot_wal_keep_size and idle_replication_slot_timeout, where they are set"
	case e.Code == "XX001":
		remedy = "the server has found damaged pages: a dump (--method dump) shows which tables can still be read"
	}
	if remedy == "" {
		return err
	}
	return fmt.Errorf("%w; %s", err, remedy)
}
