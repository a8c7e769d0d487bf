package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// checkPart decides, before anything is touched, what a part of a database
// replaces on the target, and refuses to take along what does not come back. A
// database that is not there holds nothing.
func (l *loader) checkPart(db *loadDatabase, target []*relation) error {
	byName := map[[2]string]*relation{}
	for _, r := range target {
		byName[r.key()] = r
		if r.extension == "" && db.creates(r.key()) {
			db.drops = append(db.drops, r)
		}
	}
	for _, o := range db.objects {
		above := unquoteNames(o.Attributes[AttrPartitionOf])
		if len(above) == 0 || db.creates(above[0]) {
			continue
		}
		if parent := byName[above[0]]; parent != nil && parent.kind == "p" {
			db.attach = append(db.attach, o)
			continue
		}
		l.warn("table %s was a partition of %s, which the target does not have: it becomes a table of its own",
			tableLabel(db.target, o.Attributes[AttrSchema], o.Name), tableLabel(db.target, above[0][0], above[0][1]))
	}
	for _, child := range target {
		for _, parent := range child.parents {
			if err := db.checkParent(child, parent); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkParent refuses to drop one of two tables that belong together when the
// other would lose what it has of it.
func (db *loadDatabase) checkParent(child, parent *relation) error {
	drops := func(r *relation) bool { return slices.Contains(db.drops, r) }
	label := func(r *relation) string { return tableLabel(db.target, r.schema, r.name) }
	what := "inherits from it"
	if child.partition {
		what = "is a partition of it"
	}
	switch {
	case drops(parent) && !drops(child):
		return fmt.Errorf("%w: table %s is to be replaced, but %s, which %s on the target, is not: select that as well, or detach or drop it first",
			dbdump.ErrSelection, label(parent), label(child), what)
	case drops(child) && !drops(parent) && child.partition && !db.attaches(child, parent):
		return fmt.Errorf("%w: table %s is to be replaced, which is a partition of %s on the target and not in the backup: select that as well, or detach the partition first",
			dbdump.ErrSelection, label(child), label(parent))
	}
	return nil
}

// attaches tells whether a table of the target becomes a partition of the same
// table again.
func (db *loadDatabase) attaches(child, parent *relation) bool {
	return slices.ContainsFunc(db.attach, func(o record.Object) bool {
		return nameOf(o) == child.key() && unquoteNames(o.Attributes[AttrPartitionOf])[0] == parent.key()
	})
}

// replacing drops what comes again and has the definitions made, both or
// neither: a definition that fails must not cost the table that is there. The
// rows are not in that transaction, since other connections bring them.
//
// Without anything to lose there is no transaction: it would hold a lock on each
// table that it makes, of which the server has a limited number.
func (l *loader) replacing(ctx context.Context, s *session, db *loadDatabase, define func(runFunc) error) error {
	if len(db.drops) == 0 && len(db.attach) == 0 {
		return define(s.run)
	}
	if err := s.exec(ctx, "BEGIN"); err != nil {
		return err
	}
	quit, err := readReplicated(ctx, s, db.drops)
	if err != nil {
		return err
	}
	for _, drop := range db.dropStatements() {
		if err := s.exec(ctx, drop); err != nil {
			return fmt.Errorf("replace: %w", err)
		}
	}
	if err := define(s.runRevocably); err != nil {
		return err
	}
	// An empty partition shows whether its place is free.
	for _, o := range db.attach {
		if err := s.exec(ctx, "SAVEPOINT keepset; "+attachStatement(o)+"; ROLLBACK TO SAVEPOINT keepset; RELEASE SAVEPOINT keepset"); err != nil {
			return fmt.Errorf("nothing was changed, since %s cannot become a partition again: %w", tableLabel(db.target, o.Attributes[AttrSchema], o.Name), err)
		}
	}
	if err := s.exec(ctx, "COMMIT"); err != nil {
		return err
	}
	for _, text := range quit {
		l.warn("database %s: %s", db.target, text)
	}
	return nil
}

// readReplicated says which publications and subscriptions lose a table that is
// dropped, which the server does without a word. It is not put back: it comes
// with rows of another time, of which the other side knows nothing.
func readReplicated(ctx context.Context, s *session, drops []*relation) (list []string, err error) {
	names, oids := map[string]string{}, make([]string, 0, len(drops))
	for _, r := range drops {
		names[r.oid] = r.qualified()
		oids = append(oids, r.oid)
	}
	if len(oids) == 0 {
		return nil, nil
	}
	in := " = ANY ('{" + strings.Join(oids, ",") + "}'::pg_catalog.oid[]) "
	const publications = "SELECT 'p', prrelid, pubname FROM pg_catalog.pg_publication_rel JOIN pg_catalog.pg_publication p ON p.oid = prpubid WHERE prrelid"
	const subscriptions = "UNION ALL SELECT 's', srrelid, subname FROM pg_catalog.pg_subscription_rel JOIN pg_catalog.pg_subscription s ON s.oid = srsubid WHERE srrelid"
	err = s.each(ctx, publications+in+subscriptions+in+"ORDER BY 1, 3, 2", func(r row) error {
		table, name := names[r.at(1)], quoteIdentifier(r.at(2))
		if r.at(0) == "p" {
			list = append(list, fmt.Sprintf("table %[1]s was replaced, and is in publication %[2]s no more: when its subscribers have the rows of the backup, run ALTER PUBLICATION %[2]s ADD TABLE %[1]s, with the columns and the condition that it had", table, name))
		} else {
			list = append(list, fmt.Sprintf("table %[1]s was replaced, and subscription %[2]s brings it nothing more: when it has the rows of its publisher, run ALTER SUBSCRIPTION %[2]s REFRESH PUBLICATION WITH (copy_data = false)", table, name))
		}
		return nil
	})
	return list, err
}

// runRevocably runs a statement within a transaction that survives its failure.
func (s *session) runRevocably(ctx context.Context, code []byte, st statement) error {
	if err := s.exec(ctx, "SAVEPOINT keepset"); err != nil {
		return err
	}
	err := s.run(ctx, code, st)
	end := "RELEASE SAVEPOINT keepset"
	if err != nil {
		end = "ROLLBACK TO SAVEPOINT keepset; " + end
	}
	if endErr := s.exec(ctx, end); endErr != nil && err == nil {
		err = endErr
	}
	return err
}

// dropStatements drop the relations that come again, those of a kind together,
// since they may depend on each other; what else depends on one keeps it.
func (db *loadDatabase) dropStatements() []string {
	words := map[string]string{"r": "TABLE", "p": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW", "S": "SEQUENCE", "f": "FOREIGN TABLE"}
	var drops []string
	for _, kinds := range []string{"v", "m", "rp", "f", "S"} {
		var list []string
		for _, r := range db.drops {
			if strings.Contains(kinds, r.kind) {
				list = append(list, r.qualified())
			}
		}
		if len(list) > 0 {
			drops = append(drops, "DROP "+words[kinds[:1]]+" IF EXISTS "+strings.Join(list, ", "))
		}
	}
	return drops
}

// attachPartitions puts partitions that have come back alone in their place. They
// have their indexes by then, which the server takes for those of the partition,
// and it looks at their rows.
func (l *loader) attachPartitions(ctx context.Context, db *loadDatabase) error {
	if len(db.attach) == 0 {
		return nil
	}
	return l.in(ctx, db, func(s *session) error {
		for _, o := range db.attach {
			if err := s.exec(ctx, attachStatement(o)); err != nil {
				return fmt.Errorf("table %s is loaded whole, but is a table of its own, since it cannot become a partition of %s: %w",
					tableLabel(db.target, o.Attributes[AttrSchema], o.Name), quoteNames(unquoteNames(o.Attributes[AttrPartitionOf])[:1]), err)
			}
		}
		return nil
	})
}

// attachStatement makes a table a partition of the one that it was a partition of.
func attachStatement(o record.Object) string {
	return "ALTER TABLE ONLY " + quoteNames(unquoteNames(o.Attributes[AttrPartitionOf])[:1]) + " ATTACH PARTITION " + qualifiedName(o) + " " + o.Attributes[AttrBound]
}
