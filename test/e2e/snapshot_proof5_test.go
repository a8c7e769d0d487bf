package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebstest/control"
)

// copyBlocks has the CronJob copy the blocks of its snapshots.
const copyBlocks = `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-backup}
data: {KEEPSET_COPY_BLOCKS: "true"}
`

// The document's set on mysql-gp2, whose snapshots' blocks are copied into the
// repository. The second backup moves exactly the blocks that were written since
// the first. Then the account is lost: neither a snapshot nor a volume is left.
// The set comes up in another namespace from the repository alone, as docs/ebs.md
// says it; its first volume is bit for bit the one that was cut, and every row
// is there.
func TestSnapshotProof5BlockCopy(t *testing.T) {
	t.Parallel()
	s := newReplicatedMySQL(t, onEBS(shopOptions{patches: []string{copyBlocks}}))
	s.forgetCluster()
	s.forgetSnapshots("mysql")
	staging := s.beside("pod-security.kubernetes.io/enforce=baseline")
	staging.forgetCluster()
	staging.forgetSnapshots("mysql")

	first := s.copied("first", nil)
	s.order("between the backups", 500)
	s.caughtUp(1)
	second := s.copied("second", first)
	cut, rows := second["data-mysql-0"], s.rows(0)
	require.Len(t, rows, 2500)
	s.loseAccount()

	o := onEBS(shopOptions{yaml: "ebs.yaml", empty: true})
	staging.install(o)
	r := s.readerOf("mysql-ebs", s.overlay(o), staging.ns)
	r.env = append(r.env, "KEEPSET_REPOSITORY="+s.repository)
	made := staging.firstVolume()
	said := r.follow("../../docs/ebs.md", "Another account")
	assert.Contains(t, said, "2 ordinals ready")
	volume := <-made
	require.NoError(t, volume.err)
	require.True(t, maps.Equal(cut.written(), volume.image.written()), "the first volume has %d blocks, the one that was cut %d: not the same bytes", len(volume.image.written()), len(cut.written()))
	assert.True(t, volume.snapshot.Encrypted, "the snapshot in between, as the volume was")
	puts := len(staging.calls("PutSnapshotBlock"))
	t.Logf("measured: a volume of %d blocks came back by %d writes, bit for bit", len(cut.written()), puts)
	assert.Len(t, cut.written(), puts, "each block is written once")

	staging.waitReady(2)
	require.Equal(t, rows, staging.rows(0), "value by value")
	staging.caughtUp(1)
	require.Equal(t, rows, staging.rows(1), "value by value")
	staging.order("life goes on", 100)
	staging.isFollower(1)
	for _, v := range staging.volumesOf() {
		assert.Equal(t, volume.snapshot.ID, v.Snapshot)
		assert.True(t, v.Encrypted)
	}
	assert.Empty(t, staging.snapshotsOf(), "what was made for the restore alone is deleted")
	staging.nothingLost()
	staging.nothingLeft()
}

var blocksLine = regexp.MustCompile(`msg="blocks copied".* claim=(\S+) .*read=(\d+) unchanged=(\d+)`)

// copied runs a backup by the CronJob's template, and returns the images of its
// snapshots by claim. Of each, exactly the blocks have moved that are not in
// the image before: the machine's own files say so, not AWS's API.
func (s *shopSet) copied(job string, before map[string]image) map[string]image {
	s.t.Helper()
	earlier := len(s.calls("GetSnapshotBlock"))
	s.jobOK("keepset-backup", job)
	log := s.logs(job)
	type counts struct{ read, unchanged int }
	reported := map[string]counts{}
	for _, m := range blocksLine.FindAllStringSubmatch(log, -1) {
		read, err := strconv.Atoi(m[2])
		require.NoError(s.t, err)
		unchanged, err := strconv.Atoi(m[3])
		require.NoError(s.t, err)
		reported[m[1]] = counts{read, unchanged}
	}
	cuts := s.cutsOf(s.backupID(job))
	require.Len(s.t, cuts, 2)
	now, moved := map[string]image{}, 0
	for _, claim := range slices.Sorted(maps.Keys(cuts)) {
		img, err := readImage(cuts[claim].Path)
		require.NoError(s.t, err)
		changed := img.since(before[claim])
		s.t.Logf("measured: backup %s of %s: %d blocks of 512 KiB moved, %d unchanged", job, claim, reported[claim].read, reported[claim].unchanged)
		require.Equal(s.t, counts{changed, len(img) - changed}, reported[claim], "blocks of %s that %s should move:\n%s", claim, job, log)
		now[claim], moved = img, moved+changed
		if before != nil {
			require.Positive(s.t, changed)
			require.Less(s.t, changed, len(img)/2, "500 rows do not change half of a volume")
		}
	}
	require.Len(s.t, s.calls("GetSnapshotBlock"), earlier+moved, "blocks that were asked for")
	return now
}

