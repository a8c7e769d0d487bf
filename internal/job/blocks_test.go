package job_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/snapshot"
)

type blocks map[int64][]byte

// blockVolumes is fakeVolumes whose snapshots have blocks.
type blockVolumes struct {
	*fakeVolumes
	size int64
	mu   sync.Mutex
	// live are the volumes by claim, cut what snapshots hold.
	live, cut map[string]blocks
	reads     int
	// encrypted is what the provider says of the snapshots of volumes.
	encrypted bool
	// onWrite is called with each block that is written, onComplete at the end.
	onWrite, onComplete func()
}

func newBlockVolumes(f *fakeVolumes) *blockVolumes {
	return &blockVolumes{fakeVolumes: f, size: 16 << 20, live: map[string]blocks{}, cut: map[string]blocks{}}
}

func (v *blockVolumes) Locate(ctx context.Context, volumes []snapshot.Volume) ([]snapshot.Volume, error) {
	volumes, err := v.fakeVolumes.Locate(ctx, volumes)
	for i := range volumes {
		volumes[i].Size = v.size
	}
	return volumes, err
}

func (v *blockVolumes) Cut(ctx context.Context, name string, volumes []snapshot.Volume) ([]snapshot.Ref, error) {
	refs, err := v.fakeVolumes.Cut(ctx, name, volumes)
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, r := range refs {
		refs[i].Encrypted = v.encrypted
		v.cut[r.ID] = maps.Clone(v.live[r.Claim])
	}
	return refs, err
}

