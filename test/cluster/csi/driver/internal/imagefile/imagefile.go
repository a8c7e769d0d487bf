// Package imagefile is the plain provider of volumes: sparse image files in a
// directory of this machine, and copies of them as snapshots. A [Store] is
// such a directory.
//
// A volume or snapshot exists when its record does, a small JSON file that is
// written last and removed first; an image without one is what a crash left,
// and is written over by the next try. So any number of processes may use a
// directory, as long as no two make the same volume at once.
package imagefile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keepset/test/cluster/csi/driver/internal/disk"
	"keepset/test/cluster/csi/driver/internal/volume"
)

// Parameters of a VolumeSnapshotClass, with which tests see what a slow or a
// broken provider does.
const (
	// ReadyAfter is how long a new snapshot cannot be restored from yet, as a
	// duration ("2s").
	ReadyAfter = "readyAfter"
	// Fail is the message with which no snapshot is made.
	Fail = "fail"
)

// Reserved starts the parameters that the CSI sidecars add.
const reserved = "csi.storage.k8s.io/"

// Store keeps volumes in a directory. It implements [volume.Backend].
type Store struct {
	dir   string
	zone  string
	clock func() time.Time
}

var _ volume.Backend = (*Store)(nil)

// New returns the store of a directory, which it makes. zone is where volumes
// go that may live anywhere.
func New(dir, zone string, clock func() time.Time) (*Store, error) {
	for _, d := range []string{"volumes", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("create directory of volumes: %w", err)
		}
	}
	return &Store{dir: dir, zone: zone, clock: clock}, nil
}

// snapshot is the record of a snapshot.
type snapshot struct {
	volume.Snapshot

	ReadyAt time.Time
}

// CreateVolume implements [volume.Backend]. Sizes are whole MiB.
func (s *Store) CreateVolume(_ context.Context, spec volume.Spec) (volume.Volume, error) {
	for parameter := range spec.Parameters {
		if !strings.HasPrefix(parameter, reserved) {
			return volume.Volume{}, fmt.Errorf("parameter %q of the StorageClass: %w: there is none", parameter, volume.ErrInvalid)
		}
	}
	size, err := s.sizeOf(spec)
	if err != nil {
		return volume.Volume{}, err
	}
	v := volume.Volume{ID: idOf("vol", spec.Name), Name: spec.Name, Size: size, Zone: s.zone, Snapshot: spec.Snapshot}
	if len(spec.Zones) > 0 {
		v.Zone = spec.Zones[0]
	}
	var there volume.Volume
	switch err := s.read("volumes", v.ID, &there); {
	case err == nil:
		return there, fits(there, spec)
	case !errors.Is(err, volume.ErrNotFound):
		return volume.Volume{}, err
	}
	if spec.Snapshot != "" {
		if err := disk.CopyImage(s.image("snapshots", spec.Snapshot), s.image("volumes", v.ID)); err != nil {
			return volume.Volume{}, fmt.Errorf("fill volume %s from snapshot %s: %w", v.Name, spec.Snapshot, err)
		}
	}
	if err := disk.CreateImage(s.image("volumes", v.ID), size); err != nil {
		return volume.Volume{}, err
	}
	return v, s.write("volumes", v.ID, v)
}

// sizeOf returns the bytes that a new volume gets.
func (s *Store) sizeOf(spec volume.Spec) (int64, error) {
	size := spec.Size
	if spec.Snapshot != "" {
		var from snapshot
		if err := s.read("snapshots", spec.Snapshot, &from); err != nil {
			return 0, err
		}
		if size == 0 {
			size = from.Size
		}
		if size < from.Size {
			return 0, fmt.Errorf("volume %s of %d bytes from a snapshot of %d: %w; ask for more", spec.Name, size, from.Size, volume.ErrSize)
		}
	}
	const unit = 1 << 20
	size = max(size, volume.GiB/16) // ext4 with a journal needs some
	size = (size + unit - 1) / unit * unit
	if spec.Limit > 0 && size > spec.Limit {
		return 0, fmt.Errorf("volume %s: %w: it would have %d bytes, and at most %d are asked for", spec.Name, volume.ErrSize, size, spec.Limit)
	}
	return size, nil
}

// fits tells whether a volume that exists is what is asked for now.
func fits(v volume.Volume, spec volume.Spec) error {
	if v.Size < spec.Size || (spec.Limit > 0 && v.Size > spec.Limit) || v.Snapshot != spec.Snapshot {
		return fmt.Errorf("volume %s of %d bytes from snapshot %q: %w", v.Name, v.Size, v.Snapshot, volume.ErrExists)
	}
	return nil
}

// DeleteVolume implements [volume.Backend].
func (s *Store) DeleteVolume(_ context.Context, id string) error {
	if !isID(id) {
		return nil
	}
	image := s.image("volumes", id)
	loops, err := disk.Loops(image)
	if err != nil {
		return err
	}
	if len(loops) > 0 {
		return fmt.Errorf("delete volume %s: %w: it is shown as %s", id, volume.ErrInUse, strings.Join(loops, ", "))
	}
	return errors.Join(disk.Remove(s.record("volumes", id)), disk.Remove(image))
}

// Volumes implements [volume.Backend].
func (s *Store) Volumes(context.Context) ([]volume.Volume, error) {
	return list[volume.Volume](s, "volumes")
}

