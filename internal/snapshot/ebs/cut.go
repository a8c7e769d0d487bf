package ebs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

// cleanupTime bounds the removal of what a cut that failed has made, whose own context may have ended.
const cleanupTime = 30 * time.Second

// cutting is one call of Cut.
type cutting struct {
	*Snapshotter
	clients
	name, attempt string
	volumes       []snapshot.Volume
	// described are the volumes as EC2 has them, by ID.
	described map[string]types.Volume
	// replied are the IDs of what was made, which EC2 may not show for a while.
	replied []string
}

// Cut implements [snapshot.Snapshotter].
func (s *Snapshotter) Cut(ctx context.Context, name string, volumes []snapshot.Volume) ([]snapshot.Ref, error) {
	if err := checkCut(name, volumes); err != nil {
		return nil, err
	}
	unlock, err := s.lock(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("cut %s: %w", name, err)
	}
	defer unlock()
	c, err := s.in(regionOf(volumes[0].Zone))
	if err != nil {
		return nil, fmt.Errorf("cut %s: %w", name, err)
	}
	k := &cutting{Snapshotter: s, clients: *c, name: name, attempt: newAttempt(), volumes: volumes}
	refs, err := k.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("cut %s: %w", name, err)
	}
	return refs, nil
}

func checkCut(name string, volumes []snapshot.Volume) error {
	if name == "" || len(volumes) == 0 {
		return fmt.Errorf("cut %q: a name and at least one volume are wanted: %w", name, snapshot.ErrNotFound)
	}
	seen := map[string]string{}
	for _, v := range volumes {
		switch {
		case v.Handle == "":
			return fmt.Errorf("cut %s: claim %s/%s was not located: %w", name, v.Namespace, v.Claim, snapshot.ErrNotFound)
		case v.Owner != volumes[0].Owner || v.Ordinal != volumes[0].Ordinal:
			return fmt.Errorf("cut %s: claims %s and %s are of different members: %w", name, volumes[0].Claim, v.Claim, snapshot.ErrUnsupported)
		case regionOf(v.Zone) != regionOf(volumes[0].Zone):
			return fmt.Errorf("cut %s: claims %s and %s are in different regions: %w", name, volumes[0].Claim, v.Claim, snapshot.ErrUnsupported)
		case seen[v.Handle] != "":
			return fmt.Errorf("cut %s: claims %s and %s are of the same volume %s: %w", name, seen[v.Handle], v.Claim, v.Handle, snapshot.ErrUnsupported)
		}
		seen[v.Handle] = v.Claim
	}
	return nil
}

func newAttempt() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}

// run adopts a whole cut of this name, or makes one; and deletes all else of the name.
func (k *cutting) run(ctx context.Context) ([]snapshot.Ref, error) {
	var err error
	if k.described, err = k.describeLocated(ctx, k.volumes); err != nil {
		return nil, err
	}
	whole, rest, err := k.found(ctx)
	if err != nil {
		return nil, err
	}
	for _, snap := range rest {
		k.log.InfoContext(ctx, "deleting a snapshot of a cut that was not completed", "snapshot", *snap.SnapshotId, "cut", k.name)
		if err := k.deleteSnapshot(ctx, &k.clients, *snap.SnapshotId); err != nil {
			return nil, err
		}
	}
	if whole == nil {
		if whole, err = k.make(ctx); err != nil {
			return nil, errors.Join(err, k.clean(ctx))
		}
	}
	refs := make([]snapshot.Ref, len(k.volumes))
	for i, v := range k.volumes {
		refs[i] = k.ref(v, whole[v.Handle])
	}
	return refs, nil
}

// found sorts what bears the cut's name: one attempt that has all volumes, each once, and the rest.
// What is left of an attempt that has not is of another moment than what would be added to it.
func (k *cutting) found(ctx context.Context) (whole map[string]types.Snapshot, rest []types.Snapshot, err error) {
	all, err := k.ofCut(ctx, &k.clients, k.volumes[0], k.name, nil)
	if err != nil {
		return nil, nil, err
	}
	attempts := map[string]map[string]types.Snapshot{}
	for _, snap := range all {
		attempt := fromTags(snap.Tags)[tagAttempt]
		if attempts[attempt] == nil {
			attempts[attempt] = map[string]types.Snapshot{}
		}
		if snap.State != types.SnapshotStateError {
			attempts[attempt][aws.ToString(snap.VolumeId)] = snap
		}
	}
	for _, snap := range all { // in EC2's order, so that it is the same attempt each time
		if a := attempts[fromTags(snap.Tags)[tagAttempt]]; whole == nil && k.complete(a) {
			whole = a
		}
	}
	for _, snap := range all {
		if kept, ok := whole[aws.ToString(snap.VolumeId)]; !ok || aws.ToString(kept.SnapshotId) != aws.ToString(snap.SnapshotId) {
			rest = append(rest, snap)
		}
	}
	return whole, rest, k.tag(ctx, whole)
}

