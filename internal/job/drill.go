package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// Drill restores one member of a backup into a server that nobody uses, compares
// what has arrived with what was recorded when it was dumped, asks what the user
// wants to know of it, takes everything away again, and signs what it found. It
// takes no Lease that a backup would mind, and touches nothing of the set.
type Drill struct {
	Repository *repository.Repository
	Set        record.SetID
	Choice     Choice
	// Ordinal of the member; [PrimaryOrdinal] for the one that a restore of the
	// whole set would load.
	Ordinal int
	// Engine whose servers Open opens.
	Engine string
	// Place is where the server comes from.
	Place DrillPlace
	// Open makes an engine that loads into, or dumps, the server at an address.
	// Ready asks once whether that server accepts our account.
	Open  func(address string) (dbdump.Engine, error)
	Ready func(ctx context.Context, address string) error
	// Queries each have to return a row whose first column is true.
	Queries []string
	// Command, if not nil, is run beside them; its error fails the drill.
	Command func(ctx context.Context, address string) error
	// AllowEmpty and AllowNoCoordinates take what would otherwise be a finding.
	AllowEmpty, AllowNoCoordinates bool
	// NoProof: what was found is only said, not stored.
	NoProof  bool
	Tool     string
	Clock    func() time.Time
	Log      *slog.Logger
	Progress Progress
}

// PrimaryOrdinal stands for the member that a restore of the whole set loads.
const PrimaryOrdinal = -1

// DrillPlace provides an empty server, and takes it away again.
type DrillPlace interface {
	// Plan says in words what Provide and Remove are going to do.
	Plan(ctx context.Context, member record.PlannedMember) ([]string, error)
	// Provide returns the host:port of a server that accepts our account.
	Provide(ctx context.Context, member record.PlannedMember) (address string, err error)
	// Alive says why the server does not answer, where it can tell.
	Alive(ctx context.Context) error
	// Remove takes away what Provide has made, however far it came.
	Remove(ctx context.Context) error
}

// The checks of a drill, in the order in which they are made.
const (
	DrillContent     = "content"     // the backup holds something
	DrillCoordinates = "coordinates" // replication could continue from it
	DrillLoad        = "load"        // it can be loaded, and as many rows arrive
	DrillObjects     = "objects"     // nothing is missing, nothing is there beside
	DrillChecksums   = "checksums"   // the rows are those that were dumped
	DrillDefinitions = "definitions" // tables, views and code are defined as they were
	DrillQueries     = "queries"     // the user's
	DrillCommand     = "command"     // the user's
)

// DrillCheck is one check and how it ended.
type DrillCheck struct {
	Check string `json:"check"`
	// State is record.ProofOK, ProofFailed or ProofSkipped.
	State string `json:"state"`
	What  string `json:"what"`
}

// DrillReport is what a Drill found, or with DryRun what it would do.
type DrillReport struct {
	Set        string          `json:"set"`
	Backup     record.BackupID `json:"backup"`
	Ordinal    int             `json:"ordinal"`
	CapturedAt time.Time       `json:"capturedAt"`
	Passed     bool            `json:"passed"`
	Checks     []DrillCheck    `json:"checks"`
	Rows       int64           `json:"rows"`
	Bytes      int64           `json:"bytes"`
	Objects    int             `json:"objects"`
	// Server that it was restored into, for example "mariadb 10.11.19".
	Server string `json:"server,omitempty"`
	// RestoreSeconds until the data was there: what a restore takes. Seconds of it all.
	RestoreSeconds float64 `json:"restoreSeconds"`
	Seconds        float64 `json:"seconds"`
	// Proven: the proof is stored.
	Proven   bool     `json:"proven"`
	Warnings []string `json:"warnings,omitempty"`
	// Steps of a dry run.
	Steps  []string `json:"steps,omitempty"`
	DryRun bool     `json:"dryRun,omitempty"`
}

// Of is the set.
func (d *Drill) Of() record.SetID { return d.Set }

// DryRun finds the backup, opens its members, and says what would be done.
func (d *Drill) DryRun(ctx context.Context) (*DrillReport, error) {
	r, err := d.prepare(ctx)
	if err != nil {
		return nil, err
	}
	r.report.DryRun = true
	r.before()
	steps, err := d.Place.Plan(ctx, r.member())
	if err != nil {
		return nil, err
	}
	r.report.Steps = append(steps, "load ordinal "+fmt.Sprint(r.report.Ordinal)+" of backup "+string(r.info.ID)+" and compare its rows, objects, checksums and definitions")
	for _, q := range d.Queries {
		r.report.Steps = append(r.report.Steps, "ask "+q)
	}
	if !d.NoProof {
		r.report.Steps = append(r.report.Steps, "store a signed proof")
	}
	return r.report, nil
}

