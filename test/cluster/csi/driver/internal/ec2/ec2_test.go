package ec2

import (
	"errors"
	"maps"
	"os"
	"testing"

	"go.uber.org/goleak"

	"keepset/test/cluster/csi/driver/internal/ec2/ec2test"
	"keepset/test/cluster/csi/driver/internal/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *Provider {
	t.Helper()
	return at(t, ec2test.Start(t, t.TempDir()), "i-0123456789abcdef0", "us-east-1a")
}

func at(t *testing.T, url, instance, zone string) *Provider {
	t.Helper()
	p, err := New(t.Context(), Config{URL: url, Region: "us-east-1", Zone: zone, Instance: instance, RootGiB: 8})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A volume is what the StorageClass asks for, with the tags of the real driver.
func TestVolumeIsAsAskedFor(t *testing.T) {
	p := start(t)
	spec := volume.Spec{
		Name: "pvc-1", Size: 9*volume.GiB + 1, Zones: []string{"us-east-1b"},
		Parameters: map[string]string{
			"type": "gp3", "iops": "4000", "throughput": "250", "encrypted": "true", "kmsKeyId": "alias/mine", "tagSpecification_1": "team=db",
			"csi.storage.k8s.io/pvc/name": "data-mysql-0", "csi.storage.k8s.io/pvc/namespace": "mysql", "csi.storage.k8s.io/pv/name": "pvc-1",
		},
	}
	v, err := p.CreateVolume(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if v.Size != 10*volume.GiB || v.Zone != "us-east-1b" || v.Name != "pvc-1" {
		t.Errorf("got %+v", v)
	}
	d, err := p.get(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]string{
		"CSIVolumeName": "pvc-1", "ebs.csi.aws.com/cluster": "true", "team": "db", "kubernetes.io/created-for/pvc/name": "data-mysql-0",
		"kubernetes.io/created-for/pvc/namespace": "mysql", "kubernetes.io/created-for/pv/name": "pvc-1",
	}
	if d.Type != "gp3" || d.IOPS != 4000 || d.Throughput != 250 || !d.Encrypted || d.KMSKey == "" || !maps.Equal(d.Tags, tags) {
		t.Errorf("the fake has %+v", d)
	}
	if again, err := p.CreateVolume(t.Context(), spec); err != nil || again != v {
		t.Errorf("the second time: %+v (%v)", again, err)
	}
	spec.Size = 11 * volume.GiB
	if _, err := p.CreateVolume(t.Context(), spec); !errors.Is(err, volume.ErrExists) {
		t.Errorf("a larger one of that name: %v", err)
	}
	for name, parameters := range map[string]map[string]string{
		"unknown": {"colour": "red"}, "not a number": {"iops": "many"}, "type": {"type": "gp9"},
	} {
		if _, err := p.CreateVolume(t.Context(), volume.Spec{Name: name, Parameters: parameters}); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A volume belongs to one instance of its zone until it is detached, and only
// then it can be deleted.
func TestAttachment(t *testing.T) {
	url := ec2test.Start(t, t.TempDir())
	here, there := at(t, url, "i-0000000000000000a", "us-east-1a"), at(t, url, "i-0000000000000000b", "us-east-1a")
	far := at(t, url, "i-0000000000000000c", "us-east-1b")
	v, err := here.CreateVolume(t.Context(), volume.Spec{Name: "v"})
	if err != nil {
		t.Fatal(err)
	}
	image, err := here.Attach(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(image); err != nil || info.Size() != volume.GiB {
		t.Errorf("its image is %v (%v)", info, err)
	}
	if again, err := here.Attach(t.Context(), v.ID); err != nil || again != image {
		t.Errorf("attached again: %s (%v)", again, err)
	}
	for name, p := range map[string]*Provider{"another instance": there, "another zone": far} {
		if _, err := p.Attach(t.Context(), v.ID); !errors.Is(err, volume.ErrInUse) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := p.Image(t.Context(), v.ID); !errors.Is(err, volume.ErrNotFound) {
			t.Errorf("%s knows its image: %v", name, err)
		}
		if err := p.Detach(t.Context(), v.ID); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if path, err := far.Path(t.Context(), v.ID); err != nil || path != image {
		t.Errorf("another instance finds the image %s (%v)", path, err)
	}
	if _, err := far.Path(t.Context(), "vol-00000000000000000"); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("the image of no volume: %v", err)
	}
	if err := here.DeleteVolume(t.Context(), v.ID); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("delete while it is attached: %v", err)
	}
	if found, err := at(t, url, "i-0000000000000000a", "us-east-1a").Image(t.Context(), v.ID); err != nil || found != image {
		t.Errorf("a driver that was started again finds %s (%v)", found, err)
	}
	for range 2 {
		if err := here.Detach(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := far.Attach(t.Context(), v.ID); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("attached across zones: %v", err)
	}
	for range 2 {
		if err := here.DeleteVolume(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSnapshot(t *testing.T) {
	p := start(t)
	v, err := p.CreateVolume(t.Context(), volume.Spec{Name: "v"})
	if err != nil {
		t.Fatal(err)
	}
	image, err := p.Attach(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := volume.SnapshotSpec{Name: "snapshot-1", Volume: v.ID, Parameters: map[string]string{"csi.storage.k8s.io/volumesnapshot/name": "s"}}
	made, err := p.CreateSnapshot(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if made.Ready || made.Created.IsZero() || made.Size != volume.GiB || made.Volume != v.ID {
		t.Errorf("got %+v", made)
	}
	again, err := p.CreateSnapshot(t.Context(), spec)
	if err != nil || again.ID != made.ID || !again.Ready {
		t.Errorf("the second time: %+v (%v)", again, err)
	}
	if _, err := p.CreateSnapshot(t.Context(), volume.SnapshotSpec{Name: "snapshot-1", Volume: "vol-0"}); !errors.Is(err, volume.ErrExists) {
		t.Errorf("of another volume: %v", err)
	}
	if _, err := p.CreateSnapshot(t.Context(), volume.SnapshotSpec{Name: "snapshot-2", Volume: "vol-00000000000000000"}); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("of no volume: %v", err)
	}
	restored, err := p.CreateVolume(t.Context(), volume.Spec{Name: "r", Size: 2 * volume.GiB, Snapshot: made.ID, Zones: []string{"us-east-1a"}})
	if err != nil {
		t.Fatal(err)
	}
	file, err := p.Attach(t.Context(), restored.ID)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got := make([]byte, 7)
	if _, err := f.Read(got); err != nil || string(got) != "content" {
		t.Errorf("it holds %q (%v)", got, err)
	}
	for range 2 {
		if err := p.DeleteSnapshot(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
	}
}
