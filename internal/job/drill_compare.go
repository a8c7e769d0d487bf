package job

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// This file compares a restored server with the backup, by dumping it once more.

// compare dumps the restored server, keeps nothing of it, and compares what the
// engine says of it with what it said when the backup was taken.
func (r *drilling) compare(ctx context.Context, address string) error {
	engine, err := r.Open(address)
	if err != nil {
		return err
	}
	defer closeEngine(engine)
	canonical := func(definition []byte) []byte { return definition }
	if definer, ok := engine.(dbdump.Definer); ok {
		canonical = definer.Canonical
	}
	sink := newDefinitions(r.dumped.Objects, canonical)
	got, err := engine.Dump(ctx, sink)
	if err != nil {
		return fmt.Errorf("dump the restored server to compare it: %w", err)
	}
	r.report.Server = strings.TrimSpace(got.Flavor + " " + got.Version)
	r.verdict(DrillObjects, compareObjects(r.dumped.Objects, got.Objects), fmt.Sprintf("all %d objects are there", len(r.dumped.Objects)))
	r.checksums(got)
	return r.definitions(ctx, sink, got)
}

// verdict is a check that passes when nothing differs.
func (r *drilling) verdict(check string, differences []string, well string) {
	if len(differences) == 0 {
		r.say(check, record.ProofOK, well)
		return
	}
	const most = 5
	text := strings.Join(differences[:min(most, len(differences))], "; ")
	if len(differences) > most {
		text += fmt.Sprintf("; and %d more", len(differences)-most)
	}
	r.say(check, record.ProofFailed, text)
}

// identityOf tells objects apart: those of one kind and name have definitions of their own.
func identityOf(o *record.Object) string {
	return strings.Join([]string{o.Kind, o.Schema, o.Name, o.DDL}, "\x00")
}

func nameOf(o *record.Object) string {
	if o.Schema == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Schema + "." + o.Name
}

// Kinds that a load does not bring back as they were. An event whose time has
// passed is dropped by the server, and the others are kept from running.
// Accounts come back, but for the one that the load itself uses, beside those
// that the server was made with.
const (
	kindEvent = "event"
	kindUser  = "user"
)

// compareObjects finds objects that are missing, that are there beside, and
// tables whose rows are not as many.
func compareObjects(want, got []record.Object) (differences []string) {
	have := make(map[string]*record.Object, len(got))
	for i := range got {
		have[identityOf(&got[i])] = &got[i]
	}
	wanted := make(map[string]bool, len(want))
	for i := range want {
		o := &want[i]
		wanted[identityOf(o)] = true
		restored := have[identityOf(o)]
		switch {
		case o.Kind == kindEvent:
		case restored == nil:
			differences = append(differences, nameOf(o)+" is missing")
		case restored.Rows != o.Rows:
			differences = append(differences, fmt.Sprintf("%s has %d rows of %d", nameOf(o), restored.Rows, o.Rows))
		}
	}
	for i := range got {
		if o := &got[i]; o.Kind != kindUser && o.Kind != kindEvent && !wanted[identityOf(o)] {
			differences = append(differences, nameOf(o)+" is not in the backup")
		}
	}
	return differences
}

// checksums compares the content of the tables that both sides have.
func (r *drilling) checksums(got record.Report) {
	have := make(map[string]*record.Object, len(got.Objects))
	for i := range got.Objects {
		have[identityOf(&got.Objects[i])] = &got.Objects[i]
	}
	compared, unknown := 0, 0
	var differences []string
	for i := range r.dumped.Objects {
		o := &r.dumped.Objects[i]
		restored := have[identityOf(o)]
		switch {
		case restored == nil || o.Rows < 0: // DrillObjects has said what is missing
		case o.Checksum == "" || restored.Checksum == "":
			unknown++
		default:
			compared++
			if o.Checksum != restored.Checksum {
				differences = append(differences, nameOf(o)+" holds other values than when it was dumped")
			}
		}
	}
	if compared == 0 && unknown > 0 {
		r.say(DrillChecksums, record.ProofSkipped, "the backup records no checksums: its rows were counted, and nothing else")
		return
	}
	well := fmt.Sprintf("%d tables hold what was dumped", compared)
	if unknown > 0 {
		well += fmt.Sprintf("; %d have no checksum", unknown)
	}
	r.verdict(DrillChecksums, differences, well)
}

