package ebstest_test

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

func TestRuleFailsTheCallBeforeItsWork(t *testing.T) {
	for code, status := range map[string]int{
		"RequestLimitExceeded": 503, "SnapshotCreationPerVolumeRateExceeded": 400, "ConcurrentSnapshotLimitExceeded": 400,
		"SnapshotLimitExceeded": 400, "VolumeLimitExceeded": 400, "UnauthorizedOperation": 403, "InvalidParameterValue": 400,
		"InternalError": 500, "ServiceUnavailable": 503,
	} {
		s, w := start(t, ebstest.Options{})
		_, data, _ := machine(t, s)
		rule := s.Inject(ebstest.Rule{Action: "CreateSnapshot", Skip: 1, Times: 2, Fail: &ebstest.Error{Code: code}})
		w.ec2("CreateSnapshot", "VolumeId", data.ID)
		w.ec2("DescribeSnapshots")
		w.refuses(status, code, "CreateSnapshot", "VolumeId", data.ID)
		a := w.refuses(status, code, "CreateSnapshot", "VolumeId", data.ID)
		if code == "UnauthorizedOperation" && !strings.Contains(a.Message, "ec2:CreateSnapshot") {
			t.Errorf("the message does not name the right: %s", a.Message)
		}
		w.ec2("CreateSnapshot", "VolumeId", data.ID)
		if n := len(s.Snapshots()); n != 2 || rule.Fired() != 2 {
			t.Errorf("%s: %d snapshots, fired %d times", code, n, rule.Fired())
		}
	}
}

func TestRuleDropsTheReplyAndTheWorkIsDone(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	var seen []string
	s.Inject(ebstest.Rule{Action: "CreateSnapshot", Drop: true, After: func(c ebstest.Call) {
		seen = append(seen, c.Action, c.Parameters.Get("VolumeId"))
		if len(s.Snapshots()) != 1 {
			t.Error("called back before the work was done")
		}
	}})
	if a, err := w.try("CreateSnapshot", "VolumeId", data.ID); err == nil {
		t.Fatalf("the reply arrived: %s", a.raw)
	}
	if len(s.Snapshots()) != 1 || !slices.Equal(seen, []string{"CreateSnapshot", data.ID}) {
		t.Errorf("%d snapshots, called back with %v", len(s.Snapshots()), seen)
	}
	calls := s.Calls(ebstest.Scope{})
	if len(calls) != 1 || !calls[0].Lost || calls[0].Error != "" {
		t.Errorf("log: %+v", calls)
	}
}

func TestEveryCallSiteInTurn(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	program := func() (done int) {
		for _, action := range []string{"DescribeVolumes", "CreateSnapshot", "DescribeSnapshots", "DescribeTags"} {
			pairs := []string{}
			if action == "CreateSnapshot" {
				pairs = []string{"VolumeId", data.ID}
			}
			if _, err := w.try(action, pairs...); err != nil {
				return done
			}
			done++
		}
		return done
	}
	scope := ebstest.Scope{AccessKey: w.key}
	program()
	n := len(s.Calls(scope))
	for i := range n {
		rule := s.Inject(ebstest.Rule{Scope: scope, Skip: i, Drop: true})
		if got := program(); got != i {
			t.Errorf("with call %d broken, %d went well", i, got)
		}
		rule.Remove()
	}
	if n != 4 || program() != 4 {
		t.Errorf("%d call sites, and with no rule left %d went well", n, program())
	}
}

func TestRuleHoldsTheReply(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	rule := s.Inject(ebstest.Rule{Action: "CreateSnapshot", Hold: true})
	done := make(chan error, 1)
	go func() {
		_, err := w.try("CreateSnapshot", "VolumeId", data.ID)
		done <- err
	}()
	eventually(t, func() bool { return rule.Fired() == 1 && len(s.Snapshots()) == 1 })
	select {
	case err := <-done:
		t.Fatalf("the reply was not held: %v", err)
	default:
	}
	rule.Remove()
	rule.Remove()
	if err := <-done; err != nil {
		t.Error(err)
	}

	// A client that is gone is waited for no longer.
	s.Inject(ebstest.Rule{Action: "CreateSnapshot", Hold: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- w.raw(ctx, "CreateSnapshot", "VolumeId", data.ID) }()
	eventually(t, func() bool { return len(s.Snapshots()) == 2 })
	cancel()
	if err := <-done; err == nil {
		t.Error("the reply was not held")
	}
	eventually(t, func() bool { return s.Calls(ebstest.Scope{})[1].Lost })
}

func TestRuleDelays(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	s.Inject(ebstest.Rule{Action: "DescribeVolumes", Delay: 50 * time.Millisecond})
	begin := time.Now()
	w.ec2("DescribeVolumes")
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("answered after %s", took)
	}
}

