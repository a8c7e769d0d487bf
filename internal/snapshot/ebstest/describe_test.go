package ebstest_test

import (
	"slices"
	"strings"
	"testing"

	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

// made are n volumes, by ID.
func volumes(t *testing.T, s *ebstest.Server, n int) []string {
	t.Helper()
	var ids []string
	for range n {
		v, err := s.CreateVolume(control.Volume{Zone: "us-east-1a", SizeGiB: 1, Tags: map[string]string{"set": "shop/mysql"}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, v.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestPagesHoldEveryVolumeOnce(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	want := volumes(t, s, 12)
	var got []string
	var sizes []int
	for token := ""; ; {
		pairs := []string{"MaxResults", "5"}
		if token != "" {
			pairs = append(pairs, "NextToken", token)
		}
		a := w.ec2("DescribeVolumes", pairs...)
		for _, v := range a.Volumes {
			got = append(got, v.VolumeID)
		}
		sizes = append(sizes, len(a.Volumes))
		if token = a.NextToken; token == "" {
			break
		}
		// What was seen may be deleted meanwhile, and nothing is skipped for it.
		w.ec2("DeleteVolume", "VolumeId", a.Volumes[0].VolumeID)
	}
	if !slices.Equal(got, want) || !slices.Equal(sizes, []int{5, 5, 2}) {
		t.Errorf("pages of %v hold %v, want %v", sizes, got, want)
	}
	if all := w.ec2("DescribeVolumes"); len(all.Volumes) != 10 || all.NextToken != "" {
		t.Errorf("without MaxResults: %d volumes, next %q", len(all.Volumes), all.NextToken)
	}
}

func TestPagesRefuse(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	ids := volumes(t, s, 6)
	token := w.ec2("DescribeVolumes", "MaxResults", "5").NextToken
	w.refuses(400, "InvalidParameterValue", "DescribeVolumes", "MaxResults", "4")
	w.refuses(400, "InvalidParameterCombination", "DescribeVolumes", "MaxResults", "5", "VolumeId.1", ids[0])
	w.refuses(400, "InvalidNextToken", "DescribeVolumes", "NextToken", "?")
	w.refuses(400, "InvalidNextToken", "DescribeSnapshots", "NextToken", token)
	if all := w.ec2("DescribeVolumes", "MaxResults", "5000"); len(all.Volumes) != 6 {
		t.Errorf("MaxResults above 1000 counts as 1000: %d", len(all.Volumes))
	}
}

func TestPageLimitShortensPages(t *testing.T) {
	s, w := start(t, ebstest.Options{PageLimit: 2})
	volumes(t, s, 3)
	a := w.ec2("DescribeVolumes", "MaxResults", "1000")
	if len(a.Volumes) != 2 || a.NextToken == "" {
		t.Fatalf("got %s", a.raw)
	}
	if b := w.ec2("DescribeVolumes", "MaxResults", "1000", "NextToken", a.NextToken); len(b.Volumes) != 1 || b.NextToken != "" {
		t.Errorf("got %s", b.raw)
	}
}

func TestFilters(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	ids := volumes(t, s, 2)
	w.ec2("CreateTags", "ResourceId.1", ids[0], "Tag.1.Key", "claim", "Tag.1.Value", "data-mysql-0")
	for _, c := range []struct {
		want    int
		filters []string // names and values separated by commas
	}{
		{2, []string{"tag:set", "shop/mysql"}},
		{0, []string{"tag:set", "shop"}},
		{2, []string{"tag:set", "shop*"}},
		{2, []string{"tag:set", "*/mysq?"}},
		{1, []string{"tag-key", "claim"}},
		{0, []string{"tag:claim", ""}},
		{1, []string{"tag:claim", "data-mysql-0,data-mysql-1"}},
		{1, []string{"tag:set", "shop/mysql", "tag:claim", "data-mysql-0"}},
		{0, []string{"tag:set", "shop/mysql", "tag:claim", "data-mysql-1"}},
		{2, []string{"status", "available", "availability-zone", "us-east-1a", "size", "1", "volume-type", "gp2", "encrypted", "false"}},
		{1, []string{"volume-id", ids[1]}},
		{0, []string{"status", "in-use"}},
	} {
		var pairs []string
		for i := 0; i < len(c.filters); i += 2 {
			at := "Filter." + string(rune('1'+i/2))
			pairs = append(pairs, at+".Name", c.filters[i])
			for j, v := range strings.Split(c.filters[i+1], ",") {
				pairs = append(pairs, at+".Value."+string(rune('1'+j)), v)
			}
		}
		if a := w.ec2("DescribeVolumes", pairs...); len(a.Volumes) != c.want {
			t.Errorf("%v: %d volumes, want %d", c.filters, len(a.Volumes), c.want)
		}
	}
	w.refuses(400, "InvalidParameterValue", "DescribeVolumes", "Filter.1.Name", "colour", "Filter.1.Value.1", "red")
}

func TestTags(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	id := volumes(t, s, 1)[0]
	snap := w.ec2("CreateSnapshot", "VolumeId", id).SnapshotID
	w.ec2("CreateTags", "ResourceId.1", id, "ResourceId.2", snap, "Tag.1.Key", "a", "Tag.1.Value", "1", "Tag.2.Key", "b", "Tag.2.Value", "")
	w.ec2("CreateTags", "ResourceId.1", id, "Tag.1.Key", "a", "Tag.1.Value", "2")
	if got := values(w.ec2("DescribeVolumes", "VolumeId.1", id).Volumes[0].Tags); got != "a=2 b= set=shop/mysql" {
		t.Errorf("volume: %s", got)
	}
	all := w.ec2("DescribeTags", "Filter.1.Name", "resource-id", "Filter.1.Value.1", snap)
	if values(all.Tags) != "a=1 b=" || all.Tags[0].Resource != snap || all.Tags[0].Type != "snapshot" {
		t.Errorf("got %s", all.raw)
	}
	// Another value than the given one keeps the tag; no value given deletes it.
	w.ec2("DeleteTags", "ResourceId.1", id, "Tag.1.Key", "a", "Tag.1.Value", "1", "Tag.2.Key", "b")
	if got := values(w.ec2("DescribeVolumes", "VolumeId.1", id).Volumes[0].Tags); got != "a=2 set=shop/mysql" {
		t.Errorf("volume: %s", got)
	}
	w.ec2("DeleteTags", "ResourceId.1", id)
	if got := w.ec2("DescribeVolumes", "VolumeId.1", id).Volumes[0].Tags; len(got) != 0 {
		t.Errorf("volume: %v", got)
	}
	w.refuses(400, "InvalidVolume.NotFound", "CreateTags", "ResourceId.1", snap, "ResourceId.2", "vol-0", "Tag.1.Key", "c", "Tag.1.Value", "d")
	if got := values(w.ec2("DescribeSnapshots", "SnapshotId.1", snap).Snapshots[0].Tags); got != "a=1 b=" {
		t.Errorf("a call that failed has tagged: %s", got)
	}
	w.refuses(400, "InvalidID", "CreateTags", "ResourceId.1", "thing-1", "Tag.1.Key", "c", "Tag.1.Value", "d")
	w.refuses(400, "InvalidParameterValue", "CreateTags", "ResourceId.1", snap, "Tag.1.Key", "aws:c", "Tag.1.Value", "d")
	var many []string
	for i := range 50 {
		n := "Tag." + itoa(i+1)
		many = append(many, n+".Key", "k"+itoa(i), n+".Value", "v")
	}
	w.refuses(400, "TagLimitExceeded", "CreateTags", append(many, "ResourceId.1", snap)...)
	w.ec2("CreateTags", append(many, "ResourceId.1", id)...)
}

func TestAnswersAreOfAWSsShape(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	volumes(t, s, 1)
	a := w.refuses(400, "InvalidAction", "RunInstances")
	if !strings.HasPrefix(a.raw, `<?xml version="1.0" encoding="UTF-8"?>`+"\n<Response><Errors><Error><Code>InvalidAction</Code><Message>") {
		t.Errorf("got %s", a.raw)
	}
	b := w.ec2("DescribeVolumes")
	if b.XMLName.Space != "http://ec2.amazonaws.com/doc/2016-11-15/" || b.RequestID == "" {
		t.Errorf("got %s", b.raw)
	}
	w.refuses(412, "DryRunOperation", "DeleteVolume", "VolumeId", "vol-0", "DryRun", "true")
	w.refuses(400, "InvalidParameterValue", "DeleteVolume", "VolumeId", "vol-0", "DryRun", "perhaps")
}
