package servers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// This file: what anybody with an account can send to an S3 server, and who may do what.

// S3Request is a request of one account. It needs no client of ours, so that
// it can ask for what ours never does.
type S3Request struct {
	Access, Secret string
	Method         string
	// Path is that of the URL, /bucket/key, and Query what follows it.
	Path, Query string
	Header      map[string]string
	Body        string
}

// S3Answer is what the server answered.
type S3Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Root is a request of the owner of everything.
func (s *S3Server) Root(method, path, query, body string) S3Request {
	return S3Request{Access: s.AccessKey, Secret: s.SecretKey, Method: method, Path: path, Query: query, Body: body}
}

// Send is Ask for tests.
func (s *S3Server) Send(t testing.TB, q S3Request) S3Answer {
	t.Helper()
	answer, err := s.Ask(t.Context(), q)
	if err != nil {
		t.Fatalf("send %s %s to the S3 server: %v", q.Method, q.Path, err)
	}
	return answer
}

// Ask signs a request and sends it. What the server refuses is an answer too. Of the server it takes the endpoint and the region.
func (s *S3Server) Ask(ctx context.Context, q S3Request) (S3Answer, error) {
	target := s.Endpoint + q.Path
	if q.Query != "" {
		target += "?" + q.Query
	}
	request, err := http.NewRequestWithContext(ctx, q.Method, target, strings.NewReader(q.Body))
	if err != nil {
		return S3Answer{}, err
	}
	sum := sha256.Sum256([]byte(q.Body))
	hash := hex.EncodeToString(sum[:])
	request.Header.Set("X-Amz-Content-Sha256", hash)
	if q.Body != "" {
		request.Header.Set("X-Amz-Checksum-Sha256", base64.StdEncoding.EncodeToString(sum[:]))
	}
	for name, value := range q.Header {
		request.Header.Set(name, value)
	}
	who := aws.Credentials{AccessKeyID: q.Access, SecretAccessKey: q.Secret}
	// A signature is valid by the machine's own clock.
	if err := v4.NewSigner().SignHTTP(ctx, who, request, hash, "s3", s.Region, time.Now()); err != nil {
		return S3Answer{}, err
	}
	client := s.client
	if client == nil {
		// A connection that somebody else took, while a Service was not there yet, is not used again.
		client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	}
	response, err := client.Do(request)
	if err != nil {
		return S3Answer{}, err
	}
	body, err := io.ReadAll(response.Body)
	if err == nil {
		err = response.Body.Close()
	}
	return S3Answer{response.StatusCode, response.Header, string(body)}, err
}

// Must is Send, for what has to succeed.
func (s *S3Server) Must(t testing.TB, q S3Request) S3Answer {
	t.Helper()
	answer := s.Send(t, q)
	if answer.Status >= http.StatusMultipleChoices {
		t.Fatalf("%s %s?%s: the S3 server answered %d: %s", q.Method, q.Path, q.Query, answer.Status, answer.Body)
	}
	return answer
}

// Account makes an account as [WithAccount] does, on a server that somebody else has started: its endpoint, keys and region
// are all that has to be known.
func (s *S3Server) Account(t testing.TB, access, secret, role string) {
	t.Helper()
	if err := s.admin(t.Context(), "create-user", "--access", access, "--secret", secret, "--role", role); err != nil {
		t.Fatal(err)
	}
}

// LockedBucket makes a bucket with Object Lock, and so with versions.
func (s *S3Server) LockedBucket(t testing.TB, bucket string) {
	t.Helper()
	q := s.Root(http.MethodPut, "/"+bucket, "", "")
	q.Header = map[string]string{"X-Amz-Bucket-Object-Lock-Enabled": "true"}
	s.Must(t, q)
}

// VersionBucket lets a bucket keep versions; the server has to be started WithVersioning.
func (s *S3Server) VersionBucket(t testing.TB, bucket string) {
	t.Helper()
	s.Must(t, s.Root(http.MethodPut, "/"+bucket, "versioning",
		`<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>`))
}

// statement of a policy; what is not looked at stays as it is.
type statement struct {
	Sid       string
	Effect    string
	Principal map[string][]string
	Action    json.RawMessage
	Resource  json.RawMessage
	Condition json.RawMessage `json:",omitempty"`
}

// unknown are the conditions that versitygw 1.8.0 knows nothing of: a policy that has one is refused as a whole.
var unknown = []string{"s3:if-none-match", "s3:object-lock-remaining-retention-days"}

// Grant gives accounts the rights of policy files, for a bucket and a prefix, in one policy of the bucket. It
// returns the names of the statements that this server cannot enforce, and that are left out.
func (s *S3Server) Grant(t testing.TB, bucket, prefix string, files map[string]string) (notEnforced []string) {
	t.Helper()
	all := struct {
		Version   string
		Statement []statement
	}{Version: "2012-10-17"}
	for account, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("BUCKET"), []byte(bucket)), []byte("PREFIX"), []byte(prefix))
		one := all
		one.Statement = nil
		if err := json.Unmarshal(text, &one); err != nil {
			t.Fatalf("read policy %s: %v", file, err)
		}
		for _, st := range one.Statement {
			if conditioned(st, unknown) {
				notEnforced = append(notEnforced, st.Sid)
				continue
			}
			st.Sid = account + st.Sid
			st.Principal = map[string][]string{"AWS": {account}}
			all.Statement = append(all.Statement, st)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	s.Must(t, s.Root(http.MethodPut, "/"+bucket, "policy", string(text)))
	slices.Sort(notEnforced)
	return slices.Compact(notEnforced)
}

func conditioned(st statement, keys []string) bool {
	for _, key := range keys {
		if bytes.Contains(st.Condition, fmt.Appendf(nil, "%q", key)) {
			return true
		}
	}
	return false
}
