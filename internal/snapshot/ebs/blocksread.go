package ebs

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ebs/types"

	"keepset/internal/snapshot"
)

var _ snapshot.BlockReader = (*Snapshotter)(nil)

const (
	// pageBlocks is how many blocks one reply may list at most.
	pageBlocks = 10000
	// readAttempts is how often a block is read whose checksum does not match.
	readAttempts = 3
)

// Blocks implements [snapshot.BlockReader].
func (s *Snapshotter) Blocks(ctx context.Context, r snapshot.Ref, since *snapshot.Ref) iter.Seq2[snapshot.Block, error] {
	return func(yield func(snapshot.Block, error) bool) {
		if err := s.blocks(ctx, r, since, func(b snapshot.Block) bool { return yield(b, nil) }); err != nil {
			yield(snapshot.Block{}, fmt.Errorf("list the blocks of snapshot %s: %w", r.ID, err))
		}
	}
}

// blocks walks through the list of all blocks and the list of changed ones side by side.
func (s *Snapshotter) blocks(ctx context.Context, r snapshot.Ref, since *snapshot.Ref, yield func(snapshot.Block) bool) error {
	if err := isEBS(r); err != nil {
		return err
	}
	c, err := s.in(r.Region)
	if err != nil {
		return err
	}
	changed := &list{more: false}
	if since != nil {
		changed = s.listChanged(c, r.ID, since.ID)
		if err := changed.fill(ctx); err != nil { // what cannot be compared is said before the first block
			return fmt.Errorf("compare it with snapshot %s: %w", since.ID, err)
		}
	}
	all := s.listAll(c, r.ID)
	for {
		b, ok, err := all.next(ctx)
		if err != nil || !ok {
			return err
		}
		if since != nil {
			isChanged, err := changed.reaches(ctx, b.Index)
			if err != nil {
				return fmt.Errorf("compare it with snapshot %s: %w", since.ID, err)
			}
			if !isChanged {
				b.Token, b.Same = "", true
			}
		}
		if !yield(b) {
			return nil
		}
	}
}

// list reads a list of blocks page by page.
type list struct {
	// page asks for the next one: by the token of the last, or where there is none, from an index.
	page  func(ctx context.Context, token *string, from int64) ([]snapshot.Block, *string, error)
	read  []snapshot.Block
	token *string
	from  int64
	more  bool
}

// fill sees to it that something is read, unless the list has ended. A page's token is good for an
// hour, which reading what the last page has listed may exceed: then the list goes on from where it was.
func (l *list) fill(ctx context.Context) error {
	for len(l.read) == 0 && l.more {
		blocks, token, err := l.page(ctx, l.token, l.from)
		if l.token != nil && reason(err) == types.ValidationExceptionReasonInvalidPageToken {
			l.token = nil
			continue
		}
		if err != nil {
			return err
		}
		l.read, l.token, l.more = blocks, token, token != nil
		if len(blocks) > 0 {
			l.from = blocks[len(blocks)-1].Index + 1
		}
	}
	return nil
}

func (l *list) next(ctx context.Context) (snapshot.Block, bool, error) {
	if err := l.fill(ctx); err != nil || len(l.read) == 0 {
		return snapshot.Block{}, false, err
	}
	b := l.read[0]
	l.read = l.read[1:]
	return b, true, nil
}

// reaches walks to an index and says whether it is in the list.
func (l *list) reaches(ctx context.Context, index int64) (bool, error) {
	for {
		if err := l.fill(ctx); err != nil || len(l.read) == 0 {
			return false, err
		}
		if l.read[0].Index >= index {
			return l.read[0].Index == index, nil
		}
		l.read = l.read[1:]
	}
}

