package job

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// Load brings one member of one backup back into one running server.
type Load struct {
	Repository *repository.Repository
	Set        record.SetID
	Choice     Choice
	Ordinal    int
	// Target is host:port, for messages.
	Target string
	// Open makes an engine for the target. Engines are not reused, and a load
	// needs more than one, hence a function.
	Open func() (dbdump.Engine, error)
	// Upstream is whom the target shall follow after the load; nil for nobody.
	Upstream *dbdump.Upstream
	// Part says that only some objects are loaded, so that the totals cannot
	// be compared with the member's.
	Part     bool
	Clock    func() time.Time
	Log      *slog.Logger
	Progress Progress
}

// LoadReport is what a Load did, or with --dry-run would do.
type LoadReport struct {
	Set     string          `json:"set"`
	Backup  record.BackupID `json:"backup"`
	Ordinal int             `json:"ordinal"`
	Target  string          `json:"target"`
	// Follows is host:port of the upstream.
	Follows    string    `json:"follows,omitempty"`
	CapturedAt time.Time `json:"capturedAt"`
	Rows       int64     `json:"rows"`
	Bytes      int64     `json:"bytes"`
	Objects    int       `json:"objects"`
	Seconds    float64   `json:"seconds"`
	Omitted    []string  `json:"omitted,omitempty"`
	Warnings   []string  `json:"warnings,omitempty"`
	DryRun     bool      `json:"dryRun,omitempty"`
}

// Run loads the member. Nothing is touched before the backup has been found,
// its member opened, and the upstream asked whether it can continue.
func (l *Load) Run(ctx context.Context) (*LoadReport, error) {
	start := l.Clock()
	member, report, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	loaded, err := l.load(ctx, member)
	if err != nil {
		return report, err
	}
	report.Rows, report.Bytes, report.Objects = loaded.Rows, loaded.Bytes, len(loaded.Objects)
	report.Omitted, report.Warnings = loaded.Omitted, loaded.Warnings
	report.Seconds = l.Clock().Sub(start).Seconds()
	return report, nil
}

// DryRun does everything that Run does before it touches the target.
func (l *Load) DryRun(ctx context.Context) (*LoadReport, error) {
	member, report, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	r := member.Report()
	report.Rows, report.Bytes, report.Objects, report.Omitted = r.Rows, r.Bytes, len(r.Objects), r.Omitted
	report.DryRun = true
	return report, nil
}

func (l *Load) prepare(ctx context.Context) (*repository.MemberReader, *LoadReport, error) {
	info, err := l.Choice.resolve(ctx, l.Repository, l.Set)
	if err != nil {
		return nil, nil, err
	}
	member, err := l.Repository.OpenMember(ctx, info, l.Ordinal)
	if err != nil {
		return nil, nil, fmt.Errorf("open ordinal %d of backup %s: %w", l.Ordinal, info.Plan.ID, err)
	}
	r := member.Report()
	report := &LoadReport{
		Set: l.Set.String(), Backup: info.Plan.ID, Ordinal: l.Ordinal, Target: l.Target, CapturedAt: r.CapturedAt,
	}
	if l.Upstream != nil {
		report.Follows = hostPort(l.Upstream)
		if err := l.checkUpstream(ctx, r.Coordinates); err != nil {
			return nil, nil, err
		}
	}
	return member, report, nil
}

func (l *Load) checkUpstream(ctx context.Context, c record.Coordinates) error {
	f, done, err := l.follower()
	if err != nil {
		return err
	}
	defer done()
	if err := f.Check(ctx, CoordinatesFor(c, l.Upstream), *l.Upstream); err != nil {
		return fmt.Errorf("check that %s can be followed: %w", hostPort(l.Upstream), err)
	}
	return nil
}

// load loads, compares, and follows.
func (l *Load) load(ctx context.Context, member *repository.MemberReader) (record.Report, error) {
	engine, err := l.Open()
	if err != nil {
		return record.Report{}, err
	}
	defer closeEngine(engine)
	source := &countingSource{source: member}
	stop := l.watch(source, member.Report().Bytes)
	loaded, err := engine.Load(ctx, source)
	stop()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return loaded, fmt.Errorf("load ordinal %d into %s: %w", l.Ordinal, l.Target, err)
	}
	if want := member.Report().Rows; !l.Part && loaded.Rows != want {
		return loaded, fmt.Errorf("load ordinal %d into %s: %w: %d rows arrived of %d", l.Ordinal, l.Target, dbdump.ErrMismatch, loaded.Rows, want)
	}
	l.Log.Info("member loaded", "ordinal", l.Ordinal, "target", l.Target, "rows", loaded.Rows, "objects", len(loaded.Objects))
	if l.Upstream == nil {
		return loaded, nil
	}
	return loaded, l.follow(ctx, member.Report().Coordinates)
}

func (l *Load) follow(ctx context.Context, c record.Coordinates) error {
	f, done, err := l.follower()
	if err != nil {
		return err
	}
	defer done()
	c = CoordinatesFor(c, l.Upstream)
	if err := f.Check(ctx, c, *l.Upstream); err != nil {
		return fmt.Errorf("check that %s can be followed: %w", hostPort(l.Upstream), err)
	}
	if err := f.Follow(ctx, c, *l.Upstream); err != nil {
		return fmt.Errorf("make %s follow %s: %w", l.Target, hostPort(l.Upstream), err)
	}
	l.Log.Info("follower has caught up", "target", l.Target, "upstream", hostPort(l.Upstream))
	return nil
}

// follower opens an engine that can follow.
func (l *Load) follower() (dbdump.Follower, func(), error) {
	engine, err := l.Open()
	if err != nil {
		return nil, nil, err
	}
	f, ok := engine.(dbdump.Follower)
	if !ok {
		closeEngine(engine)
		return nil, nil, fmt.Errorf("%w: this engine's servers cannot follow another", ErrConfig)
	}
	return f, func() { closeEngine(engine) }, nil
}

func (l *Load) watch(source *countingSource, expected int64) (stop func()) {
	if l.Progress == nil {
		return func() {}
	}
	return every(time.Second, func(done bool) {
		l.Progress(Event{Ordinal: l.Ordinal, Name: l.Target, Bytes: source.bytes.Load(), Expected: expected, Done: done})
	})
}

// CoordinatesFor chooses the position from which a copy of a dumped server
// continues when it follows up. A dump has two: the server's own, for those
// that follow it, and, when it was itself a follower, its upstream's, for its
// siblings. The result has no Upstream: there is one position left.
func CoordinatesFor(c record.Coordinates, up *dbdump.Upstream) record.Coordinates {
	own := c
	own.Upstream = nil
	if c.Upstream == nil || up == nil {
		return own
	}
	u := c.Upstream
	return record.Coordinates{GTID: u.GTID, File: u.File, Position: u.Position}
}

func hostPort(up *dbdump.Upstream) string { return net.JoinHostPort(up.Host, strconv.Itoa(up.Port)) }

// closeEngine gives back an engine's connections. What it was opened for has
// been decided by then; an error here has nobody left to change its mind.
func closeEngine(e dbdump.Engine) {
	if c, ok := e.(io.Closer); ok {
		_ = c.Close()
	}
}
