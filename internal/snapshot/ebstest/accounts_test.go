package ebstest_test

import (
	"strings"
	"testing"

	"keepset/internal/snapshot/ebstest"
)

func TestAccountsAndRegionsAreApart(t *testing.T) {
	regions := map[string][]string{"us-east-1": {"us-east-1a"}, "eu-west-1": {"eu-west-1a"}}
	s, old := start(t, ebstest.Options{Regions: regions, Region: "us-east-1", Accounts: map[string]string{"AKIANEW": "999988887777"}})
	fresh, abroad := old, old
	fresh.key, abroad.region = "AKIANEW", "eu-west-1"
	_, data, _ := machine(t, s)
	snap := old.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID

	if all := fresh.ec2("DescribeSnapshots"); len(all.Snapshots) != 0 {
		t.Errorf("the new account sees %s", all.raw)
	}
	if named := fresh.ec2("DescribeSnapshots", "SnapshotId.1", snap); len(named.Snapshots) != 0 {
		t.Errorf("the new account sees %s", named.raw)
	}
	if theirs := fresh.ec2("DescribeSnapshots", "Owner.1", ebstest.DefaultAccount); len(theirs.Snapshots) != 0 {
		t.Errorf("the new account sees %s", theirs.raw)
	}
	fresh.refuses(400, "InvalidSnapshot.NotFound", "CreateVolume", "AvailabilityZone", "us-east-1a", "SnapshotId", snap)
	fresh.refuses(400, "InvalidVolume.NotFound", "DescribeVolumes", "VolumeId.1", data.ID)
	fresh.refuses(400, "InvalidSnapshot.NotFound", "DeleteSnapshot", "SnapshotId", snap)
	fresh.refuses(400, "InvalidSnapshot.NotFound", "CreateTags", "ResourceId.1", snap, "Tag.1.Key", "k", "Tag.1.Value", "v")
	if r := fresh.direct("GET", "/snapshots/"+snap+"/blocks", nil, nil); r.status != 404 || r.code() != "ResourceNotFoundException" {
		t.Errorf("the new account reads blocks: %d %s", r.status, r.body)
	}
	abroad.refuses(400, "InvalidSnapshot.NotFound", "DescribeSnapshots", "SnapshotId.1", snap)
	abroad.refuses(400, "InvalidZone.NotFound", "CreateVolume", "AvailabilityZone", "us-east-1a", "Size", "1")
	id := fresh.ec2("CreateVolume", "AvailabilityZone", "us-east-1a", "Size", "1").VolumeID
	own := fresh.ec2("CreateSnapshot", "VolumeId", id)
	if n := fresh.ec2("DescribeSnapshots", "Owner.1", "self").Snapshots; len(n) != 1 || n[0].SnapshotID != own.SnapshotID || n[0].Owner != "999988887777" {
		t.Errorf("got %+v", n)
	}
}

func TestWhoIsNotKnownIsRefused(t *testing.T) {
	_, w := start(t, ebstest.Options{Strict: true, Accounts: map[string]string{"AKIATEST": "1"}})
	w.ec2("DescribeVolumes")
	stranger := w
	stranger.key = "AKIANOBODY"
	stranger.refuses(401, "AuthFailure", "DescribeVolumes")
	abroad := w
	abroad.region = "mars-1"
	abroad.refuses(401, "AuthFailure", "DescribeVolumes")
	if got, err := w.send("POST", "/?Action=DescribeVolumes", "ebs", nil, nil); err != nil || got.status != 401 {
		t.Errorf("signed for another service: %d %v", got.status, err)
	}
}

func TestRights(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	s.Allow("AKIATEST", "ec2:Describe*", "ec2:CreateVolume", "ebs:ListSnapshotBlocks")
	w.ec2("DescribeVolumes")
	w.ec2("CreateVolume", "AvailabilityZone", "us-east-1a", "Size", "1")
	a := w.refuses(403, "UnauthorizedOperation", "DeleteSnapshot", "SnapshotId", "snap-0")
	if !strings.Contains(a.Message, "ec2:DeleteSnapshot") {
		t.Errorf("the message does not name the right: %s", a.Message)
	}
	w.refuses(403, "UnauthorizedOperation", "DeleteSnapshot", "SnapshotId", "snap-0", "DryRun", "true")
	w.refuses(412, "DryRunOperation", "CreateVolume", "DryRun", "true")
	// Tags on creation need a right of their own.
	a = w.refuses(403, "UnauthorizedOperation", "CreateVolume", "AvailabilityZone", "us-east-1a", "Size", "1",
		"TagSpecification.1.ResourceType", "volume", "TagSpecification.1.Tag.1.Key", "k", "TagSpecification.1.Tag.1.Value", "v")
	if !strings.Contains(a.Message, "ec2:CreateTags") {
		t.Errorf("the message does not name the right: %s", a.Message)
	}
	if r := w.direct("GET", "/snapshots/snap-0/blocks", nil, nil); r.code() != "ResourceNotFoundException" {
		t.Errorf("got %s", r.body)
	}
	if r := w.direct("GET", "/snapshots/snap-0/changedblocks?firstSnapshotId=snap-1", nil, nil); r.status != 403 || r.code() != "AccessDeniedException" {
		t.Errorf("got %d %s", r.status, r.body)
	}
	other := w
	other.key = "AKIAOTHER"
	other.refuses(400, "InvalidSnapshot.NotFound", "DeleteSnapshot", "SnapshotId", "snap-0")
}