// image is what a volume's file holds: the checksum of each block of 512 KiB
// that it has, by index.
type image map[int64][sha256.Size]byte

// readImage reads the blocks of a sparse file.
func readImage(path string) (image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	const seekData = 3 // of Linux's lseek(2)
	img, block := image{}, make([]byte, snapshot.BlockSize)
	for next := int64(0); ; {
		at, err := f.Seek(next*snapshot.BlockSize, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return img, nil
		}
		if err != nil {
			return nil, err
		}
		index := at / snapshot.BlockSize
		n, err := f.ReadAt(block, index*snapshot.BlockSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		clear(block[n:])
		img[index], next = sha256.Sum256(block), index+1
	}
}

// since counts the blocks that an earlier image lacks, or has with other bytes.
func (i image) since(before image) int {
	changed := 0
	for index, sum := range i {
		if old, ok := before[index]; !ok || old != sum {
			changed++
		}
	}
	return changed
}

// written is the image without blocks of zeros, which read the same as none.
func (i image) written() image {
	zeros := sha256.Sum256(make([]byte, snapshot.BlockSize))
	w := maps.Clone(i)
	maps.DeleteFunc(w, func(_ int64, sum [sha256.Size]byte) bool { return sum == zeros })
	return w
}

// rows are all orders of an ordinal's server, with every value.
func (s *shopSet) rows(ordinal int) []string {
	s.t.Helper()
	found, err := s.db(ordinal).QueryContext(s.t.Context(), "SELECT CONCAT_WS('|', id, customer, note) FROM shop.orders ORDER BY id")
	require.NoError(s.t, err)
	defer func() { _ = found.Close() }()
	var all []string
	for found.Next() {
		var row string
		require.NoError(s.t, found.Scan(&row))
		all = append(all, row)
	}
	require.NoError(s.t, found.Err())
	return all
}

// loseAccount takes away the set with all that it has at the fake: for who comes
// then, it is an account that never had anything of it.
func (s *shopSet) loseAccount() {
	s.t.Helper()
	s.kubectl("delete", "statefulset", "mysql")
	s.kubectl("delete", "pvc", "--all")
	s.until(2*time.Minute, "the set's volumes are gone", func() bool { return len(s.volumesOf()) == 0 })
	account, owner := s.ebs("burglar"), s.owner("mysql")
	var lost []snapshot.Ref
	for ref, err := range account.List(s.t.Context(), owner) {
		require.NoError(s.t, err)
		lost = append(lost, ref)
	}
	require.Len(s.t, lost, 4)
	for _, ref := range lost {
		require.NoError(s.t, account.Delete(s.t.Context(), owner, ref))
	}
	require.Empty(s.t, s.snapshotsOf())
	line := s.host().fails(cli.ExitFailed, "backup", "verify", "--set", "mysql", "--repository", s.repository, "--orphans", "--snapshotter", "ebs")
	require.Contains(s.t, line, "4 volume snapshots that backups need are gone")
}

// madeVolume is a volume as it came from EC2, and the snapshot that it is of.
type madeVolume struct {
	snapshot control.Snapshot
	image    image
	err      error
}

// firstVolume holds the replies of EC2 to who makes volumes for the namespace,
// so that no pod mounts the first one before it is read.
func (s *shopSet) firstVolume() <-chan madeVolume {
	s.t.Helper()
	rule, err := s.ec2().Inject(s.t.Context(), control.Rule{
		Action: "CreateVolume", Scope: control.Scope{Tags: map[string]string{"keepset/namespace": s.ns}}, Hold: true, Times: -1,
	})
	require.NoError(s.t, err)
	made := make(chan madeVolume, 1)
	go func() {
		ctx := s.t.Context()
		m, err := s.held(ctx, rule)
		m.err = errors.Join(err, s.ec2().Remove(context.WithoutCancel(ctx), rule))
		made <- m
	}()
	return made
}

// held reads the volume, and finds the snapshot, that the first call of a rule is about.
func (s *shopSet) held(ctx context.Context, rule string) (made madeVolume, err error) {
	for fired := 0; fired == 0; {
		if fired, err = s.ec2().Fired(ctx, rule); err != nil {
			return made, err
		}
		select {
		case <-ctx.Done():
			return made, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	volumes, err := s.ec2().Volumes(ctx)
	if err != nil {
		return made, err
	}
	at := slices.IndexFunc(volumes, func(v control.Volume) bool { return v.Tags["kubernetes.io/created-for/pvc/namespace"] == s.ns })
	if at < 0 {
		return made, errors.New("EC2 was asked for a volume and has none")
	}
	if made.image, err = readImage(volumes[at].Path); err != nil {
		return made, err
	}
	snapshots, err := s.ec2().Snapshots(ctx)
	for _, one := range snapshots {
		if one.ID == volumes[at].Snapshot {
			made.snapshot = one
		}
	}
	return made, err
}