// Run drills. ErrDrill when the backup is wanting: then, too, the report is there
// and the proof stored. Any other error says that nothing was found out.
func (d *Drill) Run(ctx context.Context) (report *DrillReport, err error) {
	start := d.Clock()
	r, err := d.prepare(ctx)
	if err != nil {
		return nil, err
	}
	r.before()
	err = r.inPlace(ctx, start)
	if err == nil {
		err = ctx.Err()
	}
	removed := r.remove(ctx)
	r.report.Seconds = d.Clock().Sub(start).Seconds()
	if err != nil {
		return r.report, errors.Join(err, removed)
	}
	return r.report, errors.Join(r.conclude(ctx), removed)
}

// drilling is one drill of one member.
type drilling struct {
	*Drill
	info    repository.BackupInfo
	members backedUp
	// dumped is what the engine said when it dumped the member.
	dumped record.Report
	report *DrillReport
}

// member is the one that is drilled, as the backup planned it.
func (r *drilling) member() record.PlannedMember {
	planned, _ := r.info.Plan.Member(r.report.Ordinal)
	return planned
}

// prepare finds and opens what is to be drilled. Nothing is changed.
func (d *Drill) prepare(ctx context.Context) (*drilling, error) {
	if !d.NoProof {
		if err := d.Repository.CanProve(); err != nil {
			return nil, fmt.Errorf("%w; --no-proof drills and stores nothing", err)
		}
	}
	info, passed, err := d.Choice.resolve(ctx, d.Repository, d.Set)
	if err != nil {
		return nil, err
	}
	if passed != "" {
		d.Log.Warn(passed)
	}
	if info.Plan.Method != record.MethodDump {
		return nil, fmt.Errorf("%w: backup %s was captured by the method %s, and drills are made of the method %s alone", ErrConfig, info.ID, info.Plan.Method, record.MethodDump)
	}
	if d.Engine != "" && info.Plan.Engine != "" && info.Plan.Engine != d.Engine {
		return nil, fmt.Errorf("%w: backup %s was taken by the engine %s, and this drill is made for servers of the engine %s", ErrConfig, info.ID, info.Plan.Engine, d.Engine)
	}
	members, err := openMembers(ctx, d.Repository, info)
	if err != nil {
		return nil, err
	}
	r := &drilling{Drill: d, info: info, members: members}
	ordinal := d.Ordinal
	if ordinal == PrimaryOrdinal {
		ordinal = members.primary()
	}
	var found bool
	if r.dumped, found = members.find(ordinal); !found {
		return nil, fmt.Errorf("%w: backup %s has no valid member of ordinal %d; it has %s", ErrConfig, info.ID, ordinal, members.ordinals())
	}
	r.report = &DrillReport{
		Set: d.Set.String(), Backup: info.ID, Ordinal: ordinal, CapturedAt: r.dumped.CapturedAt.UTC(), Checks: []DrillCheck{},
		Rows: r.dumped.Rows, Bytes: r.dumped.Bytes, Objects: len(r.dumped.Objects),
	}
	return r, nil
}

// before makes the checks that need no server.
func (r *drilling) before() {
	rows, tables := r.dumped.Rows, 0
	for _, o := range r.dumped.Objects {
		if o.Rows >= 0 {
			tables++
		}
	}
	content := fmt.Sprintf("%d rows in %d tables", rows, tables)
	switch {
	case rows > 0:
		r.say(DrillContent, record.ProofOK, content)
	case r.AllowEmpty:
		r.say(DrillContent, record.ProofSkipped, content+", which is allowed")
	default:
		r.say(DrillContent, record.ProofFailed, content+": the backup holds nothing that could be restored; --allow-empty if that is as it should be")
	}
	r.coordinates()
}

// inPlace provides the server and makes the checks that need one.
func (r *drilling) inPlace(ctx context.Context, start time.Time) error {
	address, err := r.Place.Provide(ctx, r.member())
	if err != nil {
		return fmt.Errorf("provide a server for the drill: %w", err)
	}
	loaded, err := r.load(ctx, address)
	if err != nil || !loaded {
		return err
	}
	r.report.RestoreSeconds = r.Clock().Sub(start).Seconds()
	if err := r.compare(ctx, address); err != nil {
		return err
	}
	if err := r.ask(ctx, address); err != nil {
		return err
	}
	return r.command(ctx, address)
}