// CreateSnapshot implements [volume.Backend]. A mounted volume is frozen while
// it is copied. A raw device cannot be: what is written to one meanwhile may be
// in the copy in part.
func (s *Store) CreateSnapshot(_ context.Context, spec volume.SnapshotSpec) (volume.Snapshot, error) {
	delay, err := s.delay(spec.Parameters)
	if err != nil {
		return volume.Snapshot{}, err
	}
	id := idOf("snap", spec.Name)
	var there snapshot
	switch err := s.read("snapshots", id, &there); {
	case err == nil && there.Volume != spec.Volume:
		return volume.Snapshot{}, fmt.Errorf("snapshot %s of volume %s: %w", spec.Name, there.Volume, volume.ErrExists)
	case err == nil:
		return s.state(there), nil
	case !errors.Is(err, volume.ErrNotFound):
		return volume.Snapshot{}, err
	}
	var of volume.Volume
	if err := s.read("volumes", spec.Volume, &of); err != nil {
		return volume.Snapshot{}, err
	}
	thaw, err := disk.Freeze(s.image("volumes", of.ID))
	if err != nil {
		return volume.Snapshot{}, fmt.Errorf("snapshot volume %s: %w", of.ID, err)
	}
	created := s.clock()
	if err := errors.Join(disk.CopyImage(s.image("volumes", of.ID), s.image("snapshots", id)), thaw()); err != nil {
		return volume.Snapshot{}, fmt.Errorf("snapshot volume %s: %w", of.ID, err)
	}
	made := snapshot{Snapshot: volume.Snapshot{ID: id, Name: spec.Name, Volume: of.ID, Size: of.Size, Created: created}, ReadyAt: created.Add(delay)}
	return s.state(made), s.write("snapshots", id, made)
}

// delay reads the parameters of a VolumeSnapshotClass.
func (s *Store) delay(parameters map[string]string) (delay time.Duration, err error) {
	for _, parameter := range slices.Sorted(maps.Keys(parameters)) {
		value := parameters[parameter]
		switch {
		case strings.HasPrefix(parameter, reserved):
		case parameter == Fail:
			return 0, errors.New(value)
		case parameter == ReadyAfter:
			if delay, err = time.ParseDuration(value); err != nil {
				return 0, fmt.Errorf("parameter %s of the VolumeSnapshotClass: %w: %w", parameter, volume.ErrInvalid, err)
			}
		default:
			return 0, fmt.Errorf("parameter %q of the VolumeSnapshotClass: %w: there is none", parameter, volume.ErrInvalid)
		}
	}
	return delay, nil
}

func (s *Store) state(made snapshot) volume.Snapshot {
	made.Ready = !s.clock().Before(made.ReadyAt)
	return made.Snapshot
}

// DeleteSnapshot implements [volume.Backend].
func (s *Store) DeleteSnapshot(_ context.Context, id string) error {
	if !isID(id) {
		return nil
	}
	return errors.Join(disk.Remove(s.record("snapshots", id)), disk.Remove(s.image("snapshots", id)))
}

// Snapshots implements [volume.Backend].
func (s *Store) Snapshots(context.Context) ([]volume.Snapshot, error) {
	made, err := list[snapshot](s, "snapshots")
	if err != nil {
		return nil, err
	}
	var all []volume.Snapshot
	for _, one := range made {
		all = append(all, s.state(one))
	}
	return all, nil
}

// Attach implements [volume.Backend]: every volume is here already.
func (s *Store) Attach(ctx context.Context, id string) (string, error) { return s.Image(ctx, id) }

// Image implements [volume.Backend].
func (s *Store) Image(_ context.Context, id string) (string, error) {
	var v volume.Volume
	if err := s.read("volumes", id, &v); err != nil {
		return "", err
	}
	return s.image("volumes", id), nil
}

// Detach implements [volume.Backend].
func (s *Store) Detach(context.Context, string) error { return nil }

// idOf derives an ID from a name, so that a second call finds what the first made.
func idOf(kind, name string) string {
	sum := sha256.Sum256([]byte(name))
	return kind + "-" + hex.EncodeToString(sum[:10])
}

// isID tells whether an ID that somebody gives us may be used in a path.
func isID(id string) bool {
	kind, sum, ok := strings.Cut(id, "-")
	_, err := hex.DecodeString(sum)
	return ok && err == nil && (kind == "vol" || kind == "snap")
}

func (s *Store) image(kind, id string) string  { return filepath.Join(s.dir, kind, id+".img") }
func (s *Store) record(kind, id string) string { return filepath.Join(s.dir, kind, id+".json") }

// read reads a record into into; [volume.ErrNotFound] if there is none.
func (s *Store) read(kind, id string, into any) error {
	if !isID(id) {
		return fmt.Errorf("%s/%s: %w", kind, id, volume.ErrNotFound)
	}
	data, err := os.ReadFile(s.record(kind, id))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s/%s: %w", kind, id, volume.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("read record: %w", err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read record %s/%s: %w", kind, id, err)
	}
	return nil
}

// write writes a record whole or not at all.
func (s *Store) write(kind, id string, what any) error {
	data, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	temp := s.record(kind, id) + ".tmp"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return os.Rename(temp, s.record(kind, id))
}

// list reads all records of a kind, in the order of their IDs.
func list[T any](s *Store, kind string) ([]T, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, kind))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	var all []T
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok {
			continue
		}
		var one T
		switch err := s.read(kind, id, &one); {
		case errors.Is(err, volume.ErrNotFound): // deleted meanwhile
		case err != nil:
			return nil, err
		default:
			all = append(all, one)
		}
	}
	return all, nil
}
