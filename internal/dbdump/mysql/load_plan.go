package mysql

import (
	"fmt"
	"slices"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// loadObject is an object of the dump and the schema that it goes to.
type loadObject struct {
	record.Object
	// Target is the schema's name on the target, which Rename may have changed.
	Target string
}

// String names the object in messages.
func (o loadObject) String() string {
	if o.Name == "" || o.Kind == KindSchema {
		return o.Kind + " " + quoteIdentifier(o.Target)
	}
	return o.Kind + " " + quoteQualified(o.Target, o.Name)
}

// loadPlan is what a load is going to create, by kind, each in the order of the dump.
type loadPlan struct {
	server    []loadObject
	users     []record.Object
	schemas   []loadObject
	sequences []loadObject
	tables    []loadObject
	routines  []loadObject
	views     []loadObject
	triggers  []loadObject
	events    []loadObject
	// whole tells the target schemas that are loaded with everything in them, as opposed to some tables of theirs: by
	// their names, and once the target is known also by these as Server.fold has them.
	whole map[string]bool
}

// planLoad selects from the report what the options ask for.
func planLoad(report record.Report, o LoadOptions) (*loadPlan, error) {
	if report.Engine != "mysql" || report.Layout != Layout {
		return nil, fmt.Errorf("%w: %s wrote it (%s), and a target mysql:// takes what mysql wrote (%s)", dbdump.ErrForeign, report.Engine, report.Layout, Layout)
	}
	p := &loadPlan{whole: make(map[string]bool)}
	for _, object := range report.Objects {
		if err := p.add(object, o); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(p.triggers, func(a, b loadObject) int {
		return attributeNumber(a.Object, AttrOrder) - attributeNumber(b.Object, AttrOrder)
	})
	return p, p.check(report, o)
}

// add sorts one object of the dump into the plan, or leaves it out when it was not selected.
func (p *loadPlan) add(object record.Object, o LoadOptions) error {
	to := loadObject{Object: object, Target: o.target(object.Schema)}
	if to.Schema == "" && object.Kind == KindSchema {
		to.Schema, to.Target = object.Name, o.target(object.Name)
	}
	whole := o.Filter.Whole(to.Schema)
	named := func(name string) bool { return o.Filter.Table(to.Schema, name) }
	switch object.Kind {
	case KindServer:
		if o.Filter.Empty() {
			p.server = append(p.server, to)
		}
	case KindUser:
		if o.Accounts != AccountsSkip {
			p.users = append(p.users, object)
		}
	case KindSchema:
		if o.Filter.Schema(to.Schema) {
			p.schemas = append(p.schemas, to)
			p.whole[to.Target] = whole
		}
	case KindSequence:
		p.sequences = appendIf(p.sequences, to, named(object.Name))
	case KindTable:
		p.tables = appendIf(p.tables, to, named(object.Name))
	case KindView:
		p.views = appendIf(p.views, to, named(object.Name))
	case KindTrigger:
		p.triggers = appendIf(p.triggers, to, named(object.Attributes[AttrTable]))
	case KindRoutine:
		p.routines = appendIf(p.routines, to, whole)
	case KindEvent:
		p.events = appendIf(p.events, to, whole)
	default:
		return fmt.Errorf("the dump holds an object of the unknown kind %q: it was written by a later version", object.Kind)
	}
	return nil
}

// check refuses a plan that cannot be meant.
func (p *loadPlan) check(report record.Report, o LoadOptions) error {
	for _, list := range [][]loadObject{p.schemas, p.sequences, p.tables, p.routines, p.views, p.triggers, p.events} {
		for _, object := range list {
			if isSystemSchema(object.Target) {
				return fmt.Errorf("%s would go into a system schema", object)
			}
		}
	}
	if !o.Filter.Empty() && len(p.tables)+len(p.views)+len(p.sequences)+len(p.routines)+len(p.events) == 0 {
		for _, s := range p.schemas {
			if p.whole[s.Target] {
				return nil // an empty database was asked for by its name
			}
		}
		return fmt.Errorf("nothing in the backup is selected by %s (%d objects are there)", describeFilter(o.Filter), len(report.Objects))
	}
	have := make(map[string]bool, len(p.schemas))
	for _, s := range p.schemas {
		if have[s.Target] {
			return fmt.Errorf("two databases of the backup would both become %q: rename one of them", s.Target)
		}
		have[s.Target] = true
	}
	for old := range o.Rename {
		if !slices.ContainsFunc(report.Objects, func(x record.Object) bool { return x.Schema == old || x.Kind == KindSchema && x.Name == old }) {
			return fmt.Errorf("rename: the backup holds no database %q", old)
		}
	}
	return nil
}

// checkCase refuses names that the target cannot keep apart.
func (p *loadPlan) checkCase(server Server) error {
	if server.LowerCaseTableNames == 0 {
		return nil
	}
	seen := make(map[string]string)
	for _, list := range [][]loadObject{p.schemas, p.tables, p.views, p.sequences} {
		for _, object := range list {
			name := object.String()
			key := strings.ToLower(name[strings.IndexByte(name, ' '):])
			if other, ok := seen[key]; ok {
				return fmt.Errorf("%s and %s differ only by case: the target does not tell them apart (lower_case_table_names=%d)",
					other, name, server.LowerCaseTableNames)
			}
			seen[key] = name
		}
	}
	return nil
}

func appendIf(list []loadObject, object loadObject, selected bool) []loadObject {
	if !selected {
		return list
	}
	return append(list, object)
}

// attributeNumber reads an attribute that is a number; 0 when it is none.
func attributeNumber(object record.Object, key string) int {
	n := 0
	for _, c := range object.Attributes[key] {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// describeFilter writes a filter for a message.
func describeFilter(f Filter) string {
	text := strings.Join(f.Include, ", ")
	if text == "" {
		text = "everything"
	}
	if len(f.Exclude) > 0 {
		text += " without " + strings.Join(f.Exclude, ", ")
	}
	return text
}
