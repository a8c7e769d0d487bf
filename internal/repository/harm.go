package repository

import (
	"context"
	"fmt"

	"keepset/internal/record"
)

// attribute notes, for each damage that touches a member, which of its
// streams are harmed.
func (v *verifier) attribute(ctx context.Context, info *BackupInfo, c *record.Commit) error {
	harm := harmOf(info, c.Ordinal)
	refs, err := v.r.readRefs(ctx, v.layout, c)
	if isNotExist(err) || unreadable(err) {
		harm.Note = "the whole member: without its refs nothing of it is found"
		v.harm(v.layout.ref(c.Refs), harm)
		return nil
	}
	if err != nil {
		return err
	}
	packs := make(map[hash]bool)
	for _, ref := range refs.Packs {
		if v.damages[v.layout.pack(ref.SHA256)] != nil {
			packs[ref.SHA256] = true
		}
	}
	for _, ref := range mergeRefs(refs.Parts, refs.Memos) {
		indexed := harm
		indexed.Note = "index only: a restore does not need it"
		v.harm(v.layout.part(ref.SHA256), indexed)
	}
	mapsHarmed := false
	for _, ref := range refs.Maps {
		if v.damages[v.layout.mapOf(ref.SHA256)] != nil {
			mapsHarmed = true
		}
	}
	if len(packs) == 0 && !mapsHarmed {
		return nil
	}
	harmed, note := v.streams(ctx, info, c, packs)
	for name := range packs {
		each := harm
		each.Streams, each.Note = harmed[name], note
		v.harm(v.layout.pack(name), each)
	}
	for _, ref := range refs.Maps {
		each := harm
		each.Streams, each.Note = harmed[ref.SHA256], note
		if ref.SHA256 == refs.Map {
			each.Note = "the whole member: without its map no stream is found"
		}
		v.harm(v.layout.mapOf(ref.SHA256), each)
	}
	return nil
}

// harm adds to a damage, if there is one of that key.
func (v *verifier) harm(key string, h Harm) {
	if d := v.damages[key]; d != nil {
		d.Harmed = append(d.Harmed, h)
	}
}

// streams names the streams that need each of the damaged packs or pieces.
// The note says why it cannot tell.
func (v *verifier) streams(ctx context.Context, info *BackupInfo, c *record.Commit, packs map[hash]bool) (map[hash][]string, string) {
	m, err := v.r.OpenMember(ctx, *info, c.Ordinal)
	if err != nil {
		return nil, fmt.Sprintf("which streams cannot be told: %v", err)
	}
	defer m.decoder.Close()
	// For each piece, which of its segments lie in which damaged object.
	bad := make([]map[int]hash, len(m.m.Pieces))
	lost := make([]bool, len(m.m.Pieces))
	for n := range m.m.Pieces {
		p, err := m.piece(ctx, n)
		if err != nil {
			lost[n] = true
			continue
		}
		bad[n] = make(map[int]hash)
		for i, g := range p.Segments {
			if g.Hole == 0 && packs[p.Packs[g.Pack]] {
				bad[n][i] = p.Packs[g.Pack]
			}
		}
	}
	harmed := make(map[hash][]string)
	for i := range m.m.Streams {
		s := &m.m.Streams[i]
		seen := make(map[hash]bool)
		for _, r := range s.Ranges {
			if name := m.m.Pieces[r.Piece].SHA256; lost[r.Piece] {
				seen[name] = true
				continue
			}
			for at := r.First; at < r.First+r.Count; at++ {
				if name, found := bad[r.Piece][at]; found {
					seen[name] = true
				}
			}
		}
		for name := range seen {
			harmed[name] = append(harmed[name], s.Name)
		}
	}
	return harmed, ""
}
