package repository

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// Drill is a proof that counts: its signature is right, and it is about the plan
// and the commit that are stored now.
type Drill struct {
	record.Proof
	// At is the store's clock when the proof was stored.
	At time.Time
}

// Drilled says whether a restore of the backup was proven.
func (b *BackupInfo) Drilled() bool {
	return slices.ContainsFunc(b.Drills, func(d Drill) bool { return d.Passed })
}

// CanProve says what keeps a proof from being written: ErrReadOnly, or ErrNoKey
// in a signed repository without A.
func (r *Repository) CanProve() error {
	switch {
	case r.options.AcceptCopiedTimes:
		return fmt.Errorf("write a proof: %w", ErrReadOnly)
	case r.Signed() && r.keys.Prover == nil:
		return fmt.Errorf("%w: this repository is signed, and so is the proof of a drill; set %s", ErrNoKey, NameProofKey)
	}
	return nil
}

// ProofsCount says whether proofs can be told from forged ones: always in a
// repository without signatures, else where a key is trusted.
func (r *Repository) ProofsCount() bool { return !r.Signed() || len(r.keys.provers()) > 0 }

// Prove stores what a drill found about a member of a backup. Which backup, plan
// and commit it is about is filled in here, from what was looked at.
func (r *Repository) Prove(ctx context.Context, info BackupInfo, proof record.Proof) (record.Proof, error) {
	if err := r.CanProve(); err != nil {
		return proof, err
	}
	member := info.Members[proof.Ordinal]
	if info.planHash.IsZero() || !member.Valid {
		return proof, fmt.Errorf("%w: ordinal %d of %s has no commit that counts, so that nothing can be proven of it", ErrNoBackup, proof.Ordinal, info.ID)
	}
	proof.Header, proof.Repository = record.NewHeader(record.KindProof), r.config.Repository
	proof.Set, proof.Backup, proof.PlanSHA256, proof.Commit = info.Set, info.ID, info.planHash, member.sum
	proof.CreatedAt = r.options.Clock().UTC()
	data, err := record.Encode(&proof, r.keys.Prover)
	if err != nil {
		return proof, err
	}
	if err := put(ctx, r.store, layout{info.Set}.proof(info.ID, record.NewAttemptID()), data); err != nil {
		return proof, fmt.Errorf("store the proof of the drill of %s: %w", info.ID, err)
	}
	return proof, nil
}

// ReadDrills fills the Drills of backups of a set. A proof that does not count is
// a problem of its backup, and proves nothing. Where no key is trusted in a
// signed repository none counts, and none is read.
func (r *Repository) ReadDrills(ctx context.Context, set record.SetID, infos []BackupInfo) error {
	if !r.ProofsCount() {
		return nil
	}
	l := layout{set}
	proofs := make(map[record.BackupID][]storage.Object)
	for object, err := range r.store.List(ctx, l.proofs()) {
		if err != nil {
			return fmt.Errorf("list the proofs of %s: %w", set, err)
		}
		if id, ok := l.parseProofKey(object.Key); ok {
			proofs[id] = append(proofs[id], object)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listReads)
	for i := range infos {
		if list := proofs[infos[i].ID]; len(list) > 0 {
			group.Go(func() error { return r.readDrills(ctx, &infos[i], list) })
		}
	}
	return group.Wait()
}

func (r *Repository) readDrills(ctx context.Context, info *BackupInfo, objects []storage.Object) error {
	for _, object := range objects {
		proof, err := r.readProof(ctx, info, object.Key)
		switch {
		case isNotExist(err): // deleted during the listing
		case err == nil:
			info.Drills = append(info.Drills, Drill{proof, object.LastModified})
		case unreadable(err):
			info.Problems = append(info.Problems, fmt.Sprintf("%s proves nothing: %v", object.Key, err))
		default:
			return err
		}
	}
	slices.SortFunc(info.Drills, func(a, b Drill) int {
		return cmp.Or(b.At.Compare(a.At), b.CreatedAt.Compare(a.CreatedAt))
	})
	return nil
}

// errOtherCommit is a proof of what is not stored any more, or never was.
var errOtherCommit = fmt.Errorf("%w: it is about another plan or commit", ErrForged)

func (r *Repository) readProof(ctx context.Context, info *BackupInfo, key string) (record.Proof, error) {
	var p record.Proof
	data, err := getAll(ctx, r.store, key)
	if err != nil {
		return p, err
	}
	if _, err := record.Decode(data, &p, r.keys.provers()); err != nil {
		return p, err
	}
	member := info.Members[p.Ordinal]
	switch {
	case p.Set != info.Set || p.Backup != info.ID || p.Repository != r.config.Repository:
		return p, fmt.Errorf("%w: it is of %s of %s in repository %s", ErrForged, p.Backup, p.Set, p.Repository)
	case !member.Valid || p.PlanSHA256 != info.planHash || p.Commit != member.sum:
		return p, errOtherCommit
	}
	return p, nil
}
