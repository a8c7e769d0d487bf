package postgres

import (
	"context"
	"strings"
)

// parentsQuery lists who inherits from whom, and who is a partition of whom. It
// waits for nobody, as relationQuery.
const parentsQuery = `SELECT i.inhrelid, i.inhparent, c.relispartition FROM pg_catalog.pg_inherits i
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relkind IN ('r', 'p', 'f') ORDER BY i.inhrelid, i.inhseqno`

// readParents completes a list of all relations.
func readParents(ctx context.Context, s *session, all []*relation) error {
	byOID := make(map[string]*relation, len(all))
	for _, r := range all {
		byOID[r.oid] = r
	}
	return s.each(ctx, parentsQuery, func(r row) error {
		if child, parent := byOID[r.at(0)], byOID[r.at(1)]; child != nil && parent != nil {
			child.parents = append(child.parents, parent)
			child.partition = r.at(2) == "t"
		}
		return nil
	})
}

// readBounds reads which rows partitions hold. The server locks them to say so,
// therefore only those that we have locked are asked for.
func readBounds(ctx context.Context, s *session, byOID map[string]*relation) error {
	var partitions []string
	for oid, r := range byOID {
		if r.partition {
			partitions = append(partitions, oid)
		}
	}
	if len(partitions) == 0 {
		return nil
	}
	q := "SELECT c.oid, pg_catalog.pg_get_expr(c.relpartbound, c.oid) FROM pg_catalog.pg_class c WHERE c.oid = ANY ('{" + strings.Join(partitions, ",") + "}'::pg_catalog.oid[])"
	return s.each(ctx, q, func(r row) error {
		byOID[r.at(0)].bound = r.at(1)
		return nil
	})
}

// above are the tables that a relation is a partition of, the nearest first. A
// partition has one parent, which may be a partition itself.
func (r *relation) above() [][2]string {
	var names [][2]string
	for p := r; p.partition; {
		p = p.parents[0]
		names = append(names, p.key())
	}
	return names
}

// key is a relation's name in maps.
func (r *relation) key() [2]string { return [2]string{r.schema, r.name} }
