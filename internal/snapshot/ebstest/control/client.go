package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Client talks to one fake. It is safe for concurrent use.
type Client struct{ base string }

// New returns a client of the fake at an address, such as http://127.0.0.1:4566.
func New(address string) *Client {
	return &Client{base: strings.TrimSuffix(address, "/") + "/control/"}
}

// PutInstance makes an instance; one that exists stays as it is.
func (c *Client) PutInstance(ctx context.Context, i Instance) (Instance, error) {
	return call[Instance](ctx, c, http.MethodPut, "instances", i)
}

// DeleteInstance detaches an instance's volumes and forgets it.
func (c *Client) DeleteInstance(ctx context.Context, id string) error {
	return c.command(ctx, http.MethodDelete, "instances/"+url.PathEscape(id), nil)
}

// CreateVolume makes a volume; Zone and SizeGiB (or Snapshot) are needed. A
// ClientToken makes it idempotent.
func (c *Client) CreateVolume(ctx context.Context, v Volume) (Volume, error) {
	return call[Volume](ctx, c, http.MethodPost, "volumes", v)
}

// Volume describes a volume, the path of its image included.
func (c *Client) Volume(ctx context.Context, id string) (Volume, error) {
	return call[Volume](ctx, c, http.MethodGet, "volumes/"+url.PathEscape(id), nil)
}

// Volumes describes all volumes.
func (c *Client) Volumes(ctx context.Context) ([]Volume, error) {
	return call[[]Volume](ctx, c, http.MethodGet, "volumes", nil)
}

// DeleteVolume deletes a volume that is not attached.
func (c *Client) DeleteVolume(ctx context.Context, id string) error {
	return c.command(ctx, http.MethodDelete, "volumes/"+url.PathEscape(id), nil)
}

// Attach attaches a volume to an instance, to a free device when device is
// empty. One that is attached there already is no error.
func (c *Client) Attach(ctx context.Context, id, instance, device string) (Volume, error) {
	to := Volume{Instance: instance, Device: device}
	return call[Volume](ctx, c, http.MethodPost, "volumes/"+url.PathEscape(id)+"/attachment", to)
}

// Detach detaches a volume. One that is not attached is no error.
func (c *Client) Detach(ctx context.Context, id string) error {
	return c.command(ctx, http.MethodDelete, "volumes/"+url.PathEscape(id)+"/attachment", nil)
}

// Snapshots describes all snapshots.
func (c *Client) Snapshots(ctx context.Context) ([]Snapshot, error) {
	return call[[]Snapshot](ctx, c, http.MethodGet, "snapshots", nil)
}

// Set changes what becomes of a snapshot or volume.
func (c *Client) Set(ctx context.Context, id string, change Change) error {
	return c.command(ctx, http.MethodPost, "outcomes/"+url.PathEscape(id), change)
}

// Inject puts a rule to work and returns its ID. Before and After do not travel.
func (c *Client) Inject(ctx context.Context, r Rule) (string, error) {
	i, err := call[Injected](ctx, c, http.MethodPost, "rules", r)
	return i.ID, err
}

// Fired is in how many calls a rule has happened.
func (c *Client) Fired(ctx context.Context, rule string) (int, error) {
	i, err := call[Injected](ctx, c, http.MethodGet, "rules/"+url.PathEscape(rule), nil)
	return i.Fired, err
}

// Remove ends a rule and releases the replies that it holds.
func (c *Client) Remove(ctx context.Context, rule string) error {
	return c.command(ctx, http.MethodDelete, "rules/"+url.PathEscape(rule), nil)
}

// Calls is the log of the calls that the scope includes.
func (c *Client) Calls(ctx context.Context, s Scope) ([]Call, error) {
	return call[[]Call](ctx, c, http.MethodPost, "calls", s)
}

// DenyKey takes away the rights on a KMS key, or gives them back.
func (c *Client) DenyKey(ctx context.Context, key string, denied bool) error {
	return c.command(ctx, http.MethodPost, "keys", Key{Key: key, Denied: denied})
}

// Allow gives an access key rights, besides which it has none then.
func (c *Client) Allow(ctx context.Context, accessKey string, rights ...string) error {
	return c.command(ctx, http.MethodPost, "rights", Rights{AccessKey: accessKey, Rights: rights})
}

// SetFreezer names the URL that Freezing is posted to; empty: nobody.
func (c *Client) SetFreezer(ctx context.Context, address string) error {
	return c.command(ctx, http.MethodPut, "freezer", Freezer{URL: address})
}

func (c *Client) command(ctx context.Context, method, path string, in any) error {
	_, err := call[struct{}](ctx, c, method, path, in)
	return err
}

// call makes one request. An error of the fake is an *Error.
func call[Out any](ctx context.Context, c *Client, method, path string, in any) (out Out, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("fake ec2: %s %s: %w", method, path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return out, fmt.Errorf("fake ec2: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return out, fmt.Errorf("fake ec2: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return out, fmt.Errorf("fake ec2: %s %s: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		e := &Error{Status: resp.StatusCode}
		if json.Unmarshal(answer, e) != nil {
			e.Code, e.Message = resp.Status, string(answer)
		}
		return out, fmt.Errorf("fake ec2: %s %s: %w", method, path, e)
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		return out, fmt.Errorf("fake ec2: %s %s: %w", method, path, err)
	}
	return out, nil
}