// definitions compares the statements that make the objects. Servers of another
// version write them in another way, so that only like is compared with like.
func (r *drilling) definitions(ctx context.Context, sink *definitions, got record.Report) error {
	if got.Flavor != r.dumped.Flavor || got.Version != r.dumped.Version {
		r.say(DrillDefinitions, record.ProofSkipped, fmt.Sprintf("%s %s was dumped, and restored into %s: they write definitions in different ways", r.dumped.Flavor, r.dumped.Version, r.report.Server))
		return nil
	}
	member, err := r.Repository.OpenMember(ctx, r.info, r.report.Ordinal)
	if err != nil {
		return err
	}
	defer member.Close() //nolint:errcheck // it has only been read
	compared := 0
	var differences []string
	for i := range r.dumped.Objects {
		o := &r.dumped.Objects[i]
		restored, ok := sink.sum(o.DDL)
		if !ok { // missing, or not to be compared
			continue
		}
		dumped, err := sink.sumOf(ctx, member, o.DDL)
		if err != nil {
			return err
		}
		compared++
		if dumped != restored {
			differences = append(differences, nameOf(o)+" is defined differently")
		}
	}
	r.verdict(DrillDefinitions, differences, fmt.Sprintf("%d definitions are what was dumped", compared))
	return nil
}

// definitions is a sink that keeps the hashes of definitions, and nothing else.
type definitions struct {
	canonical func([]byte) []byte
	wanted    map[string]bool
	mu        sync.Mutex
	sums      map[string][sha256.Size]byte
}

func newDefinitions(objects []record.Object, canonical func([]byte) []byte) *definitions {
	d := &definitions{canonical: canonical, wanted: map[string]bool{}, sums: map[string][sha256.Size]byte{}}
	for i := range objects {
		if o := &objects[i]; o.DDL != "" && o.Kind != kindEvent {
			d.wanted[o.DDL] = true
		}
	}
	return d
}

// sumOf is the sum of the definition in the backup.
func (d *definitions) sumOf(ctx context.Context, member *repository.MemberReader, stream string) (sum [sha256.Size]byte, err error) {
	body, err := member.Open(ctx, stream)
	if err != nil {
		return sum, err
	}
	definition, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil {
		return sum, fmt.Errorf("read %s: %w", stream, err)
	}
	return sha256.Sum256(d.canonical(definition)), nil
}

func (d *definitions) sum(stream string) ([sha256.Size]byte, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum, ok := d.sums[stream]
	return sum, ok
}

// Create implements dbdump.Sink. Secret streams hold accounts and what else is
// the server's own: they differ as they should.
func (d *definitions) Create(ctx context.Context, name string, o dbdump.StreamOptions) (dbdump.Stream, error) {
	return &definition{of: d, name: name, kept: d.wanted[name] && !o.Secret}, ctx.Err()
}

// definition is one stream.
type definition struct {
	of   *definitions
	name string
	kept bool
	text []byte
}

// Write implements dbdump.Stream.
func (s *definition) Write(p []byte) (int, error) {
	if s.kept {
		s.text = append(s.text, p...)
	}
	return len(p), nil
}

// Close implements dbdump.Stream.
func (s *definition) Close() error {
	if s.kept {
		s.of.mu.Lock()
		defer s.of.mu.Unlock()
		s.of.sums[s.name] = sha256.Sum256(s.of.canonical(s.text))
	}
	return nil
}

// Abort implements dbdump.Stream.
func (s *definition) Abort(error) {}