func (k *cutting) complete(found map[string]types.Snapshot) bool {
	if len(found) != len(k.volumes) {
		return false
	}
	for _, v := range k.volumes {
		if _, ok := found[v.Handle]; !ok {
			return false
		}
	}
	return true
}

// make cuts all volumes in one call where they are attached to one instance, else one after the other.
func (k *cutting) make(ctx context.Context) (map[string]types.Snapshot, error) {
	if instance := k.instance(); instance != "" && len(k.volumes) > 1 {
		made, err := k.together(ctx, instance)
		if err == nil || !errors.Is(err, errApart) {
			return made, err
		}
		k.log.WarnContext(ctx, "cutting the member's volumes one after the other", "cut", k.name, "reason", err.Error())
		if err := k.clean(ctx); err != nil {
			return nil, err
		}
	}
	made := map[string]types.Snapshot{}
	for _, v := range k.volumes {
		snap, err := k.one(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("claim %s/%s: %w", v.Namespace, v.Claim, err)
		}
		made[v.Handle] = snap
	}
	return made, nil
}

// one cuts a single volume. When a reply was lost it looks before it asks again.
func (k *cutting) one(ctx context.Context, v snapshot.Volume) (types.Snapshot, error) {
	input := k.oneInput(v)
	var made types.Snapshot
	err := k.onceOrFound(ctx, createSnapshot, "volume "+v.Handle,
		func(ctx context.Context) error {
			out, err := k.ec2.CreateSnapshot(ctx, input)
			if err == nil {
				k.replied = append(k.replied, aws.ToString(out.SnapshotId))
				made = types.Snapshot{
					SnapshotId: out.SnapshotId, VolumeId: out.VolumeId, VolumeSize: out.VolumeSize,
					StartTime: out.StartTime, Encrypted: out.Encrypted, KmsKeyId: out.KmsKeyId, State: out.State,
				}
			}
			return err
		},
		func(ctx context.Context) (bool, error) {
			found, err := k.madeByUs(ctx)
			for _, snap := range found {
				if aws.ToString(snap.VolumeId) == v.Handle {
					made = snap
					return true, nil
				}
			}
			return false, err
		})
	return made, err
}

// oneInput asks for the snapshot of a single volume.
func (k *cutting) oneInput(v snapshot.Volume) *ec2.CreateSnapshotInput {
	tags := ownTags(v, k.described[v.Handle])
	maps.Copy(tags, k.cutTags(k.name, k.attempt, v))
	return &ec2.CreateSnapshotInput{
		VolumeId: aws.String(v.Handle), Description: aws.String(describeCut(k.name, v)),
		TagSpecifications: specify(types.ResourceTypeSnapshot, tags),
	}
}

// madeByUs finds what this attempt has made.
func (k *cutting) madeByUs(ctx context.Context) ([]types.Snapshot, error) {
	return k.ofCut(ctx, &k.clients, k.volumes[0], k.name, map[string]string{tagAttempt: k.attempt})
}

// clean deletes what this attempt has made.
func (k *cutting) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	var errs []error
	made, err := k.madeByUs(ctx)
	if err != nil {
		errs = append(errs, fmt.Errorf("look for what was made: %w", err))
	}
	ids := slices.Clone(k.replied)
	for _, snap := range made {
		ids = append(ids, aws.ToString(snap.SnapshotId))
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		errs = append(errs, k.deleteSnapshot(ctx, &k.clients, id))
	}
	return errors.Join(errs...)
}

func describeCut(name string, v snapshot.Volume) string {
	return fmt.Sprintf("keepset %s, claim %s/%s", name, v.Namespace, v.Claim)
}

// ref is what the record keeps.
func (k *cutting) ref(v snapshot.Volume, snap types.Snapshot) snapshot.Ref {
	return snapshot.Ref{
		Provider: record.ProviderEBS, ID: aws.ToString(snap.SnapshotId), Cut: k.name, Driver: v.Driver, Region: k.clients.region,
		Claim: v.Claim, Template: v.Template, Volume: v.Handle, Zone: v.Zone,
		Size: int64(aws.ToInt32(snap.VolumeSize)) * gib, Block: v.Block, FSType: v.FSType,
		Encrypted: aws.ToBool(snap.Encrypted), KMSKey: aws.ToString(k.described[v.Handle].KmsKeyId),
		CutAt: aws.ToTime(snap.StartTime).UTC(), Together: len(k.volumes) > 1 && fromTags(snap.Tags)[tagTogether] != "",
	}
}
