package postgres

import (
	"fmt"
	"slices"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// loadPlan is what a load is going to create.
type loadPlan struct {
	roles     []record.Object
	databases []*loadDatabase
}

// loadDatabase is one database of the dump.
type loadDatabase struct {
	name, target string
	self         record.Object
	// whole tells that the database is made anew, with everything in it; else
	// what is selected is added to a database that may be there already.
	whole   bool
	objects []record.Object // all that are selected, the database first
	chosen  *selection
	made    map[[2]string]bool // the relations among the objects
	// drops are the relations of the target that come again, and attach the
	// partitions that come back to a table of the target: see checkPart.
	drops  []*relation
	attach []record.Object
}

// planLoad selects from the report what the options ask for.
func planLoad(report record.Report, o LoadOptions) (*loadPlan, error) {
	if report.Engine != "postgres" || report.Layout != Layout {
		return nil, fmt.Errorf("%w: %s wrote it (%s), and a target postgres:// takes what postgres wrote (%s)", dbdump.ErrForeign, report.Engine, report.Layout, Layout)
	}
	p := &loadPlan{}
	chosen := chosenIn(report, o.Filter)
	byName := map[string]*loadDatabase{}
	for _, object := range report.Objects {
		switch object.Kind {
		case KindRole, KindTablespace:
			if o.Roles != RolesSkip && object.Kind == KindRole {
				p.roles = append(p.roles, object)
			}
		case KindDatabase:
			if o.Filter.Database(object.Name) {
				db := &loadDatabase{name: object.Name, target: o.target(object.Name), self: object, objects: []record.Object{object}, made: map[[2]string]bool{}}
				db.whole = o.Filter.WholeDatabase(object.Name) && object.Attributes[AttrPartial] == ""
				db.chosen = chosen[object.Name]
				byName[object.Name] = db
				p.databases = append(p.databases, db)
			}
		case KindExtension, KindSchema, KindRoutine, KindSequence, KindTable, KindView, KindForeignTable, KindLargeObjects:
			if db := byName[object.Attributes[AttrDatabase]]; db != nil {
				db.add(object, o.Filter)
			}
		default:
			return nil, fmt.Errorf("the dump holds an object of the unknown kind %q: it was written by a later version", object.Kind)
		}
	}
	return p, p.check(report, o)
}

// chosenIn are the selections among the relations of each database of a dump.
func chosenIn(report record.Report, f Filter) map[string]*selection {
	chosen := map[string]*selection{}
	for _, o := range report.Objects {
		name := o.Attributes[AttrDatabase]
		if chosen[name] == nil {
			chosen[name] = newSelection(f, name)
		}
		var owner [2]string
		if list := unquoteNames(o.Attributes[AttrOwnedBy]); len(list) == 1 {
			owner = list[0]
		}
		if isRelation(o) {
			chosen[name].know(nameOf(o), unquoteNames(o.Attributes[AttrPartitionOf]), owner)
		}
	}
	return chosen
}

// add takes an object when the filter selects it.
func (db *loadDatabase) add(o record.Object, f Filter) {
	selected := f.Object(o)
	if isRelation(o) {
		selected = db.chosen.relation(nameOf(o))
		db.made[nameOf(o)] = selected
	}
	if selected {
		db.objects = append(db.objects, o)
	}
}

// isRelation tells whether an object is a table, a view or a sequence.
func isRelation(o record.Object) bool {
	return slices.Contains([]string{KindTable, KindView, KindSequence, KindForeignTable}, o.Kind)
}

// nameOf is a relation's name in its database.
func nameOf(o record.Object) [2]string { return [2]string{o.Attributes[AttrSchema], o.Name} }

// creates tells whether the load makes a relation of that name.
func (db *loadDatabase) creates(at [2]string) bool { return db.made[at] }

// of are the selected objects of a kind.
func (db *loadDatabase) of(kind string) []record.Object {
	return slices.DeleteFunc(slices.Clone(db.objects), func(o record.Object) bool { return o.Kind != kind })
}

// has tells whether a schema is among what is selected.
func (db *loadDatabase) has(schema string) bool {
	return slices.ContainsFunc(db.of(KindSchema), func(o record.Object) bool { return o.Name == schema })
}

// check refuses a plan that cannot be meant.
func (p *loadPlan) check(report record.Report, o LoadOptions) error {
	targets := map[string]bool{}
	selected := 0
	for _, db := range p.databases {
		if targets[db.target] {
			return fmt.Errorf("two databases of the backup would both become %q: rename one of them", db.target)
		}
		targets[db.target] = true
		if db.whole || slices.ContainsFunc(db.objects[1:], func(x record.Object) bool {
			// The schema of a table that is not there is no more than where it would be.
			return x.Kind != KindSchema || o.Filter.WholeSchema(db.name, x.Name)
		}) {
			selected++
		}
	}
	if selected == 0 && !o.Filter.Empty() {
		return fmt.Errorf("nothing in the backup is selected by %v without %v (%d objects are there)", o.Filter.Include, o.Filter.Exclude, len(report.Objects))
	}
	for old := range o.Rename {
		if !slices.ContainsFunc(report.Objects, func(x record.Object) bool { return x.Kind == KindDatabase && x.Name == old }) {
			return fmt.Errorf("rename: the backup holds no database %q", old)
		}
	}
	return nil
}

// qualifiedName is an object's name in its database, quoted.
func qualifiedName(o record.Object) string { return quoteQualified(o.Attributes[AttrSchema], o.Name) }
