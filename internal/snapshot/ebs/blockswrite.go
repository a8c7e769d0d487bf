package ebs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

var _ snapshot.BlockWriter = (*Snapshotter)(nil)

const (
	// fromRepository stands in tagCopyOf of a snapshot that was written from the repository.
	fromRepository = "repository"
	// noVolume is what AWS says a snapshot is of that no volume was cut for.
	noVolume = "vol-ffffffff"
	// writeTimeout, in minutes, is when AWS gives up a snapshot that nobody has written to: the
	// longest there is. A Job that is retried within that time finds it again.
	writeTimeout = 60
)

// StartSnapshot implements [snapshot.BlockWriter]. A snapshot of this name that was begun is
// continued: all blocks are written again. Into one that is complete they are not.
func (s *Snapshotter) StartSnapshot(ctx context.Context, name string, v snapshot.Volume) (snapshot.Ref, error) {
	unlock, err := s.lock(ctx, "start "+name+" "+v.Claim)
	if err != nil {
		return snapshot.Ref{}, fmt.Errorf("start snapshot %s: %w", name, err)
	}
	defer unlock()
	ref, err := s.start(ctx, name, v)
	if err != nil {
		return snapshot.Ref{}, fmt.Errorf("start snapshot %s of claim %s/%s: %w", name, v.Namespace, v.Claim, err)
	}
	return ref, nil
}

func (s *Snapshotter) start(ctx context.Context, name string, v snapshot.Volume) (snapshot.Ref, error) {
	c, err := s.in(regionOf(v.Zone))
	if err != nil {
		return snapshot.Ref{}, err
	}
	tags := s.cutTags(name, fromRepository, v)
	tags[tagClaim], tags[tagCopyOf] = v.Claim, fromRepository
	found, dead, err := s.started(ctx, c, name, v)
	if err != nil {
		return snapshot.Ref{}, err
	}
	if found == nil {
		token := startToken(tags)
		if dead {
			token = newAttempt() // the old one is answered with the snapshot that failed
		}
		if found, err = s.startNew(ctx, c, token, tags, name, v); err != nil {
			return snapshot.Ref{}, err
		}
	}
	id := aws.ToString(found.SnapshotId)
	s.mu.Lock()
	s.written[id] = &written{complete: found.State == types.SnapshotStateCompleted, window: map[int64][sha256.Size]byte{}}
	s.mu.Unlock()
	return snapshot.Ref{
		Provider: record.ProviderEBS, ID: id, Cut: name, Driver: or(v.Driver, driverCSI), Region: c.region,
		Claim: v.Claim, Template: v.Template, Volume: or(v.Handle, noVolume), Zone: v.Zone, Size: int64(aws.ToInt32(found.VolumeSize)) * gib,
		Block: v.Block, FSType: v.FSType, Encrypted: aws.ToBool(found.Encrypted), KMSKey: aws.ToString(found.KmsKeyId),
		CutAt: aws.ToTime(found.StartTime).UTC(),
	}, nil
}

// started finds the snapshot that an earlier call has begun; those that AWS gave up are deleted.
func (s *Snapshotter) started(ctx context.Context, c *clients, name string, v snapshot.Volume) (found *types.Snapshot, dead bool, err error) {
	tags := ownerTags(v.Owner)
	tags[tagName], tags[tagClaim], tags[tagCopyOf] = name, v.Claim, fromRepository
	var rest []string
	for snap, err := range s.snapshots(ctx, c, "snapshots named "+name, tags) {
		switch {
		case err != nil:
			return nil, false, err
		case snap.State == types.SnapshotStateError:
			rest = append(rest, aws.ToString(snap.SnapshotId))
		case found == nil:
			found = &snap
		}
	}
	for _, id := range rest {
		if err := s.deleteSnapshot(ctx, c, id); err != nil {
			return nil, false, err
		}
	}
	return found, len(rest) > 0, nil
}

