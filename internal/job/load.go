package job

import (
	"context"
	"errors"
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
	// OneDatabase: the set's members are copies of one database, and a backup has
	// the one that was active. The newest is taken whichever that was; an Ordinal
	// that is not negative has to be it, or the wrong backup is meant.
	OneDatabase bool
	// Target is host:port, for messages.
	Target string
	// Open makes an engine for the target. Engines are not reused, and a load
	// needs more than one, hence a function.
	Open func() (dbdump.Engine, error)
	// Upstream is whom the target shall follow after the load; nil for nobody.
	Upstream *dbdump.Upstream
	// Beginning says that the upstream was itself loaded from the same member
	// and has logged nothing of it: the position is the beginning of its log.
	Beginning bool
	// Lead makes a target that follows nobody continue the dumped server's
	// replication history in place of its own.
	Lead bool
	// Adopt says that the target has come up on a copy of the member's files:
	// nothing is loaded, the server is made one of its own.
	Adopt bool
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
	// Entries of a directory: files, links, directories and so on.
	Entries  int64    `json:"entries,omitempty"`
	Bytes    int64    `json:"bytes"`
	Objects  int      `json:"objects"`
	Seconds  float64  `json:"seconds"`
	Omitted  []string `json:"omitted,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	DryRun   bool     `json:"dryRun,omitempty"`
}

// Of is the set whose member is loaded.
func (l *Load) Of() record.SetID { return l.Set }

// Run loads the member. Nothing is touched before the backup has been found,
// its member opened, and the upstream asked whether it can continue.
func (l *Load) Run(ctx context.Context) (*LoadReport, error) {
	start := l.Clock()
	member, report, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	loaded, err := l.load(ctx, member)
	if err = errors.Join(err, member.Close()); err != nil {
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
	return report, member.Close()
}

func (l *Load) prepare(ctx context.Context) (*repository.MemberReader, *LoadReport, error) {
	info, passed, err := l.Choice.resolve(ctx, l.Repository, l.Set)
	if err != nil {
		return nil, nil, err
	}
	if passed != "" {
		l.Log.Warn(passed)
	}
	if l.OneDatabase {
		if l.Ordinal, err = onlyMember(info, l.Ordinal); err != nil {
			return nil, nil, err
		}
	}
	if info.Plan.Method == record.MethodFiles {
		return nil, nil, errTree(info.ID)
	}
	if info.Plan.Method == record.MethodPhysical && !l.Adopt {
		return nil, nil, errBase(info.ID)
	}
	if info.Plan.Method == record.MethodSnapshot && !l.Adopt {
		return nil, nil, fmt.Errorf("%w: backup %s consists of volume snapshots, which hold no rows that could be loaded; restore run makes volumes of them", ErrConfig, info.ID)
	}
	member, err := l.Repository.OpenMember(ctx, info, l.Ordinal)
	if err != nil {
		return nil, nil, fmt.Errorf("open ordinal %d of backup %s: %w", l.Ordinal, info.ID, err)
	}
	r := member.Report()
	report := &LoadReport{
		Set: l.Set.String(), Backup: info.ID, Ordinal: l.Ordinal, Target: l.Target, CapturedAt: r.CapturedAt,
	}
	if l.Upstream != nil {
		report.Follows = hostPort(l.Upstream)
		if unseen(r) { // its files know where they end, nobody else does
			return member, report, nil
		}
		if err := l.checkUpstream(ctx, r.Coordinates); err != nil {
			return nil, nil, errors.Join(err, member.Close())
		}
	}
	return member, report, nil
}

// onlyMember is the one that a backup of one database has. A wish that is not
// negative is for that one.
func onlyMember(info repository.BackupInfo, wish int) (int, error) {
	members := info.Plan.Members
	if len(members) != 1 {
		if _, planned := info.Plan.Member(wish); planned {
			return wish, nil
		}
		return 0, fmt.Errorf("%w: backup %s has %d members: say which with --ordinal", ErrConfig, info.ID, len(members))
	}
	has := members[0].Ordinal
	if wish >= 0 && wish != has {
		return 0, fmt.Errorf("%w: backup %s, captured %s, has ordinal %d, which was the active one then, and not %d: leave --ordinal out to take it, or name an older backup with --backup",
			ErrConfig, info.ID, captured(&info), has, wish)
	}
	return has, nil
}

func (l *Load) checkUpstream(ctx context.Context, c record.Coordinates) error {
	f, done, err := l.follower()
	if err != nil {
		return err
	}
	defer done()
	_, err = l.position(ctx, f, c)
	return err
}

// checkAdmitted finds out before hours of loading what would end them in vain:
// that the upstream has another follower of the target's identity.
func (l *Load) checkAdmitted(ctx context.Context) error {
	if l.Upstream == nil {
		return nil
	}
	f, done, err := l.follower()
	if err != nil {
		return err
	}
	defer done()
	if err := f.Admits(ctx, *l.Upstream); err != nil {
		return fmt.Errorf("check that %s can become a follower of %s, before it is loaded: %w", l.Target, hostPort(l.Upstream), err)
	}
	return nil
}

// load loads, compares, and follows.
func (l *Load) load(ctx context.Context, member *repository.MemberReader) (record.Report, error) {
	if err := l.checkAdmitted(ctx); err != nil {
		return record.Report{}, err
	}
	loaded, c := member.Report(), member.Report().Coordinates
	var err error
	if l.Adopt {
		c, err = l.adopt(ctx, loaded)
	} else {
		loaded, err = l.fill(ctx, member)
	}
	switch {
	case err != nil:
	case l.Upstream != nil:
		err = l.follow(ctx, c)
	case l.Lead:
		err = l.lead(ctx, c)
	}
	return loaded, err
}

// fill brings the streams into the target and compares.
func (l *Load) fill(ctx context.Context, member *repository.MemberReader) (record.Report, error) {
	engine, err := l.Open()
	if err != nil {
		return record.Report{}, err
	}
	defer closeEngine(engine)
	source := &countingSource{source: member}
	stop := l.watch(source, member.Report().Bytes)
	loaded, err := engine.Load(ctx, source)
	stop(err)
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
	return loaded, nil
}

// adopt takes the dumped server's identity off the target, and returns where
// its files end.
func (l *Load) adopt(ctx context.Context, dumped record.Report) (record.Coordinates, error) {
	c := dumped.Coordinates
	engine, err := l.Open()
	if err != nil {
		return c, err
	}
	defer closeEngine(engine)
	adopter, ok := engine.(dbdump.Adopter)
	if !ok {
		return c, fmt.Errorf("%w: this engine cannot take over the files of another server", ErrConfig)
	}
	if checker, ok := engine.(dbdump.FileChecker); ok {
		if err := checker.CheckFiles(ctx, dumped); err != nil {
			return c, fmt.Errorf("adopt the files of ordinal %d at %s: %w", l.Ordinal, l.Target, err)
		}
	}
	if c, err = adopter.Adopt(ctx, c); err != nil {
		return c, fmt.Errorf("adopt the files of ordinal %d at %s: %w", l.Ordinal, l.Target, err)
	}
	l.Log.Info("files adopted", "ordinal", l.Ordinal, "target", l.Target)
	return c, nil
}

func (l *Load) follow(ctx context.Context, c record.Coordinates) error {
	f, done, err := l.follower()
	if err != nil {
		return err
	}
	defer done()
	// Asked again: logs may have been purged while the rows were loaded.
	if c, err = l.position(ctx, f, c); err != nil {
		return err
	}
	if err := f.Follow(ctx, c, *l.Upstream); err != nil {
		return fmt.Errorf("make %s follow %s: %w", l.Target, hostPort(l.Upstream), err)
	}
	l.Log.Info("follower has caught up", "target", l.Target, "upstream", hostPort(l.Upstream))
	return nil
}

// lead makes the target the head of a replication tree.
func (l *Load) lead(ctx context.Context, c record.Coordinates) error {
	engine, err := l.Open()
	if err != nil {
		return err
	}
	defer closeEngine(engine)
	leader, ok := engine.(dbdump.Leader)
	if !ok {
		return nil // its servers do not replicate
	}
	if err := leader.Lead(ctx, c); err != nil {
		return fmt.Errorf("make %s continue from the backup's coordinates: %w", l.Target, err)
	}
	return nil
}

// position returns the coordinates from which the target follows, after the
// upstream has been asked whether it can serve them.
func (l *Load) position(ctx context.Context, f dbdump.Follower, c record.Coordinates) (record.Coordinates, error) {
	if l.Beginning {
		leader, ok := f.(dbdump.Leader)
		if !ok {
			return c, fmt.Errorf("%w: this engine cannot restore a replicating set", ErrConfig)
		}
		origin, err := leader.Origin(ctx, c, *l.Upstream)
		if err != nil {
			return c, fmt.Errorf("find the beginning of %s: %w", hostPort(l.Upstream), err)
		}
		c = origin
	}
	if err := f.Check(ctx, c, *l.Upstream); err != nil {
		return c, fmt.Errorf("check that %s can be followed: %w", hostPort(l.Upstream), err)
	}
	return c, nil
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

func (l *Load) watch(source *countingSource, expected int64) (stop func(error)) {
	if l.Progress == nil {
		return func(error) {}
	}
	return every(time.Second, func(done, failed bool) {
		l.Progress(Event{Ordinal: l.Ordinal, Name: l.Target, Bytes: source.bytes.Load(), Expected: expected, Done: done, Failed: failed})
	})
}

func hostPort(up *dbdump.Upstream) string { return net.JoinHostPort(up.Host, strconv.Itoa(up.Port)) }

// closeEngine gives back an engine's connections. What it was opened for has
// been decided by then; an error here has nobody left to change its mind.
func closeEngine(e any) {
	if c, ok := e.(io.Closer); ok {
		_ = c.Close()
	}
}
