package repository

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"keepset/internal/record"
)

// VerifyOptions say what to verify.
type VerifyOptions struct {
	// Set to verify; the zero value means all sets.
	Set record.SetID
	// IDs of backups; empty means all of the set.
	IDs []record.BackupID
	// ReadData is the percentage of objects whose bytes are read and compared
	// with their names, 0 to 100, chosen at random.
	ReadData float64
}

// VerifyReport is what a verification found.
type VerifyReport struct {
	// Backups and Members that were looked at; only members with a valid
	// commit count.
	Backups, Members int
	// Statuses says how many of the backups are what.
	Statuses map[Status]int
	// Objects that they need, and how many of them were read.
	Objects, ObjectsRead int
	BytesRead            int64
	// Damages, each one object. Plans and commits that do not count are among
	// them, and commits that must have been there.
	Damages []Damage
	// Problems that are none of these, each a line for the user: members that
	// no run has finished, signatures that were not checked.
	Problems          []string
	Started, Finished time.Time
}

// Damage is one object that is missing or not what it was.
type Damage struct {
	// Set is the zero value for what belongs to the whole repository.
	Set  record.SetID
	Key  string
	What string
	// Harmed members, with their streams where the keys at hand can tell.
	Harmed []Harm
}

// Harm is one member that a damage touches.
type Harm struct {
	Set     record.SetID
	Backup  record.BackupID
	Ordinal int
	Member  string
	// Streams that cannot be restored; empty when that is not known, or when
	// the object is part of the index, which no restore needs.
	Streams []string
	// Note explains empty Streams.
	Note string
}

// Verify checks that everything the backups need is in the store in its right
// size, and reads a share of it to compare the bytes. It needs no secret key;
// with one, or in a plain repository, it also names the streams that a damage
// harms. An error means that it could not look, or, with ErrNoBackup, that a
// backup that was named is not there; what it found is in the report.
func (r *Repository) Verify(ctx context.Context, o VerifyOptions) (VerifyReport, error) {
	report := VerifyReport{Started: r.options.Clock().UTC(), Statuses: make(map[Status]int)}
	sets := []record.SetID{o.Set}
	if o.Set == (record.SetID{}) {
		var err error
		if sets, err = r.Sets(ctx); err != nil {
			return report, err
		}
	}
	if len(sets) == 0 {
		if err := r.noSets(ctx, &report); err != nil {
			return report, err
		}
	}
	var members []Harm
	for _, set := range sets {
		v := &verifier{r: r, layout: layout{set}, o: o, report: &report, damages: make(map[string]*Damage)}
		if err := v.run(ctx); err != nil {
			return report, fmt.Errorf("verify %s: %w", set, err)
		}
		members = append(members, v.members...)
	}
	if err := r.verifyKeyFiles(ctx, &report, members); err != nil {
		return report, fmt.Errorf("verify the key files: %w", err)
	}
	report.Finished = r.options.Clock().UTC()
	return report, nil
}

// verifier verifies one set.
type verifier struct {
	r      *Repository
	layout layout
	o      VerifyOptions
	report *VerifyReport
	infos  []BackupInfo
	// members with a valid commit, as what harms all of them harms each.
	members []Harm

	mu      sync.Mutex
	damages map[string]*Damage // by key
}

// inventory is the listing of one prefix, and what of it is needed.
type inventory struct {
	prefix string
	names  []hash
	sizes  []int64
	needed bitset
}

func (v *verifier) run(ctx context.Context) error {
	if err := v.backups(ctx); err != nil {
		return err
	}
	inventories, err := v.inventories(ctx)
	if err != nil {
		return err
	}
	if err := v.eachMember(func(info *BackupInfo, c *record.Commit) error {
		v.report.Members++
		v.members = append(v.members, wholeMember(info, c.Ordinal))
		return v.compare(ctx, c, inventories)
	}); err != nil {
		return err
	}
	for _, inventory := range inventories {
		if err := v.read(ctx, inventory); err != nil {
			return err
		}
	}
	if len(v.damages) == 0 {
		return nil
	}
	if err := v.eachMember(func(info *BackupInfo, c *record.Commit) error {
		return v.attribute(ctx, info, c)
	}); err != nil {
		return err
	}
	keys := make([]string, 0, len(v.damages))
	for key := range v.damages {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		v.report.Damages = append(v.report.Damages, *v.damages[key])
	}
	return nil
}

// backups lists the backups and judges their records.
func (v *verifier) backups(ctx context.Context) error {
	all, err := v.r.Backups(ctx, v.layout.set)
	if err != nil {
		return err
	}
	for _, id := range v.o.IDs {
		if !slices.ContainsFunc(all, func(info BackupInfo) bool { return info.ID == id }) {
			return fmt.Errorf("%w: %s", ErrNoBackup, id)
		}
	}
	for i := range all {
		if len(v.o.IDs) > 0 && !slices.Contains(v.o.IDs, all[i].ID) {
			continue
		}
		v.infos = append(v.infos, all[i])
		v.report.Statuses[all[i].Status]++
		v.records(&all[i])
	}
	v.report.Backups += len(v.infos)
	if err := v.lostCommits(ctx, all); err != nil {
		return err
	}
	return v.anythingLeft(ctx)
}

// eachMember calls f for every member with a valid commit.
func (v *verifier) eachMember(f func(*BackupInfo, *record.Commit) error) error {
	for i := range v.infos {
		info := &v.infos[i]
		for _, planned := range info.Plan.Members {
			if member := info.Members[planned.Ordinal]; member.Valid {
				if err := f(info, &member.Commit); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (v *verifier) inventories(ctx context.Context) ([]*inventory, error) {
	var list []*inventory
	for _, prefix := range []string{v.layout.packs(), v.layout.parts(), v.layout.maps()} {
		i := &inventory{prefix: prefix}
		for object, err := range v.r.store.List(ctx, prefix) {
			if err != nil {
				return nil, err
			}
			if name, ok := parseHashKey(object.Key, prefix); ok {
				i.names = append(i.names, name)
				i.sizes = append(i.sizes, object.Size)
			}
		}
		list = append(list, i)
	}
	return list, nil
}

func (v *verifier) damage(key, what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.damages[key] == nil {
		v.damages[key] = &Damage{Set: v.layout.set, Key: key, What: what}
	}
}

// compare marks what a member needs, and notes what is not there.
func (v *verifier) compare(ctx context.Context, c *record.Commit, inventories []*inventory) error {
	refs, err := v.r.readRefs(ctx, v.layout, c)
	if isNotExist(err) {
		v.damage(v.layout.ref(c.Refs), "missing")
		return nil
	}
	if unreadable(err) {
		v.damage(v.layout.ref(c.Refs), err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	v.report.Objects++
	for n, list := range [][]record.ObjectRef{refs.Packs, mergeRefs(refs.Parts, refs.Memos), refs.Maps} {
		i := inventories[n]
		for _, ref := range list {
			key := i.prefix + ref.SHA256.String()
			at, found := slices.BinarySearchFunc(i.names, ref.SHA256, func(a, b hash) int { return slices.Compare(a[:], b[:]) })
			switch {
			case !found:
				v.damage(key, "missing")
			case i.sizes[at] != ref.Size:
				v.damage(key, fmt.Sprintf("has %d bytes instead of %d", i.sizes[at], ref.Size))
			case i.needed.add(at):
				v.report.Objects++
			}
		}
	}
	return nil
}