func (s *Snapshotter) startNew(ctx context.Context, c *clients, token string, tags map[string]string, name string, v snapshot.Volume) (*types.Snapshot, error) {
	input := &ebs.StartSnapshotInput{
		VolumeSize: aws.Int64((v.Size + gib - 1) / gib), ClientToken: aws.String(token), Timeout: aws.Int32(writeTimeout),
		Description: aws.String(describeCut(name, v)),
	}
	for _, t := range toTags(tags) {
		input.Tags = append(input.Tags, ebstypes.Tag{Key: t.Key, Value: t.Value})
	}
	if v.Encrypted || s.options.KMSKey != "" {
		input.Encrypted = aws.Bool(true) // with the account's default key, where none is named
	}
	if s.options.KMSKey != "" {
		input.KmsKeyArn = aws.String(s.options.KMSKey)
	}
	var out *ebs.StartSnapshotOutput
	err := s.call(ctx, startSnapshot, "claim "+v.Namespace+"/"+v.Claim, func(ctx context.Context) (err error) {
		out, err = c.ebs.StartSnapshot(ctx, input)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &types.Snapshot{
		SnapshotId: out.SnapshotId, VolumeSize: aws.Int32(int32(aws.ToInt64(out.VolumeSize))), StartTime: out.StartTime, State: types.SnapshotStatePending,
		Encrypted: aws.Bool(aws.ToString(out.KmsKeyArn) != ""), KmsKeyId: out.KmsKeyArn,
	}, nil
}

func startToken(tags map[string]string) string {
	return digest(tags[tagCluster], tags[tagNamespace], tags[tagSet], tags[tagOrdinal], tags[tagName], tags[tagClaim])
}

// WriteBlock implements [snapshot.BlockWriter].
func (s *Snapshotter) WriteBlock(ctx context.Context, r snapshot.Ref, index int64, block []byte) error {
	if len(block) != snapshot.BlockSize {
		return fmt.Errorf("write block %d of snapshot %s: it is %d bytes long, not %d", index, r.ID, len(block), snapshot.BlockSize)
	}
	c, err := s.in(r.Region)
	if err != nil {
		return fmt.Errorf("write block %d of snapshot %s: %w", index, r.ID, err)
	}
	s.mu.Lock()
	w := s.written[r.ID]
	s.mu.Unlock()
	if w == nil {
		return fmt.Errorf("write block %d of snapshot %s: StartSnapshot has not begun it: %w", index, r.ID, snapshot.ErrNotFound)
	}
	if w.complete {
		return ctx.Err()
	}
	sum := sha256.Sum256(block)
	err = s.call(ctx, putBlock, fmt.Sprintf("block %d of snapshot %s", index, r.ID), func(ctx context.Context) error {
		_, err := c.ebs.PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{
			SnapshotId: aws.String(r.ID), BlockIndex: aws.Int32(int32(index)), BlockData: bytes.NewReader(block), DataLength: aws.Int32(snapshot.BlockSize),
			Checksum: aws.String(base64.StdEncoding.EncodeToString(sum[:])), ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
		})
		if code(err) == codeNotFound {
			err = &unseenError{err} // it was just started
		}
		return err
	})
	if err != nil {
		return err
	}
	w.add(index, sum)
	return nil
}

// CompleteSnapshot implements [snapshot.BlockWriter].
func (s *Snapshotter) CompleteSnapshot(ctx context.Context, r snapshot.Ref, blocks int64) error {
	c, err := s.in(r.Region)
	if err != nil {
		return fmt.Errorf("complete snapshot %s: %w", r.ID, err)
	}
	s.mu.Lock()
	w := s.written[r.ID]
	s.mu.Unlock()
	if w == nil {
		return fmt.Errorf("complete snapshot %s: StartSnapshot has not begun it: %w", r.ID, snapshot.ErrNotFound)
	}
	if !w.complete {
		if err := s.complete(ctx, c, r, w, blocks); err != nil {
			return fmt.Errorf("complete snapshot %s: %w", r.ID, err)
		}
	}
	if err := s.WaitReady(ctx, r); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.written, r.ID)
	s.mu.Unlock()
	return nil
}

func (s *Snapshotter) complete(ctx context.Context, c *clients, r snapshot.Ref, w *written, blocks int64) error {
	count, sum := w.sum()
	input := &ebs.CompleteSnapshotInput{SnapshotId: aws.String(r.ID), ChangedBlocksCount: aws.Int32(int32(blocks))}
	if sum != "" {
		if count != blocks {
			return fmt.Errorf("%d blocks were written, not %d: %w", count, blocks, snapshot.ErrFailed)
		}
		input.Checksum = aws.String(sum)
		input.ChecksumAlgorithm = ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256
		input.ChecksumAggregationMethod = ebstypes.ChecksumAggregationMethodChecksumAggregationLinear
	}
	err := s.call(ctx, completeSnapshot, "snapshot "+r.ID, func(ctx context.Context) error {
		_, err := c.ebs.CompleteSnapshot(ctx, input)
		return err
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	// Where the reply to an earlier attempt was lost, it is complete already.
	snap, look := s.snapshotByID(ctx, c, r.ID)
	if look == nil && snap != nil && (snap.State == types.SnapshotStateCompleted || strings.TrimSuffix(aws.ToString(snap.Progress), "%") == "100") {
		return nil
	}
	return err
}
