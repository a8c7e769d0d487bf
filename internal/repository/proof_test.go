package repository

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

func passed() record.Proof {
	return record.Proof{Passed: true, Checks: []record.ProofCheck{{Check: "load", State: record.ProofOK}}, Rows: 3, Seconds: 2, RestoreSeconds: 1}
}

// A proof counts that a trusted key has signed and that is about what is stored.
func TestProofs(t *testing.T) {
	m := encryptedMode(t)
	p := newPruned(t, m)
	p.backup(t, crashContent(1))
	p.backup(t, crashContent(2))
	drills := func(keys Keys) []BackupInfo {
		t.Helper()
		r := open(t, p.store, keys, Options{Clock: p.c.Now})
		infos, err := r.Backups(t.Context(), testSet)
		require.NoError(t, err)
		require.NoError(t, r.ReadDrills(t.Context(), testSet, infos))
		return infos // the newest first
	}
	prove := func(r *Repository, info BackupInfo) {
		t.Helper()
		_, err := r.Prove(t.Context(), info, passed())
		require.NoError(t, err)
	}
	drill := open(t, p.store, m.restore, Options{Clock: p.c.Now})
	old := drills(m.restore)[1]
	require.False(t, old.Drilled())
	prove(drill, old)

	// Whoever trusts A sees it, with the store's time; who trusts nobody sees none.
	got := drills(Keys{Trusted: m.restore.Trusted, Provers: m.restore.Provers})
	require.True(t, got[1].Drilled())
	require.Equal(t, p.c.Now(), got[1].Drills[0].At)
	require.False(t, got[0].Drilled())
	require.False(t, drills(p.keyless())[1].Drilled())

	// The writer, or anybody with a key of his own, proves nothing.
	_, err := open(t, p.store, m.writer, small()).Prove(t.Context(), old, passed())
	require.ErrorIs(t, err, ErrNoKey)
	forger := m.restore
	forger.Prover, forger.Provers = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)), nil
	prove(open(t, p.store, forger, Options{Clock: p.c.Now}), drills(m.restore)[0])
	got = drills(m.restore)
	require.False(t, got[0].Drilled())
	require.Contains(t, got[0].Problems[0], "proves nothing")

	// A proof of one backup is none of another, under whatever name.
	for _, key := range keysBelow(t, p.store, layout{testSet}.proofs()) {
		if id, _ := (layout{testSet}).parseProofKey(key); id == old.ID {
			require.NoError(t, p.store.Put(t.Context(), layout{testSet}.proof(got[0].ID, "copied"), bytes.NewReader(readObject(t, p.store, key))))
		}
	}
	got = drills(m.restore)
	require.False(t, got[0].Drilled())

	// Nor is one of another commit.
	other := old
	other.Members = map[int]MemberInfo{0: old.Members[0]}
	member := other.Members[0]
	member.sum = hash{1}
	other.Members[0] = member
	prove(drill, other)
	got = drills(m.restore)
	require.Len(t, got[1].Drills, 1)
	require.Contains(t, got[1].Problems[0], "another plan or commit")
}

// The pruner sees what was drilled, and a backup takes its proofs along.
func TestProofsGoWithTheirBackup(t *testing.T) {
	p := newPruned(t, encryptedMode(t))
	p.backup(t, crashContent(1))
	p.backup(t, crashContent(2))
	drill := open(t, p.store, p.m.restore, Options{Clock: p.c.Now})
	for _, id := range p.ids {
		info, err := drill.Backup(t.Context(), testSet, id)
		require.NoError(t, err)
		_, err = drill.Prove(t.Context(), info, passed())
		require.NoError(t, err)
	}
	pruner := open(t, p.store, Keys{Trusted: p.m.restore.Trusted, Provers: p.m.restore.Provers}, Options{Clock: p.c.Now})
	_, err := pruner.Prune(t.Context(), PruneOptions{Set: testSet, Choose: func(v PruneView) ([]record.BackupID, error) {
		require.True(t, slices.ContainsFunc(v.Backups, func(b BackupInfo) bool { return b.ID == p.ids[0] && b.Drilled() }))
		return p.ids[:1], nil
	}})
	require.NoError(t, err)
	left := keysBelow(t, p.store, layout{testSet}.proofs())
	require.Len(t, left, 1)
	require.Contains(t, left[0], string(p.ids[1]))
}
