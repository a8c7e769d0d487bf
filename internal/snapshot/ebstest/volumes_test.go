package ebstest_test

import (
	"bytes"
	"os"
	"syscall"
	"testing"
	"time"

	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

func TestCreateVolumeIsCreatingUntilItsTimeHasPassed(t *testing.T) {
	c := newClock()
	s, w := start(t, ebstest.Options{Clock: c.now, VolumeTime: time.Minute})
	made := w.ec2("CreateVolume", "AvailabilityZone", "us-east-1b", "Size", "3", "VolumeType", "gp3", "Encrypted", "true",
		"TagSpecification.1.ResourceType", "volume", "TagSpecification.1.Tag.1.Key", "k", "TagSpecification.1.Tag.1.Value", "<&>")
	if made.Status != "creating" || made.VolumeID == "" {
		t.Fatalf("got %s", made.raw)
	}
	if v := w.ec2("DescribeVolumes", "VolumeId.1", made.VolumeID).Volumes[0]; v.Status != "creating" {
		t.Errorf("within the minute it is %s", v.Status)
	}
	w.refuses(400, "IncorrectState", "DeleteVolume", "VolumeId", made.VolumeID)
	w.refuses(400, "IncorrectState", "CreateSnapshot", "VolumeId", made.VolumeID)
	c.pass(time.Minute)
	v := w.ec2("DescribeVolumes", "VolumeId.1", made.VolumeID).Volumes[0]
	if v.Status != "available" || v.Zone != "us-east-1b" || v.Size != 3 || v.Type != "gp3" || v.IOPS != 3000 || v.Throughput != 125 ||
		!v.Encrypted || v.KMSKey == "" || values(v.Tags) != "k=<&>" {
		t.Errorf("got %+v", v)
	}
	image, err := s.Volume(made.VolumeID)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(image.Path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Size() != 3<<30 || stat.Blocks != 0 {
		t.Errorf("the image is %d bytes in %d sectors, want 3 GiB in none", info.Size(), stat.Blocks)
	}
	w.ec2("DeleteVolume", "VolumeId", made.VolumeID)
	w.refuses(400, "InvalidVolume.NotFound", "DeleteVolume", "VolumeId", made.VolumeID)
	if _, err := os.Stat(image.Path); !os.IsNotExist(err) {
		t.Errorf("the image is still there: %v", err)
	}
}

func TestCreateVolumeHoldsToTheDocumentedRanges(t *testing.T) {
	_, w := start(t, ebstest.Options{})
	for _, c := range []struct {
		code  string
		pairs []string
	}{
		{"", []string{"Size", "1"}},
		{"", []string{"Size", "4", "VolumeType", "io1", "Iops", "200"}},
		{"", []string{"Size", "100", "VolumeType", "gp3", "Iops", "8000", "Throughput", "2000"}},
		{"MissingParameter", nil},
		{"InvalidParameterValue", []string{"Size", "0"}},
		{"InvalidParameterValue", []string{"Size", "many"}},
		{"InvalidParameterValue", []string{"Size", "16385"}},
		{"InvalidParameterValue", []string{"Size", "3", "VolumeType", "io2", "Iops", "100"}},
		{"InvalidParameterValue", []string{"Size", "124", "VolumeType", "st1"}},
		{"UnknownVolumeType", []string{"Size", "1", "VolumeType", "gp9"}},
		{"InvalidParameterCombination", []string{"Size", "1", "Iops", "3000"}},
		{"InvalidParameterCombination", []string{"Size", "1", "Throughput", "125"}},
		{"MissingParameter", []string{"Size", "4", "VolumeType", "io1"}},
		{"InvalidParameterValue", []string{"Size", "4", "VolumeType", "io1", "Iops", "201"}},
		{"InvalidParameterValue", []string{"Size", "1", "VolumeType", "gp3", "Iops", "2999"}},
		{"InvalidParameterValue", []string{"Size", "1000", "VolumeType", "gp3", "Iops", "80001"}},
		{"InvalidParameterValue", []string{"Size", "1", "VolumeType", "gp3", "Iops", "3001"}},
		{"InvalidParameterValue", []string{"Size", "1", "VolumeType", "gp3", "Throughput", "124"}},
		{"InvalidParameterValue", []string{"Size", "1", "VolumeType", "gp3", "Throughput", "751"}},
		{"InvalidParameterDependency", []string{"Size", "1", "KmsKeyId", "alias/k"}},
		{"InvalidParameterCombination", []string{"Size", "1", "VolumeInitializationRate", "200"}},
		{"InvalidParameterValue", []string{"Size", "1", "Encrypted", "perhaps"}},
		{"InvalidParameterValue", []string{"Size", "1", "TagSpecification.1.ResourceType", "snapshot"}},
		{"InvalidParameterValue", []string{
			"Size", "1", "TagSpecification.1.ResourceType", "volume",
			"TagSpecification.1.Tag.1.Key", "aws:k", "TagSpecification.1.Tag.1.Value", "v",
		}},
	} {
		pairs := append([]string{"AvailabilityZone", "us-east-1a"}, c.pairs...)
		if c.code == "" {
			w.ec2("CreateVolume", pairs...)
		} else {
			w.refuses(400, c.code, "CreateVolume", pairs...)
		}
	}
	w.refuses(400, "InvalidZone.NotFound", "CreateVolume", "AvailabilityZone", "us-east-1d", "Size", "1")
	w.refuses(400, "MissingParameter", "CreateVolume", "Size", "1")
	w.refuses(400, "InvalidParameterCombination", "CreateVolume", "AvailabilityZone", "us-east-1a", "AvailabilityZoneId", "us-east-1-az1", "Size", "1")
	w.refuses(400, "InvalidZone.NotFound", "CreateVolume", "AvailabilityZoneId", "us-east-1-az9", "Size", "1")
	id := w.ec2("CreateVolume", "AvailabilityZoneId", "us-east-1-az2", "Size", "1").VolumeID
	if v := w.ec2("DescribeVolumes", "VolumeId.1", id).Volumes[0]; v.Zone != "us-east-1b" {
		t.Errorf("az2 is zone %s", v.Zone)
	}
}

func TestCreateVolumeFromASnapshot(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	secret := bytes.Repeat([]byte("row "), 1000)
	write(t, data.Path, 700<<20, secret)
	snap := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	write(t, data.Path, 700<<20, bytes.Repeat([]byte{0}, len(secret)))

	w.refuses(400, "InvalidSnapshot.NotFound", "CreateVolume", "AvailabilityZone", "us-east-1c", "SnapshotId", "snap-0")
	w.refuses(400, "InvalidParameterValue", "CreateVolume", "AvailabilityZone", "us-east-1c", "SnapshotId", snap, "VolumeInitializationRate", "99")
	id := w.ec2("CreateVolume", "AvailabilityZone", "us-east-1c", "SnapshotId", snap, "Size", "5", "VolumeInitializationRate", "300",
		"Encrypted", "true", "KmsKeyId", "alias/k").VolumeID
	v := w.ec2("DescribeVolumes", "VolumeId.1", id).Volumes[0]
	if v.Size != 5 || v.SnapshotID != snap || v.Rate != 300 || !v.Encrypted || v.KMSKey != "alias/k" {
		t.Errorf("got %+v", v)
	}
	image, err := s.Volume(id)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, image.Path, 700<<20, len(secret)), secret) {
		t.Error("the volume does not hold what the snapshot was cut of")
	}
	if info, err := os.Stat(image.Path); err != nil || info.Size() != 5<<30 {
		t.Errorf("the image is %v, %v; want 5 GiB", info, err)
	}

	bigger := w.ec2("CreateSnapshot", "VolumeId", id).SnapshotID
	w.refuses(400, "InvalidParameterValue", "CreateVolume", "AvailabilityZone", "us-east-1c", "SnapshotId", bigger, "Size", "4")
	same := w.ec2("CreateVolume", "AvailabilityZone", "us-east-1c", "SnapshotId", bigger)
	if same.Size != 5 || !same.Encrypted || same.KMSKey != "alias/k" {
		t.Errorf("without parameters it is %s", same.raw)
	}
}

