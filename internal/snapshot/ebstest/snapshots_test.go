package ebstest_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

func TestCreateSnapshotsOfAnInstance(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	i, data, log := machine(t, s)
	made := w.ec2("CreateSnapshots", "InstanceSpecification.InstanceId", i.ID, "InstanceSpecification.ExcludeBootVolume", "true",
		"CopyTagsFromSource", "volume", "TagSpecification.1.ResourceType", "snapshot",
		"TagSpecification.1.Tag.1.Key", "claim", "TagSpecification.1.Tag.1.Value", "data-mysql-0")
	if len(made.Snapshots) != 2 || made.Snapshots[0].VolumeID != data.ID || made.Snapshots[1].VolumeID != log.ID {
		t.Fatalf("want the two volumes by device, got %+v", made.Snapshots)
	}
	for _, n := range made.Snapshots {
		if n.State != "pending" || values(n.Tags) != "claim=data-mysql-0 own=yes" || n.StartTime != made.Snapshots[0].StartTime {
			t.Errorf("got %+v", n)
		}
	}
	seen := w.ec2("DescribeSnapshots", "Owner.1", "self", "Filter.1.Name", "tag:claim", "Filter.1.Value.1", "data-mysql-0")
	if len(seen.Snapshots) != 2 || seen.Snapshots[0].Status != "completed" || seen.Snapshots[0].Progress != "100%" {
		t.Fatalf("got %s", seen.raw)
	}
	boot := w.ec2("CreateSnapshots", "InstanceSpecification.InstanceId", i.ID, "InstanceSpecification.ExcludeDataVolumeId.1", log.ID)
	if len(boot.Snapshots) != 2 || boot.Snapshots[0].VolumeID != i.Root || boot.Snapshots[1].VolumeID != data.ID || len(boot.Snapshots[1].Tags) != 0 {
		t.Errorf("without the second volume: %+v", boot.Snapshots)
	}
}

