package ebstest_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

// wire speaks AWS's protocols without the SDK, as far as these tests need them.
type wire struct {
	t      *testing.T
	url    string
	key    string
	region string
}

func start(t *testing.T, o ebstest.Options) (*ebstest.Server, wire) {
	t.Helper()
	s := ebstest.Start(t, o)
	return s, wire{t: t, url: s.URL(), key: "AKIATEST", region: "us-east-1"}
}

func (w wire) send(method, path, service string, header http.Header, body []byte) (got received, err error) {
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Authorization", fmt.Sprintf(
		"AWS4-HMAC-SHA256 Credential=%s/20260101/%s/%s/aws4_request, SignedHeaders=host, Signature=00", w.key, w.region, service))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return got, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	body, err = io.ReadAll(resp.Body)
	return received{resp.StatusCode, resp.Header, body}, err
}

type received struct {
	status int
	header http.Header
	body   []byte
}

// answer is everything that these tests look at in a reply of EC2.
type answer struct {
	status int
	raw    string

	XMLName    xml.Name
	RequestID  string     `xml:"requestId"`
	NextToken  string     `xml:"nextToken"`
	Return     bool       `xml:"return"`
	VolumeID   string     `xml:"volumeId"`
	SnapshotID string     `xml:"snapshotId"`
	Status     string     `xml:"status"`
	Size       int64      `xml:"size"`
	Encrypted  bool       `xml:"encrypted"`
	KMSKey     string     `xml:"kmsKeyId"`
	Volumes    []resource `xml:"volumeSet>item"`
	Snapshots  []resource `xml:"snapshotSet>item"`
	Tags       []tag      `xml:"tagSet>item"`
	Zones      []struct {
		Name string `xml:"zoneName"`
	} `xml:"availabilityZoneInfo>item"`
	Instances []struct {
		ID      string     `xml:"instanceId"`
		Devices []resource `xml:"blockDeviceMapping>item>ebs"`
	} `xml:"reservationSet>item>instancesSet>item"`
	Statuses []resource `xml:"instanceStatusSet>item"`

	Code    string `xml:"Errors>Error>Code"`
	Message string `xml:"Errors>Error>Message"`
	// Failed is the request's ID in an error, spelled as AWS spells it there.
	Failed string `xml:"RequestID"`
}

type resource struct {
	VolumeID   string `xml:"volumeId"`
	SnapshotID string `xml:"snapshotId"`
	InstanceID string `xml:"instanceId"`
	// Status is "state" in the answer of CreateSnapshots.
	Status      string `xml:"status"`
	State       string `xml:"state"`
	Message     string `xml:"statusMessage"`
	Progress    string `xml:"progress"`
	Zone        string `xml:"availabilityZone"`
	Size        int64  `xml:"size"`
	VolumeSize  int64  `xml:"volumeSize"`
	Type        string `xml:"volumeType"`
	IOPS        int64  `xml:"iops"`
	Throughput  int64  `xml:"throughput"`
	Rate        int64  `xml:"volumeInitializationRate"`
	Encrypted   bool   `xml:"encrypted"`
	KMSKey      string `xml:"kmsKeyId"`
	StartTime   string `xml:"startTime"`
	Owner       string `xml:"ownerId"`
	Tags        []tag  `xml:"tagSet>item"`
	Attachments []struct {
		Instance string `xml:"instanceId"`
		Device   string `xml:"device"`
		Status   string `xml:"status"`
	} `xml:"attachmentSet>item"`
}

type tag struct {
	Key      string `xml:"key"`
	Value    string `xml:"value"`
	Resource string `xml:"resourceId"`
	Type     string `xml:"resourceType"`
}

// try calls EC2 with parameters in pairs, and reports how the call ended.
func (w wire) try(action string, pairs ...string) (answer, error) {
	w.t.Helper()
	form := url.Values{"Action": {action}, "Version": {"2016-11-15"}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	got, err := w.send(http.MethodPost, "/", "ec2",
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	a := answer{status: got.status, raw: string(got.body)}
	if err := xml.Unmarshal(got.body, &a); err != nil {
		w.t.Fatalf("%s: %v in %s", action, err, got.body)
	}
	return a, nil
}

// ec2 calls EC2, and the call must succeed.
func (w wire) ec2(action string, pairs ...string) answer {
	w.t.Helper()
	a, err := w.try(action, pairs...)
	if err != nil {
		w.t.Fatal(err)
	}
	if a.status != http.StatusOK || a.Code != "" || a.XMLName.Local != action+"Response" || a.RequestID == "" {
		w.t.Fatalf("%s %v: %d %s", action, pairs, a.status, a.raw)
	}
	return a
}

// refuses calls EC2, and the call must fail with the code and status.
func (w wire) refuses(status int, code, action string, pairs ...string) answer {
	w.t.Helper()
	a, err := w.try(action, pairs...)
	if err != nil {
		w.t.Fatal(err)
	}
	if a.status != status || a.Code != code || a.Message == "" || a.Failed == "" || a.XMLName.Local != "Response" {
		w.t.Fatalf("%s %v: want %d %s, got %d %s", action, pairs, status, code, a.status, a.raw)
	}
	return a
}

// machine makes an instance with two volumes of 1 GiB beside its boot volume.
func machine(t *testing.T, s *ebstest.Server) (i control.Instance, data, log control.Volume) {
	t.Helper()
	i, err := s.PutInstance(control.Instance{ID: "i-0123456789abcdef0", Zone: "us-east-1a", RootGiB: 8})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*control.Volume{&data, &log} {
		if *v, err = s.CreateVolume(control.Volume{Zone: "us-east-1a", SizeGiB: 1, Tags: map[string]string{"own": "yes"}}); err != nil {
			t.Fatal(err)
		}
		if *v, err = s.Attach(v.ID, i.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	return i, data, log
}

// clock is a clock that tests set.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time { return time.Unix(0, c.at.Load()) }

func (c *clock) pass(d time.Duration) { c.at.Add(int64(d)) }

// write writes into a volume's image, as a mounted file system would.
func write(t *testing.T, path string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// read reads from an image.
func read(t *testing.T, path string, at int64, length int) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data := make([]byte, length)
	if _, err := f.ReadAt(data, at); err != nil {
		t.Fatal(err)
	}
	return data
}

func values(tags []tag) string {
	var all []string
	for _, t := range tags {
		all = append(all, t.Key+"="+t.Value)
	}
	return strings.Join(all, " ")
}