func TestCreateVolumeRefusesASnapshotThatIsPending(t *testing.T) {
	c := newClock()
	s, w := start(t, ebstest.Options{Clock: c.now, SnapshotTime: time.Minute})
	_, data, _ := machine(t, s)
	snap := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	w.refuses(400, "IncorrectState", "CreateVolume", "AvailabilityZone", "us-east-1a", "SnapshotId", snap)
	c.pass(time.Minute)
	w.ec2("CreateVolume", "AvailabilityZone", "us-east-1a", "SnapshotId", snap)
}

func TestClientTokenOfCreateVolume(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	pairs := []string{"AvailabilityZone", "us-east-1a", "Size", "1", "ClientToken", "once"}
	first := w.ec2("CreateVolume", pairs...).VolumeID
	if again := w.ec2("CreateVolume", pairs...).VolumeID; again != first {
		t.Errorf("the same request made %s and then %s", first, again)
	}
	w.refuses(400, "IdempotentParameterMismatch", "CreateVolume", "AvailabilityZone", "us-east-1a", "Size", "2", "ClientToken", "once")
	other := w
	other.key = "AKIAOTHER"
	if again := other.ec2("CreateVolume", pairs...).VolumeID; again != first {
		t.Errorf("a token is the account's, but another key of it made %s", again)
	}
	w.ec2("DeleteVolume", "VolumeId", first)
	w.refuses(400, "IdempotentParameterMismatch", "CreateVolume", pairs...)
	if all := s.Volumes(); len(all) != 0 {
		t.Errorf("left over: %+v", all)
	}
}

