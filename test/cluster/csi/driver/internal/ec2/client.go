package ec2

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"keepset/test/cluster/csi/driver/internal/volume"
)

// client speaks to the fake: JSON with its control interface, under /control/,
// and EC2's own query protocol for what only that can do.
type client struct {
	base   string // URL of the fake
	region string
	http   *http.Client
}

func newClient(base, region string) client {
	// Not http.DefaultTransport: a proxy of the environment must not be asked.
	return client{base: strings.TrimSuffix(base, "/"), region: region, http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// fault is an error of AWS's: a code, and a message for people.
type fault struct {
	Code    string `json:"code"    xml:"Errors>Error>Code"`
	Message string `json:"message" xml:"Errors>Error>Message"`
}

// Error is "code: message".
func (f *fault) Error() string { return f.Code + ": " + f.Message }

// Unwrap gives AWS's codes the meaning that the driver knows; see
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
func (f *fault) Unwrap() error {
	switch {
	case strings.HasSuffix(f.Code, ".NotFound"):
		return volume.ErrNotFound
	case f.Code == "IdempotentParameterMismatch":
		return volume.ErrExists
	case f.Code == "VolumeInUse", f.Code == "IncorrectState", f.Code == "InvalidVolume.ZoneMismatch":
		return volume.ErrInUse
	case strings.HasSuffix(f.Code, "LimitExceeded"), strings.HasSuffix(f.Code, "RateExceeded"):
		return volume.ErrLimit
	case strings.HasPrefix(f.Code, "InvalidParameter"), f.Code == "MissingParameter", f.Code == "UnknownVolumeType":
		return volume.ErrInvalid
	}
	return nil
}

// control makes one request of the control interface.
func (c client) control(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/control/"+path, body)
	if err != nil {
		return err
	}
	data, failed, err := c.do(req)
	if err != nil {
		return fmt.Errorf("fake ec2: %s %s: %w", method, path, err)
	}
	if failed {
		var f fault
		if err := json.Unmarshal(data, &f); err != nil || f.Code == "" {
			return fmt.Errorf("fake ec2: %s %s: %s", method, path, data)
		}
		return fmt.Errorf("fake ec2: %s %s: %w", method, path, &f)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("fake ec2: %s %s: decode reply: %w", method, path, err)
	}
	return nil
}

// AccessKey is whose calls the fake sees ours as; see [client.query].
const AccessKey = "AKIACSIDRIVER0000000"

// query makes one request of EC2's query protocol. The fake reads account and
// region from the scope of the signature, and does not verify that.
func (c client) query(ctx context.Context, parameters url.Values, out any) error {
	action := parameters.Get("Action")
	parameters.Set("Version", "2016-11-15")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/", strings.NewReader(parameters.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+AccessKey+"/20260101/"+c.region+"/ec2/aws4_request, SignedHeaders=host, Signature=00")
	data, failed, err := c.do(req)
	if err != nil {
		return fmt.Errorf("fake ec2: %s: %w", action, err)
	}
	if failed {
		var f fault
		if err := xml.Unmarshal(data, &f); err != nil || f.Code == "" {
			return fmt.Errorf("fake ec2: %s: %s", action, data)
		}
		return fmt.Errorf("fake ec2: %s: %w", action, &f)
	}
	if err := xml.Unmarshal(data, out); err != nil {
		return fmt.Errorf("fake ec2: %s: decode reply: %w", action, err)
	}
	return nil
}

func (c client) do(req *http.Request) (body []byte, failed bool, err error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, false, err
	}
	body, err = io.ReadAll(resp.Body)
	return body, resp.StatusCode >= http.StatusBadRequest, errors.Join(err, resp.Body.Close())
}

// poll is how often the driver looks at what is not done yet.
const poll = 100 * time.Millisecond
