package statefulset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// Custom names an object of another operator's that manages a set.
type Custom struct {
	Group, Version, Resource, Name string
}

func (o Custom) String() string { return o.Resource + "." + o.Group + "/" + o.Name }

// Read reads the object.
func (c *Client) Read(ctx context.Context, o Custom) (*unstructured.Unstructured, error) {
	// The client of the core group serves every path, so that no other is needed.
	body, err := c.kube.CoreV1().RESTClient().Get().AbsPath(c.path(o)).DoRaw(ctx)
	if err != nil {
		return nil, explain(err, "read "+o.String())
	}
	object := &unstructured.Unstructured{}
	if err := json.Unmarshal(body, &object.Object); err != nil {
		return nil, fmt.Errorf("read %s: %w", o, err)
	}
	return object, nil
}

// Merge applies a JSON merge patch to the object.
func (c *Client) Merge(ctx context.Context, o Custom, patch map[string]any) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("patch %s: %w", o, err)
	}
	_, err = c.kube.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(c.path(o)).Body(body).DoRaw(ctx)
	return explain(err, "patch "+o.String())
}

// Await looks at the object until done. reason is what is waited for, and what
// the object said last; it is in the error when the time is up.
func (c *Client) Await(ctx context.Context, o Custom, timeout time.Duration, done func(*unstructured.Unstructured) (ok bool, reason string, err error)) error {
	var last string
	err := c.until(ctx, timeout, func(ctx context.Context) (bool, error) {
		object, err := c.Read(ctx, o)
		if err != nil {
			return false, err
		}
		ok, reason, err := done(object)
		last = reason
		return ok, err
	})
	if errors.Is(err, errLate) {
		return describeTimeout(err, timeout, fmt.Sprintf("%s: %s", o, last))
	}
	return err
}

func (c *Client) path(o Custom) string {
	return fmt.Sprintf("/apis/%s/%s/namespaces/%s/%s/%s", o.Group, o.Version, c.namespace, o.Resource, o.Name)
}