// As kubernetes-sigs/aws-ebs-csi-driver #3010 tells it.
func TestVolumeWithoutRightsOnItsKeyVanishes(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	if err := s.DenyKey("alias/theirs", true); err != nil {
		t.Fatal(err)
	}
	pairs := []string{"AvailabilityZone", "us-east-1a", "Size", "1", "Encrypted", "true", "KmsKeyId", "alias/theirs", "ClientToken", "t"}
	made := w.ec2("CreateVolume", pairs...)
	if made.Status != "creating" || made.VolumeID == "" {
		t.Fatalf("got %s", made.raw)
	}
	w.refuses(400, "InvalidVolume.NotFound", "DescribeVolumes", "VolumeId.1", made.VolumeID)
	w.refuses(400, "IdempotentParameterMismatch", "CreateVolume", pairs...)
	if err := s.DenyKey("alias/theirs", false); err != nil {
		t.Fatal(err)
	}
	w.refuses(400, "IdempotentParameterMismatch", "CreateVolume", pairs...)
	pairs[len(pairs)-1] = "another"
	id := w.ec2("CreateVolume", pairs...).VolumeID
	w.ec2("DescribeVolumes", "VolumeId.1", id)
}

func TestAttachingAndDetaching(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	i, data, _ := machine(t, s)
	w.refuses(400, "VolumeInUse", "DeleteVolume", "VolumeId", data.ID)
	w.refuses(400, "VolumeInUse", "AttachVolume", "VolumeId", data.ID, "InstanceId", i.ID, "Device", "/dev/xvdz")
	a := w.ec2("DescribeVolumes", "Filter.1.Name", "attachment.instance-id", "Filter.1.Value.1", i.ID, "Filter.2.Name", "volume-id", "Filter.2.Value.1", data.ID)
	if len(a.Volumes) != 1 || a.Volumes[0].Status != "in-use" || len(a.Volumes[0].Attachments) != 1 {
		t.Fatalf("got %s", a.raw)
	}
	if at := a.Volumes[0].Attachments[0]; at.Instance != i.ID || at.Device != "/dev/xvdaa" || at.Status != "attached" {
		t.Errorf("got %+v", at)
	}
	w.refuses(400, "InvalidAttachment.NotFound", "DetachVolume", "VolumeId", data.ID, "InstanceId", "i-0")
	w.ec2("DetachVolume", "VolumeId", data.ID, "InstanceId", i.ID)
	w.refuses(400, "IncorrectState", "DetachVolume", "VolumeId", data.ID)
	w.refuses(400, "InvalidInstanceID.NotFound", "AttachVolume", "VolumeId", data.ID, "InstanceId", "i-0", "Device", "/dev/xvdz")
	w.refuses(400, "InvalidParameterValue", "AttachVolume", "VolumeId", data.ID, "InstanceId", i.ID, "Device", "/dev/xvda")
	elsewhere := w.ec2("CreateVolume", "AvailabilityZone", "us-east-1b", "Size", "1").VolumeID
	w.refuses(400, "InvalidVolume.ZoneMismatch", "AttachVolume", "VolumeId", elsewhere, "InstanceId", i.ID, "Device", "/dev/xvdz")
	w.ec2("AttachVolume", "VolumeId", data.ID, "InstanceId", i.ID, "Device", "/dev/xvdz")
}

func TestInstancesAndZones(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	i, data, log := machine(t, s)
	if _, err := s.PutInstance(control.Instance{ID: "i-00000000000000002", Zone: "us-east-1b"}); err != nil {
		t.Fatal(err)
	}
	a := w.ec2("DescribeInstances", "InstanceId.1", i.ID)
	if len(a.Instances) != 1 || len(a.Instances[0].Devices) != 3 || a.Instances[0].Devices[0].VolumeID != i.Root ||
		a.Instances[0].Devices[1].VolumeID != data.ID || a.Instances[0].Devices[2].VolumeID != log.ID {
		t.Errorf("got %s", a.raw)
	}
	w.refuses(400, "InvalidInstanceID.NotFound", "DescribeInstances", "InstanceId.1", "i-0")
	if all := w.ec2("DescribeInstanceStatus"); len(all.Statuses) != 2 {
		t.Errorf("got %s", all.raw)
	}
	if z := w.ec2("DescribeAvailabilityZones"); len(z.Zones) != 3 || z.Zones[2].Name != "us-east-1c" {
		t.Errorf("got %s", z.raw)
	}
	w.refuses(400, "InvalidParameterValue", "DescribeAvailabilityZones", "ZoneName.1", "us-east-1z")
}
