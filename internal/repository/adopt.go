package repository

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"keepset/internal/record"
)

// This file makes backups and sets ours that were another's: those of a copied
// bucket, and those of a cluster whose place this one takes.

// AdoptOptions say what is adopted.
type AdoptOptions struct {
	Reason string
	// Retired: also what is signed by writers that are retired.
	Retired bool
	// DryRun stores nothing.
	DryRun bool
}

// Adopted is what Adopt made, or would make, of one backup.
type Adopted struct {
	Backup record.BackupID
	// Why it is left as it is; empty when it is adopted.
	Why string
}

// AdoptCopies lets the backups of a copied repository count again, whose
// objects have the times of the copy: it says of each that its times say
// nothing. Only those are adopted of which every object is there, in its right
// size, since a commit that came too late is no longer told from one that did
// not. The newest first. In a signed repository it takes the writer's key. What a
// writer has signed that is retired, whose key may be stolen, is adopted with
// AdoptOptions.Retired only: in a copy nothing shows when it was stored.
func (r *Repository) AdoptCopies(ctx context.Context, set record.SetID, o AdoptOptions) ([]Adopted, error) {
	if err := r.canSign(); err != nil {
		return nil, fmt.Errorf("adopt a copy: %w", err)
	}
	now, err := r.Backups(ctx, set)
	if err != nil {
		return nil, err
	}
	then, err := r.timeless().Backups(ctx, set)
	if err != nil {
		return nil, err
	}
	counts := make(map[record.BackupID]BackupInfo)
	for _, info := range now {
		counts[info.ID] = info
	}
	var list []Adopted
	var stock *prune
	for i := range then {
		info := &then[i]
		if was, seen := counts[info.ID]; !seen || was.Condemned || was.committed() == info.committed() || info.committed() == 0 {
			continue
		}
		if stock == nil {
			stock = &prune{r: r, layout: layout{set}}
			if err := stock.takeStock(ctx); err != nil {
				return list, err
			}
		}
		why, err := r.adopt(ctx, stock, info, o)
		if err != nil {
			return list, err
		}
		list = append(list, Adopted{info.ID, why})
	}
	return list, nil
}

// committed is how many members have a commit that counts.
func (b *BackupInfo) committed() int {
	n := 0
	for _, m := range b.Members {
		if m.Valid {
			n++
		}
	}
	return n
}

// adopt one backup; why says what speaks against it.
func (r *Repository) adopt(ctx context.Context, stock *prune, info *BackupInfo, o AdoptOptions) (why string, err error) {
	if !o.Retired {
		if why, err := r.signedByRetired(ctx, stock.layout, info); why != "" || err != nil {
			return why, err
		}
	}
	rec := r.newAccept(info, record.DoubtTimes, o.Reason)
	for _, ordinal := range slices.Sorted(maps.Keys(info.Members)) {
		m := info.Members[ordinal]
		if !m.Valid {
			continue
		}
		refs, err := r.readRefs(ctx, stock.layout, &m.Commit)
		if isNotExist(err) || unreadable(err) {
			return fmt.Sprintf("ordinal %d: %v", ordinal, err), nil
		}
		if err != nil {
			return "", err
		}
		if missing := stock.lacks(&refs); missing != "" {
			return fmt.Sprintf("ordinal %d: %s", ordinal, missing), nil
		}
		rec.Commits = append(rec.Commits, m.sum)
	}
	record.SortHashes(rec.Commits)
	if o.DryRun {
		return "", nil
	}
	return "", r.storeAccept(ctx, &rec)
}

// lacks names an object that a member needs and the store does not have.
func (p *prune) lacks(refs *record.Refs) string {
	for n, list := range map[int][]record.ObjectRef{
		stockPacks: refs.Packs, stockParts: mergeRefs(refs.Parts, refs.Memos), stockMaps: refs.Maps,
	} {
		for _, ref := range list {
			switch at, found := p.stock[n].find(ref.SHA256); {
			case !found:
				return p.stock[n].prefix + ref.SHA256.String() + " is missing"
			case p.stock[n].sizes[at] != ref.Size:
				return fmt.Sprintf("%s has %d bytes, not %d", p.stock[n].key(at), p.stock[n].sizes[at], ref.Size)
			}
		}
	}
	return ""
}

// AdoptedOrigin is whose a set was, and whose it is now.
type AdoptedOrigin struct {
	From, To string
	// Newest backup of the former owner, and when its plan was stored.
	Newest record.BackupID
	At     time.Time
}

// AdoptOrigin makes a set that of another cluster, whose writers may go on from
// then on, and those of the former one are refused. Nil when the set is that
// cluster's already. With dryRun nothing is stored.
func (r *Repository) AdoptOrigin(ctx context.Context, set record.SetID, origin string, dryRun bool) (*AdoptedOrigin, error) {
	if err := r.canSign(); err != nil {
		return nil, fmt.Errorf("adopt a set: %w", err)
	}
	l := layout{set}
	n, stored, err := r.lastOrigin(ctx, l)
	if err != nil {
		return nil, err
	}
	if n < 0 || stored == origin {
		return nil, nil
	}
	infos, err := r.Backups(ctx, set)
	if err != nil {
		return nil, err
	}
	adopted := &AdoptedOrigin{From: stored, To: origin}
	for i := range infos {
		if info := &infos[i]; info.Plan.Origin != "" && info.Plan.Origin != origin {
			adopted.Newest, adopted.At = info.ID, info.PlanTime
			break
		}
	}
	if dryRun {
		return adopted, nil
	}
	now, err := r.writeOrigin(ctx, l, l.originAt(n+1), origin)
	if err != nil {
		return nil, fmt.Errorf("adopt %s: %w", set, err)
	}
	if now != origin {
		return nil, fmt.Errorf("%w: %q has adopted %s at this moment", ErrOrigin, now, set)
	}
	return adopted, nil
}

// timeless is the repository as one that goes by no times of its store.
func (r *Repository) timeless() *Repository {
	t := &Repository{store: r.store, config: r.config, number: r.number, keys: r.keys, secrets: r.secrets, memoMAC: r.memoMAC, options: r.options, log: r.log}
	t.options.AcceptCopiedTimes = true
	return t
}
