package ebstest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

const blockSize = 512 << 10

func itoa(i int) string { return strconv.Itoa(i) }

// blocks is everything that these tests look at in a reply of the EBS direct API.
type blocks struct {
	received

	BlockSize, VolumeSize int
	ExpiryTime            float64
	NextToken             string
	Blocks                []struct {
		BlockIndex int
		BlockToken string
	}
	ChangedBlocks []struct {
		BlockIndex                        int
		FirstBlockToken, SecondBlockToken string
	}
	SnapshotID string `json:"SnapshotId"`
	Status     string
	Message    string
	Reason     string
}

// code of an error travels in a header.
func (b blocks) code() string { return b.header.Get("X-Amzn-Errortype") }

// direct calls the EBS direct API.
func (w wire) direct(method, path string, header http.Header, body []byte) blocks {
	w.t.Helper()
	got, err := w.send(method, path, "ebs", header, body)
	if err != nil {
		w.t.Fatal(err)
	}
	b := blocks{received: got}
	if got.header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(got.body, &b); err != nil {
			w.t.Fatalf("%s %s: %v in %s", method, path, err, got.body)
		}
	}
	return b
}

func (w wire) get(id string, index int, token string) blocks {
	w.t.Helper()
	return w.direct("GET", fmt.Sprintf("/snapshots/%s/blocks/%d?blockToken=%s", id, index, url.QueryEscape(token)), nil, nil)
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(s[:])
}

func (w wire) put(id string, index int, data []byte, changes ...string) blocks {
	w.t.Helper()
	h := http.Header{
		"X-Amz-Data-Length": {itoa(len(data))}, "X-Amz-Checksum": {sum(data)}, "X-Amz-Checksum-Algorithm": {"SHA256"},
	}
	for i := 0; i < len(changes); i += 2 {
		h.Set(changes[i], changes[i+1])
	}
	return w.direct("PUT", fmt.Sprintf("/snapshots/%s/blocks/%d", id, index), h, data)
}

func (w wire) complete(id string, count int, pairs ...string) blocks {
	w.t.Helper()
	h := http.Header{}
	h.Set("x-amz-ChangedBlocksCount", itoa(count))
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return w.direct("POST", "/snapshots/completion/"+id, h, nil)
}

func (b blocks) indexes() (all []int) {
	for _, x := range b.Blocks {
		all = append(all, x.BlockIndex)
	}
	for _, x := range b.ChangedBlocks {
		all = append(all, x.BlockIndex)
	}
	return all
}

// refused fails the test unless the reply is this error.
func (b blocks) refused(t *testing.T, status int, code, reason string) {
	t.Helper()
	if b.status != status || b.code() != code || b.Reason != reason || b.Message == "" {
		t.Errorf("want %d %s %s, got %d %s %s", status, code, reason, b.status, b.code(), b.body)
	}
}

func filled(b byte) []byte { return bytes.Repeat([]byte{b}, blockSize) }