func TestCallThatIsGivenUpWhileItIsDelayedDoesNothing(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	rule := s.Inject(ebstest.Rule{Action: "CreateSnapshot", Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.raw(ctx, "CreateSnapshot", "VolumeId", data.ID) }()
	eventually(t, func() bool { return rule.Fired() == 1 })
	cancel()
	if err := <-done; err == nil {
		t.Error("it was answered")
	}
	eventually(t, func() bool { return s.Calls(ebstest.Scope{})[0].Error == "RequestCanceled" })
	if n := len(s.Snapshots()); n != 0 {
		t.Errorf("%d snapshots", n)
	}
}

func TestRuleCallsBackBeforeTheWork(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	there := -1
	s.Inject(ebstest.Rule{Action: "CreateSnapshot", Before: func(ebstest.Call) { there = len(s.Snapshots()) }})
	w.ec2("CreateSnapshot", "VolumeId", data.ID)
	if there != 0 {
		t.Errorf("%d snapshots when called back", there)
	}
}

func TestRuleDecidesTheOutcome(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	s.Inject(ebstest.Rule{Action: "CreateSnapshot", Outcome: control.Failing, Message: "disk on fire"})
	id := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	if n := w.ec2("DescribeSnapshots", "SnapshotId.1", id).Snapshots[0]; n.Status != "error" || n.Message != "disk on fire" {
		t.Errorf("got %+v", n)
	}
	create := []string{"AvailabilityZone", "us-east-1a", "Size", "1"}
	for outcome, want := range map[control.Outcome]string{control.Failing: "error", control.Held: "creating"} {
		s.Inject(ebstest.Rule{Action: "CreateVolume", Outcome: outcome})
		id := w.ec2("CreateVolume", create...).VolumeID
		if v := w.ec2("DescribeVolumes", "VolumeId.1", id).Volumes[0]; v.Status != want {
			t.Errorf("%s: got %s", outcome, v.Status)
		}
		if err := s.Set(id, control.Change{}); err != nil {
			t.Fatal(err)
		}
		if v := w.ec2("DescribeVolumes", "VolumeId.1", id).Volumes[0]; v.Status != "available" {
			t.Errorf("%s, let go: got %s", outcome, v.Status)
		}
	}
	s.Inject(ebstest.Rule{Action: "CreateVolume", Outcome: control.Vanishing})
	gone := w.ec2("CreateVolume", create...)
	if gone.Status != "creating" {
		t.Errorf("got %s", gone.raw)
	}
	w.refuses(400, "InvalidVolume.NotFound", "DescribeVolumes", "VolumeId.1", gone.VolumeID)
}

func TestRuleHidesWhatIsNew(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	s.Inject(ebstest.Rule{Hide: 2, Times: -1})
	snap := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	w.refuses(400, "InvalidSnapshot.NotFound", "DescribeSnapshots", "SnapshotId.1", snap)
	if all := w.ec2("DescribeSnapshots"); len(all.Snapshots) != 0 {
		t.Errorf("got %s", all.raw)
	}
	if all := w.ec2("DescribeSnapshots"); len(all.Snapshots) != 1 {
		t.Errorf("got %s", all.raw)
	}
	id := w.ec2("CreateVolume", "AvailabilityZone", "us-east-1a", "Size", "1").VolumeID
	w.refuses(400, "InvalidVolume.NotFound", "DescribeVolumes", "VolumeId.1", id)
	w.refuses(400, "InvalidVolume.NotFound", "DescribeVolumes", "VolumeId.1", id)
	w.ec2("DescribeVolumes", "VolumeId.1", id)
}

func TestScopesKeepTestsApart(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	other := w
	other.key = "AKIAOTHER"
	tagged := func(ns string) []string {
		return []string{
			"AvailabilityZone", "us-east-1a", "Size", "1", "TagSpecification.1.ResourceType", "volume",
			"TagSpecification.1.Tag.1.Key", "namespace", "TagSpecification.1.Tag.1.Value", ns,
		}
	}
	one, two := w.ec2("CreateVolume", tagged("one")...).VolumeID, other.ec2("CreateVolume", tagged("two")...).VolumeID
	byTag := ebstest.Scope{Tags: map[string]string{"namespace": "one"}}
	s.Inject(ebstest.Rule{Scope: byTag, Times: -1, Fail: &ebstest.Error{Code: "InternalError"}})
	w.refuses(500, "InternalError", "DeleteVolume", "VolumeId", one)
	w.refuses(500, "InternalError", "DescribeVolumes", "Filter.1.Name", "tag:namespace", "Filter.1.Value.1", "one")
	w.refuses(500, "InternalError", "CreateTags", "ResourceId.1", two, "Tag.1.Key", "namespace", "Tag.1.Value", "one")
	other.ec2("DescribeVolumes", "Filter.1.Name", "tag:namespace", "Filter.1.Value.1", "two")
	other.ec2("DeleteVolume", "VolumeId", two)
	for scope, want := range map[string]int{"AKIATEST": 4, "AKIAOTHER": 3, "": 7} {
		if got := s.Calls(ebstest.Scope{AccessKey: scope}); len(got) != want {
			t.Errorf("key %q: %d calls, want %d", scope, len(got), want)
		}
	}
	var actions []string
	for _, c := range s.Calls(byTag) {
		actions = append(actions, c.Action+" "+c.Error)
	}
	want := []string{"CreateVolume ", "DeleteVolume InternalError", "DescribeVolumes InternalError", "CreateTags InternalError"}
	if !slices.Equal(actions, want) {
		t.Errorf("by tag: %q, want %q", actions, want)
	}
}

// raw calls EC2 until ctx ends, with the parameters in the URL.
func (w wire) raw(ctx context.Context, action string, pairs ...string) error {
	form := url.Values{"Action": {action}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/?"+form.Encode(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+w.key+"/20260101/"+w.region+"/ec2/aws4_request, Signature=0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// eventually waits for a condition.
func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not come about within 20 s")
		}
		<-tick.C
	}
}
