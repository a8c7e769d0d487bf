package ebstest_test

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"keepset/internal/snapshot/ebstest"
)

// assume asks for a role's credentials with a token that has these claims.
func (w wire) assume(arn, jwt string) (got struct {
	status int
	Key    string `xml:"AssumeRoleWithWebIdentityResult>Credentials>AccessKeyId"`
	Arn    string `xml:"AssumeRoleWithWebIdentityResult>AssumedRoleUser>Arn"`
	Code   string `xml:"Error>Code"`
},
) {
	w.t.Helper()
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {arn}, "RoleSessionName": {"s"},
		"WebIdentityToken": {jwt},
	}
	answer, err := w.send(http.MethodPost, "/", "none", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := xml.Unmarshal(answer.body, &got); err != nil {
		w.t.Fatal(err)
	}
	got.status = answer.status
	return got
}

func TestRoleOfAServiceAccount(t *testing.T) {
	c := newClock()
	s, w := start(t, ebstest.Options{Clock: c.now, Strict: true})
	const arn = "arn:aws:iam::444455556666:role/keepset-backup"
	token := func(audience string, expires int64) string {
		claims := fmt.Sprintf(`{"aud":%s,"exp":%d,"sub":"system:serviceaccount:shop:backup"}`, audience, expires)
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".sig"
	}
	later := c.now().Unix() + 60
	pod := w
	pod.key = ebstest.RoleKey(arn)
	pod.refuses(401, "AuthFailure", "DescribeVolumes")
	for code, jwt := range map[string]string{
		"InvalidIdentityToken":  token(`["https://kubernetes.default.svc"]`, later),
		"ExpiredTokenException": token(`["sts.amazonaws.com"]`, later-60),
	} {
		if got := w.assume(arn, jwt); got.status != 400 || got.Code != code {
			t.Errorf("want %s, got %+v", code, got)
		}
	}
	if got := w.assume(arn, "no token"); got.Code != "InvalidIdentityToken" {
		t.Errorf("got %+v", got)
	}
	if got := w.assume("keepset-backup", token(`"sts.amazonaws.com"`, later)); got.Code != "ValidationError" {
		t.Errorf("got %+v", got)
	}
	got := w.assume(arn, token(`["sts.amazonaws.com"]`, later))
	if got.status != 200 || got.Key != pod.key || got.Arn != "arn:aws:sts::444455556666:assumed-role/keepset-backup/s" {
		t.Fatalf("got %+v", got)
	}
	made := pod.ec2("CreateVolume", "AvailabilityZone", "us-east-1a", "Size", "1").VolumeID
	if v, err := s.Volume(made); err != nil || v.Account != "444455556666" {
		t.Errorf("made in the account of %+v, %v", v, err)
	}
	s.Allow(pod.key, "ec2:DescribeVolumes")
	if again := w.assume(arn, token(`"sts.amazonaws.com"`, later)); again.Key != pod.key {
		t.Errorf("got %+v", again)
	}
	pod.refuses(403, "UnauthorizedOperation", "DeleteVolume", "VolumeId", made)
}