func TestReadingBlocks(t *testing.T) {
	c := newClock()
	s, w := start(t, ebstest.Options{Clock: c.now})
	_, data, _ := machine(t, s)
	write(t, data.Path, 3*blockSize-1, []byte{1, 2})
	write(t, data.Path, 1<<30-1, []byte{9})
	id := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	l := w.direct("GET", "/snapshots/"+id+"/blocks", nil, nil)
	if l.status != 200 || !slices.Equal(l.indexes(), []int{2, 3, 2047}) || l.BlockSize != blockSize || l.VolumeSize != 1 || l.NextToken != "" {
		t.Fatalf("got %d %s", l.status, l.body)
	}
	if want := float64(c.now().Add(7 * 24 * time.Hour).Unix()); l.ExpiryTime != want {
		t.Errorf("tokens expire at %f, want %f", l.ExpiryTime, want)
	}
	g := w.get(id, 3, l.Blocks[1].BlockToken)
	want := append([]byte{2}, make([]byte, blockSize-1)...)
	if g.status != 200 || !bytes.Equal(g.body, want) || g.header.Get("x-amz-Checksum") != sum(want) ||
		g.header.Get("x-amz-Checksum-Algorithm") != "SHA256" || g.header.Get("x-amz-Data-Length") != "524288" {
		t.Errorf("got %d %v", g.status, g.header)
	}
	w.get(id, 2, l.Blocks[1].BlockToken).refused(t, 400, "ValidationException", "INVALID_BLOCK_TOKEN")
	w.get(id, 3, "").refused(t, 400, "ValidationException", "INVALID_BLOCK_TOKEN")
	w.get("snap-0", 3, l.Blocks[1].BlockToken).refused(t, 404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")
	w.get("vol-0", 3, l.Blocks[1].BlockToken).refused(t, 400, "ValidationException", "INVALID_SNAPSHOT_ID")
	c.pass(8 * 24 * time.Hour)
	w.get(id, 3, l.Blocks[1].BlockToken).refused(t, 400, "ValidationException", "INVALID_BLOCK_TOKEN")
}

func TestBlocksOfAPendingSnapshotCannotBeRead(t *testing.T) {
	s, w := start(t, ebstest.Options{SnapshotTime: time.Hour})
	_, data, _ := machine(t, s)
	id := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	w.direct("GET", "/snapshots/"+id+"/blocks", nil, nil).refused(t, 400, "ValidationException", "INVALID_SNAPSHOT_ID")
}

func TestPagesOfBlocks(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	var want []int
	for i := range 250 {
		write(t, data.Path, int64(i)*2*blockSize, []byte{1})
		want = append(want, 2*i)
	}
	id := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	path := "/snapshots/" + id + "/blocks?maxResults=100"
	var got, pages []int
	for token := ""; ; {
		l := w.direct("GET", path+"&startingBlockIndex=0&pageToken="+url.QueryEscape(token), nil, nil)
		got, pages = append(got, l.indexes()...), append(pages, len(l.Blocks))
		if token = l.NextToken; token == "" {
			break
		}
	}
	if !slices.Equal(got, want) || !slices.Equal(pages, []int{100, 100, 50}) {
		t.Errorf("pages of %v hold %d blocks", pages, len(got))
	}
	if l := w.direct("GET", path+"&startingBlockIndex=7", nil, nil); len(l.Blocks) != 100 || l.Blocks[0].BlockIndex != 8 {
		t.Errorf("from 7 on: %v", l.indexes())
	}
	for _, most := range []string{"99", "10001", "x"} {
		w.direct("GET", "/snapshots/"+id+"/blocks?maxResults="+most, nil, nil).refused(t, 400, "ValidationException", "INVALID_PARAMETER_VALUE")
	}
	w.direct("GET", path+"&pageToken=bad", nil, nil).refused(t, 400, "ValidationException", "INVALID_PAGE_TOKEN")
}

func TestChangedBlocks(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, log := machine(t, s)
	for i := range 4 {
		write(t, data.Path, int64(i)*blockSize, filled(1))
	}
	cut := func(id string) string { return w.ec2("CreateSnapshot", "VolumeId", id).SnapshotID }
	changes := func(first, second string) blocks {
		return w.direct("GET", "/snapshots/"+second+"/changedblocks?firstSnapshotId="+first, nil, nil)
	}
	first := cut(data.ID)
	write(t, data.Path, 1*blockSize+5, []byte{2})
	write(t, data.Path, 2*blockSize, filled(1)) // written again as it was
	write(t, data.Path, 9*blockSize, filled(3))
	second := cut(data.ID)
	l := changes(first, second)
	if l.status != 200 || !slices.Equal(l.indexes(), []int{1, 9}) {
		t.Fatalf("got %d %s", l.status, l.body)
	}
	if one, nine := l.ChangedBlocks[0], l.ChangedBlocks[1]; one.FirstBlockToken == "" || one.SecondBlockToken == "" ||
		nine.FirstBlockToken != "" || nine.SecondBlockToken == "" {
		t.Errorf("tokens: %+v %+v", one, nine)
	}
	if g := w.get(second, 9, l.ChangedBlocks[1].SecondBlockToken); !bytes.Equal(g.body, filled(3)) {
		t.Errorf("block 9: %d", g.status)
	}
	if back := changes(second, first); !slices.Equal(back.indexes(), []int{1, 9}) || back.ChangedBlocks[1].SecondBlockToken != "" {
		t.Errorf("backwards, what the second lacks has no token: %s", back.body)
	}
	changes(first, cut(log.ID)).refused(t, 400, "ValidationException", "UNRELATED_SNAPSHOTS")
	changes("", second).refused(t, 400, "ValidationException", "INVALID_SNAPSHOT_ID")
	changes("snap-0", second).refused(t, 404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")

	child := w.ec2("CreateVolume", "AvailabilityZone", "us-east-1a", "SnapshotId", second, "Size", "2").VolumeID
	if l := changes(second, cut(child)); l.status != 200 || len(l.ChangedBlocks) != 0 || l.VolumeSize != 2 {
		t.Errorf("a volume made of the snapshot: %d %s", l.status, l.body)
	}
	other := w.ec2("CreateVolume", "AvailabilityZone", "us-east-1a", "SnapshotId", second, "Encrypted", "true").VolumeID
	changes(second, cut(other)).refused(t, 400, "ValidationException", "UNRELATED_SNAPSHOTS")
}

func TestWritingASnapshot(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	body := []byte(`{"VolumeSize":2,"ClientToken":"t","Description":"d","Tags":[{"Key":"set","Value":"shop"}]}`)
	st := w.direct("POST", "/snapshots", nil, body)
	if st.status != 201 || st.Status != "pending" || st.BlockSize != blockSize || st.VolumeSize != 2 || st.SnapshotID == "" {
		t.Fatalf("got %d %s", st.status, st.body)
	}
	id := st.SnapshotID
	if again := w.direct("POST", "/snapshots", nil, body); again.SnapshotID != id {
		t.Errorf("the same request began %s and then %s", id, again.SnapshotID)
	}
	w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":3,"ClientToken":"t"}`)).refused(t, 409, "ConflictException", "")
	if n := w.ec2("DescribeSnapshots", "SnapshotId.1", id).Snapshots[0]; n.Status != "pending" || values(n.Tags) != "set=shop" {
		t.Errorf("got %+v", n)
	}
	for index, b := range map[int]byte{7: 1, 4095: 2, 0: 3} {
		p := w.put(id, index, filled(b))
		if p.status != 201 || p.header.Get("x-amz-Checksum") != sum(filled(b)) || p.header.Get("x-amz-Checksum-Algorithm") != "SHA256" {
			t.Fatalf("put %d: %d %s", index, p.status, p.body)
		}
	}
	w.put(id, 4096, filled(4)).refused(t, 400, "ValidationException", "INVALID_BLOCK")
	w.put(id, 1, filled(4)[1:]).refused(t, 400, "ValidationException", "INVALID_BLOCK")
	w.put(id, 1, filled(4), "x-amz-Checksum", sum(filled(5))).refused(t, 400, "ValidationException", "INVALID_BLOCK")
	w.put(id, 1, filled(4), "x-amz-Checksum-Algorithm", "MD5").refused(t, 400, "ValidationException", "INVALID_PARAMETER_VALUE")
	w.put("snap-0", 1, filled(4)).refused(t, 404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")

	w.complete(id, 4).refused(t, 400, "ValidationException", "INVALID_PARAMETER_VALUE")
	sums := []byte{}
	for _, b := range []byte{3, 1, 2} { // in the order of the blocks
		one := sha256.Sum256(filled(b))
		sums = append(sums, one[:]...)
	}
	w.complete(id, 3, "x-amz-Checksum", sum(sums[32:])).refused(t, 400, "ValidationException", "INVALID_PARAMETER_VALUE")
	done := w.complete(id, 3, "x-amz-Checksum", sum(sums), "x-amz-Checksum-Algorithm", "SHA256", "x-amz-Checksum-Aggregation-Method", "LINEAR")
	if done.status != 202 || done.Status != "pending" {
		t.Fatalf("got %d %s", done.status, done.body)
	}
	if again := w.complete(id, 3); again.status != 202 || again.Status != "completed" {
		t.Errorf("completed again: %d %s", again.status, again.body)
	}
	w.put(id, 1, filled(4)).refused(t, 400, "ValidationException", "INVALID_SNAPSHOT_ID")

	v := w.ec2("CreateVolume", "AvailabilityZone", "us-east-1a", "SnapshotId", id).VolumeID
	image, err := s.Volume(v)
	if err != nil {
		t.Fatal(err)
	}
	for index, b := range map[int64]byte{7: 1, 4095: 2, 0: 3, 1: 0, 2000: 0} {
		if !bytes.Equal(read(t, image.Path, index*blockSize, blockSize), filled(b)) {
			t.Errorf("block %d is not %d", index, b)
		}
	}
}

func TestStartSnapshotWithAParent(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	write(t, data.Path, 0, filled(1))
	write(t, data.Path, blockSize, filled(2))
	parent := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	id := w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":1,"ParentSnapshotId":"`+parent+`"}`)).SnapshotID
	w.put(id, 1, filled(5))
	if done := w.complete(id, 1); done.status != 202 {
		t.Fatalf("got %d %s", done.status, done.body)
	}
	l := w.direct("GET", "/snapshots/"+id+"/changedblocks?firstSnapshotId="+parent, nil, nil)
	if !slices.Equal(l.indexes(), []int{1}) {
		t.Errorf("against its parent: %d %s", l.status, l.body)
	}
	for _, bad := range []string{
		`{"VolumeSize":0}`, `{"VolumeSize":65537}`, `{"VolumeSize":1,"Timeout":9}`, `{"VolumeSize":1,"Timeout":61}`, `{`,
		`{"VolumeSize":1,"KmsKeyArn":"k"}`, `{"VolumeSize":1,"Encrypted":true,"ParentSnapshotId":"` + parent + `"}`,
	} {
		if r := w.direct("POST", "/snapshots", nil, []byte(bad)); r.status != 400 || r.code() != "ValidationException" {
			t.Errorf("%s: %d %s", bad, r.status, r.body)
		}
	}
	w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":1,"ParentSnapshotId":"snap-0"}`)).
		refused(t, 404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")
}

func TestBlocksUnderAKeyWithoutRights(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	id := w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":1,"Encrypted":true,"KmsKeyArn":"theirs"}`)).SnapshotID
	w.put(id, 0, filled(1))
	if err := s.DenyKey("theirs", true); err != nil {
		t.Fatal(err)
	}
	w.put(id, 1, filled(1)).refused(t, 403, "AccessDeniedException", "DEPENDENCY_ACCESS_DENIED")
	w.complete(id, 1)
	token := w.direct("GET", "/snapshots/"+id+"/blocks", nil, nil).Blocks[0].BlockToken
	w.get(id, 0, token).refused(t, 403, "AccessDeniedException", "DEPENDENCY_ACCESS_DENIED")
	w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":1,"Encrypted":true,"KmsKeyArn":"theirs"}`)).
		refused(t, 403, "AccessDeniedException", "DEPENDENCY_ACCESS_DENIED")
	w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":1,"ParentSnapshotId":"`+id+`"}`)).
		refused(t, 403, "AccessDeniedException", "DEPENDENCY_ACCESS_DENIED")
}

func TestSnapshotThatIsLeftAloneFails(t *testing.T) {
	c := newClock()
	_, w := start(t, ebstest.Options{Clock: c.now})
	id := w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":1,"Timeout":10}`)).SnapshotID
	c.pass(9 * time.Minute)
	w.put(id, 1, filled(1))
	c.pass(9 * time.Minute)
	if p := w.put(id, 2, filled(1)); p.status != 201 {
		t.Errorf("it was used 9 minutes ago: %d %s", p.status, p.body)
	}
	c.pass(11 * time.Minute)
	w.put(id, 3, filled(1)).refused(t, 400, "ValidationException", "INVALID_SNAPSHOT_ID")
	w.complete(id, 2).refused(t, 400, "ValidationException", "INVALID_SNAPSHOT_ID")
	if n := w.ec2("DescribeSnapshots", "SnapshotId.1", id).Snapshots[0]; n.Status != "error" || n.Message == "" {
		t.Errorf("got %+v", n)
	}
	w.ec2("DeleteSnapshot", "SnapshotId", id)
}

func TestFaultsOfTheDirectAPI(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	write(t, data.Path, 0, filled(1))
	id := w.ec2("CreateSnapshot", "VolumeId", data.ID).SnapshotID
	for code, status := range map[string]int{
		"ThrottlingException": 400, "RequestThrottledException": 400, "ValidationException": 400, "ConcurrentLimitExceededException": 400,
		"ResourceNotFoundException": 404, "AccessDeniedException": 403, "ServiceQuotaExceededException": 402, "ConflictException": 409,
		"InternalServerException": 500,
	} {
		s.Inject(ebstest.Rule{Action: "ListSnapshotBlocks", Fail: &ebstest.Error{Code: code, Reason: "WHY"}})
		w.direct("GET", "/snapshots/"+id+"/blocks", nil, nil).refused(t, status, code, "WHY")
	}
	token := w.direct("GET", "/snapshots/"+id+"/blocks", nil, nil).Blocks[0].BlockToken
	s.Inject(ebstest.Rule{Action: "GetSnapshotBlock", Damage: true})
	if g := w.get(id, 0, token); g.status != 200 || sum(g.body) == g.header.Get("x-amz-Checksum") {
		t.Errorf("the block is not damaged: %d", g.status)
	}
	if g := w.get(id, 0, token); sum(g.body) != g.header.Get("x-amz-Checksum") {
		t.Error("the block stays damaged")
	}
	s.Inject(ebstest.Rule{Action: "StartSnapshot", Hide: 2, Drop: true})
	if _, err := w.send("POST", "/snapshots", "ebs", nil, []byte(`{"VolumeSize":1,"ClientToken":"c"}`)); err == nil {
		t.Error("the reply arrived")
	}
	begun := w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":1,"ClientToken":"c"}`)).SnapshotID
	w.put(begun, 0, filled(1)).refused(t, 404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")
	w.put(begun, 0, filled(1)).refused(t, 404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")
	if p := w.put(begun, 0, filled(1)); p.status != 201 {
		t.Errorf("got %d %s", p.status, p.body)
	}
	s.Inject(ebstest.Rule{Action: "StartSnapshot", Outcome: control.Failing, Message: "no"})
	failed := w.direct("POST", "/snapshots", nil, []byte(`{"VolumeSize":1}`)).SnapshotID
	if n := w.ec2("DescribeSnapshots", "SnapshotId.1", failed).Snapshots[0]; n.Status != "error" || n.Message != "no" {
		t.Errorf("got %+v", n)
	}
	w.direct("PATCH", "/snapshots", nil, nil).refused(t, 404, "UnknownOperationException", "")
	var gets int
	for _, c := range s.Calls(ebstest.Scope{}) {
		if c.Action == "GetSnapshotBlock" && c.Parameters.Get("BlockIndex") == "0" && c.Parameters.Get("SnapshotId") == id {
			gets++
		}
	}
	if gets != 2 {
		t.Errorf("the log has %d reads of block 0", gets)
	}
}
