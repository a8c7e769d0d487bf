package ebstest_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

// process runs the fake over a directory until its end.
func process(t *testing.T, dir string) (*ebstest.Server, wire, func()) {
	t.Helper()
	s, err := ebstest.New(ebstest.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	return s, wire{t: t, url: server.URL, key: "AKIATEST", region: "us-east-1"}, server.Close
}

func TestStateOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	s, w, end := process(t, dir)
	_, data, log := machine(t, s)
	token := []string{"AvailabilityZone", "us-east-1a", "Size", "1", "ClientToken", "once"}
	made := w.ec2("CreateVolume", token...).VolumeID
	s.Inject(ebstest.Rule{Action: "CreateSnapshot", Outcome: control.Held})
	held := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	begun := w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":1}`)).SnapshotID
	w.put(begun, 3, filled(3))
	w.put(begun, 4, filled(4))
	before := s.Volumes()
	end()
	// What a process leaves behind that is killed within a call.
	stray := filepath.Join(dir, "volumes", "copying-12345")
	if err := os.WriteFile(stray, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}

	s, w, end = process(t, dir)
	defer end()
	after := s.Volumes()
	if len(after) != len(before) {
		t.Fatalf("%d volumes, before %d", len(after), len(before))
	}
	for i := range after {
		if after[i].ID != before[i].ID || after[i].Instance != before[i].Instance || after[i].Path != before[i].Path {
			t.Errorf("got %+v, before %+v", after[i], before[i])
		}
	}
	if again := w.ec2("CreateVolume", token...).VolumeID; again != made {
		t.Errorf("the client token is forgotten: %s and %s", made, again)
	}
	if n := w.ec2("DescribeSnapshots", "SnapshotId.1", held).Snapshots[0]; n.Status != "pending" {
		t.Errorf("held: %+v", n)
	}
	w.put(begun, 5, filled(5))
	if done := w.complete(begun, 3); done.status != 202 {
		t.Errorf("the blocks are forgotten: %d %s", done.status, done.body)
	}
	if _, err := os.Stat(stray); !os.IsNotExist(err) {
		t.Errorf("what belongs to nothing is still there: %v", err)
	}
	w.ec2("DetachVolume", "VolumeId", log.ID)
}

func TestNewRefuses(t *testing.T) {
	if _, err := ebstest.New(ebstest.Options{}); err == nil {
		t.Error("no directory")
	}
	two := map[string][]string{"us-east-1": {"us-east-1a"}, "eu-west-1": {"eu-west-1a"}}
	if _, err := ebstest.New(ebstest.Options{Dir: t.TempDir(), Regions: two}); err == nil {
		t.Error("two regions and no default")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"volumes":`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ebstest.New(ebstest.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged state: %v", err)
	}
}
