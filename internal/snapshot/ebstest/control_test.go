package ebstest_test

import (
	"errors"
	"slices"
	"testing"

	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

// The path of a CSI driver: make, attach, mount the image, detach, delete.
func TestControlOfVolumes(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	c, ctx := s.Control(), t.Context()
	i, err := c.PutInstance(ctx, control.Instance{ID: "i-00000000000000001", Zone: "us-east-1b", RootGiB: 4})
	if err != nil || i.Root == "" {
		t.Fatal(i, err)
	}
	if again, err := c.PutInstance(ctx, control.Instance{ID: i.ID, Zone: "us-east-1a", RootGiB: 9}); err != nil || again != i {
		t.Errorf("got %+v, %v", again, err)
	}
	want := control.Volume{
		Zone: "us-east-1b", SizeGiB: 2, Type: "gp3", Encrypted: true, ClientToken: "pvc-1", Tags: map[string]string{"a": "1", "b": "2"},
	}
	v, err := c.CreateVolume(ctx, want)
	if err != nil || v.State != "available" || v.IOPS != 3000 || len(v.Tags) != 2 || v.Account != ebstest.DefaultAccount {
		t.Fatal(v, err)
	}
	if again, err := c.CreateVolume(ctx, want); err != nil || again.ID != v.ID {
		t.Errorf("again: %+v, %v", again, err)
	}
	at, err := c.Attach(ctx, v.ID, i.ID, "")
	if err != nil || at.State != "in-use" || at.Device != "/dev/xvdaa" || at.Instance != i.ID {
		t.Errorf("attached: %+v, %v", at, err)
	}
	if again, err := c.Attach(ctx, v.ID, i.ID, ""); err != nil || again.Device != at.Device {
		t.Errorf("attached again: %+v, %v", again, err)
	}
	write(t, at.Path, 0, []byte("by the driver"))
	snap := w.ec2("CreateSnapshot", "VolumeId", v.ID).SnapshotID
	all, err := c.Snapshots(ctx)
	if err != nil || len(all) != 1 || all[0].ID != snap || all[0].State != "completed" || string(read(t, all[0].Path, 0, 13)) != "by the driver" {
		t.Errorf("snapshots: %+v, %v", all, err)
	}
	code := func(err error) string {
		e, ok := errors.AsType[*control.Error](err)
		if !ok {
			return "none"
		}
		return e.Code
	}
	if err := c.DeleteVolume(ctx, v.ID); code(err) != "VolumeInUse" {
		t.Errorf("delete while attached: %v", err)
	}
	if err := c.Detach(ctx, v.ID); err != nil {
		t.Error(err)
	}
	if err := c.Detach(ctx, v.ID); err != nil {
		t.Errorf("detached again: %v", err)
	}
	if err := c.DeleteVolume(ctx, v.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Volume(ctx, v.ID); code(err) != "InvalidVolume.NotFound" {
		t.Errorf("after its deletion: %v", err)
	}
	if _, err := c.CreateVolume(ctx, control.Volume{Zone: "nowhere", SizeGiB: 1}); code(err) != "InvalidZone.NotFound" {
		t.Errorf("in no zone: %v", err)
	}
	if err := c.DeleteInstance(ctx, i.ID); err != nil {
		t.Error(err)
	}
	if left, err := c.Volumes(ctx); err != nil || len(left) != 0 {
		t.Errorf("left over: %+v, %v", left, err)
	}
	if calls := s.Calls(ebstest.Scope{}); len(calls) != 1 {
		t.Errorf("the control interface is not AWS's, but the log has %d calls", len(calls))
	}
}

func TestControlOfFaults(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	c, ctx := s.Control(), t.Context()
	_, data, _ := machine(t, s)
	scope := control.Scope{Tags: map[string]string{"own": "yes"}}
	rule, err := c.Inject(ctx, control.Rule{Action: "CreateSnapshot", Scope: scope, Hold: true, Drop: true, Outcome: control.Held})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.try("CreateSnapshot", "VolumeId", data.ID)
		done <- err
	}()
	eventually(t, func() bool {
		n, err := c.Fired(ctx, rule)
		return err == nil && n == 1 && len(s.Snapshots()) == 1
	})
	if err := c.Remove(ctx, rule); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the reply was not dropped")
	}
	if _, err := c.Fired(ctx, rule); err == nil {
		t.Error("the rule is still there")
	}
	id := s.Snapshots()[0].ID
	if err := c.Set(ctx, id, control.Change{Outcome: control.Failing, Message: "m"}); err != nil {
		t.Error(err)
	}
	if n := w.ec2("DescribeSnapshots", "SnapshotId.1", id).Snapshots[0]; n.Status != "error" || n.Message != "m" {
		t.Errorf("got %+v", n)
	}
	calls, err := c.Calls(ctx, scope)
	if err != nil || len(calls) != 1 || calls[0].Action != "CreateSnapshot" || !calls[0].Lost || calls[0].Parameters.Get("VolumeId") != data.ID {
		t.Errorf("log: %+v, %v", calls, err)
	}
	if none, err := c.Calls(ctx, control.Scope{AccessKey: "AKIAOTHER"}); err != nil || !slices.Equal(actions(none), []string{}) {
		t.Errorf("log of another key: %+v, %v", none, err)
	}
	if err := c.DenyKey(ctx, "k", true); err != nil {
		t.Error(err)
	}
	gone := w.ec2("CreateVolume", "AvailabilityZone", "us-east-1a", "Size", "1", "Encrypted", "true", "KmsKeyId", "k").VolumeID
	w.refuses(400, "InvalidVolume.NotFound", "DescribeVolumes", "VolumeId.1", gone)
	if err := c.Allow(ctx, w.key, "ec2:DeleteVolume"); err != nil {
		t.Error(err)
	}
	w.refuses(403, "UnauthorizedOperation", "DescribeVolumes")
}

func actions(calls []control.Call) []string {
	all := []string{}
	for _, c := range calls {
		all = append(all, c.Action)
	}
	return all
}