// load loads the member; false when that is what the drill found impossible.
func (r *drilling) load(ctx context.Context, address string) (bool, error) {
	l := &Load{
		Repository: r.Repository, Set: r.Set, Ordinal: r.report.Ordinal, Target: address,
		Choice: Choice{
			Selector: repository.Selector{ID: r.info.ID}, AllowIncomplete: r.Choice.AllowIncomplete, AllowSuspect: r.Choice.AllowSuspect,
			Whole: r.Choice.Whole, AllowFiltered: r.Choice.AllowFiltered,
		},
		Open: func() (dbdump.Engine, error) { return r.Open(address) }, Clock: r.Clock, Log: r.Log, Progress: r.Progress,
	}
	loaded, err := l.Run(ctx)
	if err != nil {
		if err = r.blame(ctx, address, err); err != nil {
			return false, err
		}
		return false, nil
	}
	r.report.Warnings = append(r.report.Warnings, loaded.Warnings...)
	r.say(DrillLoad, record.ProofOK, fmt.Sprintf("%d rows and %d objects were loaded in %.1f s", loaded.Rows, loaded.Objects, loaded.Seconds))
	return true, nil
}

// blame decides whether a load that failed is a finding about the backup. It is
// none when the drill was interrupted, or the server or the store does not
// answer, or was not what a drill needs: then the error comes back.
func (r *drilling) blame(ctx context.Context, address string, failed error) error {
	notTheBackup := []error{dbdump.ErrUnreachable, dbdump.ErrAccess, dbdump.ErrPrivilege, dbdump.ErrNotEmpty, dbdump.ErrUntrusted, ErrConfig, repository.ErrNoBackup}
	if ctx.Err() != nil || slices.ContainsFunc(notTheBackup, func(target error) bool { return errors.Is(failed, target) }) {
		return failed
	}
	if err := r.Place.Alive(ctx); err != nil {
		return errors.Join(failed, err)
	}
	if err := r.Ready(ctx, address); err != nil {
		return errors.Join(failed, err)
	}
	if _, err := r.Repository.Backup(ctx, r.Set, r.info.ID); err != nil {
		return errors.Join(failed, err)
	}
	r.say(DrillLoad, record.ProofFailed, failed.Error())
	return nil
}

// say notes a check.
func (r *drilling) say(check, state, what string) {
	r.report.Checks = append(r.report.Checks, DrillCheck{check, state, what})
	log := r.Log.Info
	if state == record.ProofFailed {
		log = r.Log.Error
	}
	log("drill", "check", check, "state", state, "what", what)
}

// remove takes the server away, also when the drill was interrupted.
func (r *drilling) remove(ctx context.Context) error {
	const patience = 5 * time.Minute
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := r.Place.Remove(ctx); err != nil {
		return fmt.Errorf("remove what the drill made: %w; the next drill, or restore abort, removes it", err)
	}
	return nil
}

// conclude stores the proof and says how the drill ended.
func (r *drilling) conclude(ctx context.Context) error {
	var failed []string
	proof := record.Proof{
		Ordinal: r.report.Ordinal, Rows: r.report.Rows, Bytes: r.report.Bytes, Objects: r.report.Objects, Server: r.report.Server,
		RestoreSeconds: r.report.RestoreSeconds, Seconds: r.report.Seconds, Tool: r.Tool,
	}
	for _, c := range r.report.Checks {
		proof.Checks = append(proof.Checks, record.ProofCheck{Check: c.Check, State: c.State})
		if c.State == record.ProofFailed {
			failed = append(failed, c.Check+": "+c.What)
		}
	}
	proof.Passed = len(failed) == 0
	r.report.Passed = proof.Passed
	if !r.NoProof {
		if _, err := r.Repository.Prove(ctx, r.info, proof); err != nil {
			return err
		}
		r.report.Proven = true
	}
	if len(failed) == 0 {
		return nil
	}
	text := failed[0]
	if len(failed) > 1 {
		text = fmt.Sprintf("%s; and %d more", text, len(failed)-1)
	}
	return fmt.Errorf("%w: ordinal %d of backup %s of %s: %s", ErrDrill, r.report.Ordinal, r.info.ID, r.Set, text)
}
