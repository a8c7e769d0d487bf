package repository

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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
	// Objects that they need, and how many of them were read.
	Objects, ObjectsRead int
	BytesRead            int64
	// Damages, each one object.
	Damages []Damage
	// Problems of plans and commits, each a line for the user.
	Problems          []string
	Started, Finished time.Time
}

// Damage is one object that is missing or not what it was.
type Damage struct {
	Set  record.SetID
	Key  string
	What string
	// Harmed members, with their streams where the keys at hand can tell.
	Harmed []Harm
}

// Harm is one member that a damage touches.
type Harm struct {
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
// harms. An error means that it could not look; what it found is in the report.
func (r *Repository) Verify(ctx context.Context, o VerifyOptions) (VerifyReport, error) {
	report := VerifyReport{Started: r.options.Clock().UTC()}
	sets := []record.SetID{o.Set}
	if o.Set == (record.SetID{}) {
		var err error
		if sets, err = r.Sets(ctx); err != nil {
			return report, err
		}
	}
	for _, set := range sets {
		v := &verifier{r: r, layout: layout{set}, o: o, report: &report, damages: make(map[string]*Damage)}
		if err := v.run(ctx); err != nil {
			return report, fmt.Errorf("verify %s: %w", set, err)
		}
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
	infos, err := v.r.Backups(ctx, v.layout.set)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if len(v.o.IDs) > 0 && !slices.Contains(v.o.IDs, info.ID) {
			continue
		}
		v.infos = append(v.infos, info)
		for _, problem := range info.Problems {
			v.report.Problems = append(v.report.Problems, fmt.Sprintf("%s of %s: %s", info.ID, info.Set, problem))
		}
	}
	v.report.Backups += len(v.infos)
	inventories, err := v.inventories(ctx)
	if err != nil {
		return err
	}
	if err := v.eachMember(func(_ *BackupInfo, c *record.Commit) error {
		v.report.Members++
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
	for n, list := range [][]record.ObjectRef{refs.Packs, refs.Parts, refs.Maps} {
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

// verifyReads is how many objects are read at the same time.
const verifyReads = 4

// read compares the bytes of a share of the needed objects with their names.
func (v *verifier) read(ctx context.Context, i *inventory) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(verifyReads)
	for at := range i.names {
		if !i.needed.has(at) || !v.chosen() {
			continue
		}
		group.Go(func() error { return v.readOne(ctx, i.prefix+i.names[at].String(), i.names[at]) })
	}
	return group.Wait()
}

// chosen says yes with the probability that was asked for.
func (v *verifier) chosen() bool {
	if v.o.ReadData >= 100 {
		return true
	}
	var b [8]byte
	if _, err := io.ReadFull(v.r.options.Random, b[:]); err != nil {
		return true
	}
	return float64(binary.LittleEndian.Uint64(b[:])>>11)/(1<<53)*100 < v.o.ReadData
}

func (v *verifier) readOne(ctx context.Context, key string, name hash) error {
	body, err := v.r.store.Get(ctx, key, 0, -1)
	if isNotExist(err) {
		v.damage(key, "missing")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, body)
	if closeErr := body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	v.mu.Lock()
	v.report.ObjectsRead++
	v.report.BytesRead += n
	v.mu.Unlock()
	if got := hash(sum.Sum(nil)); got != name {
		v.damage(key, "its bytes have changed: their SHA-256 is "+got.String())
	}
	return nil
}