func (s *Snapshotter) listAll(c *clients, id string) *list {
	return &list{more: true, page: func(ctx context.Context, token *string, from int64) ([]snapshot.Block, *string, error) {
		input := &ebs.ListSnapshotBlocksInput{SnapshotId: aws.String(id), MaxResults: aws.Int32(int32(s.options.BlocksPerPage)), NextToken: token}
		if token == nil && from > 0 {
			input.StartingBlockIndex = aws.Int32(int32(from))
		}
		var out *ebs.ListSnapshotBlocksOutput
		err := s.call(ctx, listBlocks, "snapshot "+id, func(ctx context.Context) (err error) {
			out, err = c.ebs.ListSnapshotBlocks(ctx, input)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		if err := checkSize(out.BlockSize); err != nil {
			return nil, nil, err
		}
		blocks := make([]snapshot.Block, len(out.Blocks))
		for i, b := range out.Blocks {
			blocks[i] = snapshot.Block{Index: int64(aws.ToInt32(b.BlockIndex)), Token: aws.ToString(b.BlockToken)}
		}
		return blocks, out.NextToken, nil
	}}
}

func (s *Snapshotter) listChanged(c *clients, id, since string) *list {
	return &list{more: true, page: func(ctx context.Context, token *string, from int64) ([]snapshot.Block, *string, error) {
		input := &ebs.ListChangedBlocksInput{
			FirstSnapshotId: aws.String(since), SecondSnapshotId: aws.String(id), MaxResults: aws.Int32(int32(s.options.BlocksPerPage)), NextToken: token,
		}
		if token == nil && from > 0 {
			input.StartingBlockIndex = aws.Int32(int32(from))
		}
		var out *ebs.ListChangedBlocksOutput
		err := s.call(ctx, listChanged, "snapshots "+since+" and "+id, func(ctx context.Context) (err error) {
			out, err = c.ebs.ListChangedBlocks(ctx, input)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		if err := checkSize(out.BlockSize); err != nil {
			return nil, nil, err
		}
		blocks := make([]snapshot.Block, len(out.ChangedBlocks))
		for i, b := range out.ChangedBlocks {
			blocks[i] = snapshot.Block{Index: int64(aws.ToInt32(b.BlockIndex))}
		}
		return blocks, out.NextToken, nil
	}}
}

func checkSize(size *int32) error {
	if got := aws.ToInt32(size); got != snapshot.BlockSize {
		return fmt.Errorf("AWS lists blocks of %d bytes, not %d: %w", got, snapshot.BlockSize, snapshot.ErrFailed)
	}
	return nil
}

// ReadBlock implements [snapshot.BlockReader].
func (s *Snapshotter) ReadBlock(ctx context.Context, r snapshot.Ref, b snapshot.Block, buffer []byte) (int, error) {
	c, err := s.in(r.Region)
	if err != nil {
		return 0, fmt.Errorf("read block %d of snapshot %s: %w", b.Index, r.ID, err)
	}
	if len(buffer) < snapshot.BlockSize {
		return 0, fmt.Errorf("read block %d of snapshot %s: the buffer is shorter than a block", b.Index, r.ID)
	}
	n := 0
	for range readAttempts {
		n, err = s.readBlock(ctx, c, r.ID, b, buffer)
		switch {
		case err == nil:
			return n, nil
		case reason(err) == types.ValidationExceptionReasonInvalidBlockToken:
			// A token is good for a week.
			if b.Token, err = s.newToken(ctx, c, r.ID, b.Index); err != nil {
				return 0, fmt.Errorf("read block %d of snapshot %s: %w", b.Index, r.ID, err)
			}
			err = fmt.Errorf("its token is refused, and a new one too: %w", snapshot.ErrFailed)
		case !errors.Is(err, snapshot.ErrDamaged):
			return 0, fmt.Errorf("read block %d of snapshot %s: %w", b.Index, r.ID, err)
		}
	}
	return 0, fmt.Errorf("read block %d of snapshot %s: %w", b.Index, r.ID, err)
}

func (s *Snapshotter) readBlock(ctx context.Context, c *clients, id string, b snapshot.Block, buffer []byte) (int, error) {
	n := 0
	var said *string
	err := s.call(ctx, getBlock, fmt.Sprintf("block %d of snapshot %s", b.Index, id), func(ctx context.Context) error {
		out, err := c.ebs.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{
			SnapshotId: aws.String(id), BlockIndex: aws.Int32(int32(b.Index)), BlockToken: aws.String(b.Token),
		})
		if err != nil {
			return err
		}
		said = out.Checksum
		n, err = io.ReadFull(out.BlockData, buffer[:min(int(aws.ToInt32(out.DataLength)), len(buffer))])
		return errors.Join(err, out.BlockData.Close())
	})
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256(buffer[:n])
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != aws.ToString(said) {
		return 0, fmt.Errorf("its SHA-256 is %s, AWS says %q: %w", got, aws.ToString(said), snapshot.ErrDamaged)
	}
	return n, nil
}

// newToken lists the one block again.
func (s *Snapshotter) newToken(ctx context.Context, c *clients, id string, index int64) (string, error) {
	l := s.listAll(c, id)
	l.from = index
	b, ok, err := l.next(ctx)
	if err != nil {
		return "", err
	}
	if !ok || b.Index != index {
		return "", fmt.Errorf("it is not in the snapshot: %w", snapshot.ErrNotFound)
	}
	return b.Token, nil
}

// reason is that of a ValidationException, empty for all other errors.
func reason(err error) types.ValidationExceptionReason {
	if v, ok := errors.AsType[*types.ValidationException](err); ok {
		return v.Reason
	}
	return ""
}
