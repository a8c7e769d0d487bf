package repository

import (
	"context"
	"fmt"
	"slices"

	"keepset/internal/record"
)

// condemned is what the prune records of a set have marked.
type condemned struct {
	// all is set when a record could not be understood: what it names is
	// not known, so nothing may be reused.
	all     bool
	backups map[record.BackupID]struct{}
	packs   map[hash]struct{}
	parts   map[hash]struct{}
	// records are maps, pieces and refs, which nobody reuses but a copier.
	records map[hash]struct{}
}

// names says whether an object is about to be deleted; of is its place among
// the stocks.
func (c *condemned) names(of int, h hash) bool {
	list := c.records
	switch of {
	case stockPacks:
		list = c.packs
	case stockParts:
		list = c.parts
	}
	_, found := list[h]
	return found
}

func (c *condemned) hasBackup(id record.BackupID) bool {
	_, found := c.backups[id]
	return found
}

func (c *condemned) hasPack(h hash) bool {
	_, found := c.packs[h]
	return c.all || found
}

func (c *condemned) hasPart(h hash) bool {
	_, found := c.parts[h]
	return c.all || found
}

// condemned reads all prune records of a set.
func (r *Repository) condemned(ctx context.Context, l layout) (*condemned, error) {
	c := &condemned{
		backups: make(map[record.BackupID]struct{}),
		packs:   make(map[hash]struct{}),
		parts:   make(map[hash]struct{}),
		records: make(map[hash]struct{}),
	}
	for object, err := range r.store.List(ctx, l.prunes()) {
		if err != nil {
			return nil, fmt.Errorf("list prune records of %s: %w", l.set, err)
		}
		data, err := getAll(ctx, r.store, object.Key)
		if isNotExist(err) {
			continue // a prune finished and removed its record
		}
		if err != nil {
			return nil, fmt.Errorf("read prune record: %w", err)
		}
		var p record.Prune
		if _, err := record.Decode(data, &p, nil); err != nil || p.Set != l.set {
			r.log.Warn("prune record cannot be read; nothing is reused", "key", object.Key, "error", err)
			c.all = true
			continue
		}
		for _, id := range p.Backups {
			c.backups[id] = struct{}{}
		}
		for _, h := range p.Packs {
			c.packs[h] = struct{}{}
		}
		for _, h := range p.Parts {
			c.parts[h] = struct{}{}
		}
		for _, h := range slices.Concat(p.Maps, p.Refs) {
			c.records[h] = struct{}{}
		}
	}
	return c, nil
}