func (v *blockVolumes) Blocks(_ context.Context, r snapshot.Ref, since *snapshot.Ref) iter.Seq2[snapshot.Block, error] {
	return func(yield func(snapshot.Block, error) bool) {
		v.mu.Lock()
		now := v.cut[r.ID]
		var before blocks
		if since != nil {
			before = v.cut[since.ID]
		}
		v.mu.Unlock()
		if since != nil {
			if before == nil {
				yield(snapshot.Block{}, fmt.Errorf("snapshot %s: %w", since.ID, snapshot.ErrNotFound))
				return
			}
		}
		for _, index := range slices.Sorted(maps.Keys(now)) {
			b := snapshot.Block{Index: index, Token: fmt.Sprintf("token-%s-%d", r.ID, index)}
			if since != nil && bytes.Equal(before[index], now[index]) {
				b = snapshot.Block{Index: index, Same: true}
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

func (v *blockVolumes) ReadBlock(_ context.Context, r snapshot.Ref, b snapshot.Block, buffer []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b.Token != fmt.Sprintf("token-%s-%d", r.ID, b.Index) {
		return 0, fmt.Errorf("block %d read with token %q", b.Index, b.Token)
	}
	v.reads++
	return copy(buffer, v.cut[r.ID][b.Index]), nil
}

func (v *blockVolumes) StartSnapshot(_ context.Context, name string, volume snapshot.Volume) (snapshot.Ref, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := snapshot.Ref{
		Provider: record.ProviderEBS, ID: "snap-" + name + volume.Claim, Cut: name, Claim: volume.Claim, Template: volume.Template,
		Volume: "none", Size: volume.Size, CutAt: v.clock.Now(), Encrypted: volume.Encrypted,
	}
	v.snapshots[r.ID], v.owners[r.ID], v.cut[r.ID] = r, volume.Owner, blocks{}
	return r, nil
}

func (v *blockVolumes) WriteBlock(_ context.Context, r snapshot.Ref, index int64, block []byte) error {
	if v.onWrite != nil {
		v.onWrite()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cut[r.ID][index] = bytes.Clone(block)
	return nil
}

func (v *blockVolumes) CompleteSnapshot(_ context.Context, r snapshot.Ref, n int64) error {
	if v.onComplete != nil {
		v.onComplete()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if n != int64(len(v.cut[r.ID])) {
		return fmt.Errorf("%d blocks were written, not %d", len(v.cut[r.ID]), n)
	}
	return nil
}

// fill writes random blocks.
func (v *blockVolumes) fill(claim string, random *rand.ChaCha8, indexes ...int64) {
	if v.live[claim] == nil {
		v.live[claim] = blocks{}
	}
	for _, i := range indexes {
		b := make([]byte, snapshot.BlockSize)
		_, _ = random.Read(b)
		v.live[claim][i] = b
	}
}

func span(from, to int64) (all []int64) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// copier is a cutter of one member whose blocks are copied.
func newCopier(t *testing.T) (*cutter, *blockVolumes, *rand.ChaCha8) {
	c := newCutter(t, 1)
	v := newBlockVolumes(c.volumes)
	random := rand.NewChaCha8([32]byte{7})
	v.fill("data-mysql-0", random, append(span(0, 10), 25, 26, 31)...)
	v.fill("log-mysql-0", random, 3)
	return c, v, random
}

func (c *cutter) copyRun(t *testing.T, v *blockVolumes) job.MemberResult {
	t.Helper()
	b := c.backup()
	b.Volumes.Snapshotter, b.Volumes.Copy = v, true
	v.reads = 0
	report, err := b.Run(t.Context())
	require.NoError(t, err)
	return report.Members[0]
}

// requireCopies reads every copy back and compares it with its snapshot.
func (c *cutter) requireCopies(t *testing.T, v *blockVolumes) {
	t.Helper()
	infos, err := c.repo.Backups(t.Context(), volumesSet)
	require.NoError(t, err)
	reader, err := c.repo.OpenMember(t.Context(), infos[0], 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, reader.Close()) }()
	for _, r := range reader.VolumeSnapshots() {
		body, err := reader.Open(t.Context(), r.Stream)
		require.NoError(t, err)
		got := new(bytes.Buffer)
		_, err = got.ReadFrom(body)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		want := make([]byte, v.size)
		for i, b := range v.cut[r.ID] {
			copy(want[i*snapshot.BlockSize:], b)
		}
		require.True(t, bytes.Equal(want, got.Bytes()), "copy of %s", r.ID)
	}
}

func TestOnlyChangedBlocksTravel(t *testing.T) {
	c, v, random := newCopier(t)
	first := c.copyRun(t, v)
	require.Equal(t, 14, v.reads)
	require.Equal(t, "volumes/data", first.VolumeSnapshots[0].Stream)
	c.requireCopies(t, v)

	v.fill("data-mysql-0", random, 5, 6, 15)
	delete(v.live["data-mysql-0"], 25)
	second := c.copyRun(t, v)
	require.Equal(t, 3, v.reads)
	require.Less(t, second.Stored, first.Stored/4)
	c.requireCopies(t, v)
	t.Logf("first run read 14 blocks and stored %d bytes, second read %d and stored %d", first.Stored, v.reads, second.Stored)

	third := c.copyRun(t, v)
	require.Zero(t, v.reads)
	require.Less(t, third.Stored, int64(100<<10))
	c.requireCopies(t, v)
}

func TestVolumeIsReadWholeWithoutItsBase(t *testing.T) {
	c, v, _ := newCopier(t)
	first := c.copyRun(t, v)
	for _, r := range first.VolumeSnapshots {
		delete(v.cut, r.ID) // somebody deleted it
	}
	second := c.copyRun(t, v)
	require.Equal(t, 14, v.reads)
	require.Less(t, second.Stored, int64(100<<10), "the store has it all")
	c.requireCopies(t, v)

	v.size *= 2 // and when it has grown
	v.reads = 0
	c.copyRun(t, v)
	require.Equal(t, 14, v.reads)
	c.requireCopies(t, v)
}

// What the store has lost is read again from the snapshot.
func TestUnchangedBlockThatTheStoreHasLost(t *testing.T) {
	c, v, _ := newCopier(t)
	c.copyRun(t, v)
	var packs []string
	for o, err := range c.store.List(t.Context(), "sets/shop/mysql/packs/") {
		require.NoError(t, err)
		packs = append(packs, o.Key)
	}
	require.NotEmpty(t, packs)
	require.NoError(t, c.store.Delete(t.Context(), packs[0]))
	c.copyRun(t, v)
	require.Positive(t, v.reads)
	c.requireCopies(t, v)
}