func TestCreateSnapshotsRefuses(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	i, data, log := machine(t, s)
	of := func(more ...string) []string {
		return append([]string{"InstanceSpecification.InstanceId", i.ID}, more...)
	}
	w.refuses(400, "MissingParameter", "CreateSnapshots")
	w.refuses(400, "InvalidInstanceID.NotFound", "CreateSnapshots", "InstanceSpecification.InstanceId", "i-0")
	w.refuses(400, "InvalidParameterValue", "CreateSnapshots", of("InstanceSpecification.ExcludeDataVolumeId.1", i.Root)...)
	w.refuses(400, "InvalidParameterValue", "CreateSnapshots", of("InstanceSpecification.ExcludeDataVolumeId.1", "vol-0")...)
	w.refuses(400, "InvalidParameterValue", "CreateSnapshots", of("InstanceSpecification.ExcludeBootVolume", "true",
		"InstanceSpecification.ExcludeDataVolumeId.1", data.ID, "InstanceSpecification.ExcludeDataVolumeId.2", log.ID)...)
	w.refuses(400, "InvalidParameterValue", "CreateSnapshots", of("CopyTagsFromSource", "instance")...)
	var many []string
	for n := range 41 {
		v, err := s.CreateVolume(control.Volume{Zone: "us-east-1a", SizeGiB: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Attach(v.ID, i.ID, ""); err != nil {
			t.Fatal(err)
		}
		many = append(many, fmt.Sprintf("InstanceSpecification.ExcludeDataVolumeId.%d", n+1), v.ID)
	}
	w.refuses(400, "InvalidParameterValue", "CreateSnapshots", of(many...)...)
	if made := w.ec2("CreateSnapshots", of(many[:80]...)...); len(made.Snapshots) != 4 {
		t.Errorf("with 40 left out: %d snapshots, want 4", len(made.Snapshots))
	}
}

func TestSnapshotMakesProgress(t *testing.T) {
	c := newClock()
	s, w := start(t, ebstest.Options{Clock: c.now, SnapshotTime: 100 * time.Second})
	_, data, _ := machine(t, s)
	made := w.ec2("CreateSnapshot", "VolumeId", data.ID, "Description", "by test")
	if made.Status != "pending" {
		t.Fatalf("got %s", made.raw)
	}
	look := func() resource {
		return w.ec2("DescribeSnapshots", "SnapshotId.1", made.SnapshotID).Snapshots[0]
	}
	c.pass(40 * time.Second)
	if n := look(); n.Status != "pending" || n.Progress != "40%" || n.VolumeSize != 1 || n.Owner != ebstest.DefaultAccount {
		t.Errorf("after 40 s: %+v", n)
	}
	c.pass(60 * time.Second)
	if n := look(); n.Status != "completed" || n.Progress != "100%" {
		t.Errorf("after 100 s: %+v", n)
	}
}

func TestSnapshotOnCommand(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, log := machine(t, s)
	s.Inject(ebstest.Rule{Action: "CreateSnapshot", Outcome: control.Held, Times: 2})
	held, failing := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID, w.ec2("CreateSnapshot", "VolumeId", log.ID).SnapshotID
	status := func(id string) resource { return w.ec2("DescribeSnapshots", "SnapshotId.1", id).Snapshots[0] }
	set := func(id string, c control.Change) {
		t.Helper()
		if err := s.Set(id, c); err != nil {
			t.Fatal(err)
		}
	}
	set(held, control.Change{Outcome: control.Held, Progress: 73})
	if n := status(held); n.Status != "pending" || n.Progress != "73%" {
		t.Errorf("held: %+v", n)
	}
	set(held, control.Change{})
	if n := status(held); n.Status != "completed" {
		t.Errorf("let go: %+v", n)
	}
	set(failing, control.Change{Outcome: control.Failing, Message: "it broke"})
	if n := status(failing); n.Status != "error" || n.Message != "it broke" {
		t.Errorf("failed: %+v", n)
	}
	if only := w.ec2("DescribeSnapshots", "Filter.1.Name", "status", "Filter.1.Value.1", "error"); len(only.Snapshots) != 1 {
		t.Errorf("by status: %s", only.raw)
	}
}

func TestSnapshotsOfOneVolumeAreLimited(t *testing.T) {
	c := newClock()
	s, w := start(t, ebstest.Options{Clock: c.now, SnapshotTime: time.Hour})
	_, data, log := machine(t, s)
	var pending []string
	for range 5 {
		pending = append(pending, w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID)
		w.refuses(400, "SnapshotCreationPerVolumeRateExceeded", "CreateSnapshot", "VolumeId", data.ID)
		c.pass(15 * time.Second)
	}
	w.refuses(400, "ConcurrentSnapshotLimitExceeded", "CreateSnapshot", "VolumeId", data.ID)
	w.ec2("CreateSnapshot", "VolumeId", log.ID)
	w.ec2("DeleteSnapshot", "SnapshotId", pending[0])
	w.refuses(400, "InvalidSnapshot.NotFound", "DescribeSnapshots", "SnapshotId.1", pending[0])
	w.refuses(400, "ConcurrentSnapshotLimitExceeded", "CreateSnapshot", "VolumeId", data.ID)
	c.pass(time.Hour)
	w.ec2("CreateSnapshot", "VolumeId", data.ID)
}

func TestDeleteSnapshot(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	id := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	if err := s.Set(id, control.Change{Image: true}); err != nil {
		t.Fatal(err)
	}
	w.refuses(400, "InvalidSnapshot.InUse", "DeleteSnapshot", "SnapshotId", id)
	if err := s.Set(id, control.Change{}); err != nil {
		t.Fatal(err)
	}
	path := s.Snapshots()[0].Path
	w.ec2("DeleteSnapshot", "SnapshotId", id)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the image is still there: %v", err)
	}
	w.refuses(400, "InvalidSnapshot.NotFound", "DeleteSnapshot", "SnapshotId", id)
	w.refuses(400, "InvalidSnapshotID.Malformed", "DeleteSnapshot", "SnapshotId", "snap-xyz")
	w.refuses(400, "InvalidParameterValue", "DeleteSnapshot", "SnapshotId", data.ID)
	w.refuses(400, "MissingParameter", "DeleteSnapshot")
}

func TestCopySnapshot(t *testing.T) {
	regions := map[string][]string{"us-east-1": {"us-east-1a"}, "eu-west-1": {"eu-west-1a"}}
	s, w := start(t, ebstest.Options{Regions: regions, Region: "us-east-1"})
	_, data, _ := machine(t, s)
	write(t, data.Path, 1<<20, []byte("payload"))
	id := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	there := w
	there.region = "eu-west-1"
	there.refuses(400, "InvalidSnapshot.NotFound", "DescribeSnapshots", "SnapshotId.1", "snap-0")
	there.refuses(400, "InvalidSnapshot.NotFound", "CopySnapshot", "SourceRegion", "eu-west-1", "SourceSnapshotId", id)
	there.refuses(400, "InvalidParameterValue", "CopySnapshot", "SourceRegion", "mars-1", "SourceSnapshotId", id)
	there.refuses(400, "InvalidParameterValue", "CopySnapshot", "SourceRegion", "us-east-1", "SourceSnapshotId", id, "Encrypted", "false")
	there.refuses(400, "InvalidParameterDependency", "CopySnapshot", "SourceRegion", "us-east-1", "SourceSnapshotId", id, "KmsKeyId", "k")
	made := there.ec2("CopySnapshot", "SourceRegion", "us-east-1", "SourceSnapshotId", id, "Encrypted", "true", "KmsKeyId", "alias/eu",
		"TagSpecification.1.ResourceType", "snapshot", "TagSpecification.1.Tag.1.Key", "k", "TagSpecification.1.Tag.1.Value", "v")
	n := there.ec2("DescribeSnapshots", "SnapshotId.1", made.SnapshotID).Snapshots[0]
	if n.Status != "completed" || !n.Encrypted || n.KMSKey != "alias/eu" || values(n.Tags) != "k=v" || values(made.Tags) != "k=v" {
		t.Errorf("got %+v and %s", n, made.raw)
	}
	for _, all := range s.Snapshots() {
		if got := string(read(t, all.Path, 1<<20, 7)); got != "payload" {
			t.Errorf("snapshot in %s holds %q", all.Region, got)
		}
	}

	if err := s.DenyKey("alias/eu", true); err != nil {
		t.Fatal(err)
	}
	denied := there.ec2("CopySnapshot", "SourceRegion", "us-east-1", "SourceSnapshotId", id, "Encrypted", "true", "KmsKeyId", "alias/eu")
	if n := there.ec2("DescribeSnapshots", "SnapshotId.1", denied.SnapshotID).Snapshots[0]; n.Status != "error" || n.Message == "" {
		t.Errorf("without rights on the key: %+v", n)
	}
}
