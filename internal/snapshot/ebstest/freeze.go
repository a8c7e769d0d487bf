package ebstest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"keepset/internal/snapshot/ebstest/control"
)

// freezeTime bounds one request to the freezer.
const freezeTime = 10 * time.Second

// freeze asks whoever mounts the volumes to hold still: Options.Freeze, and the
// freezer that was registered at the control interface. What it returns undoes
// it, and must be called.
func (s *Server) freeze(ctx context.Context, volumes []string) (thaw func() error, err error) {
	ours := func() {}
	if s.options.Freeze != nil {
		if ours, err = s.options.Freeze(ctx, volumes); err != nil {
			return nil, fmt.Errorf("fake ec2: freeze %v: %w", volumes, err)
		}
	}
	s.mu.Lock()
	url := s.state.Freezer
	s.mu.Unlock()
	thaw = func() error {
		defer ours()
		if url == "" {
			return nil
		}
		return post(ctx, url, control.Freezing{Operation: "thaw", Volumes: volumes})
	}
	if url != "" {
		if err := post(ctx, url, control.Freezing{Operation: "freeze", Volumes: volumes}); err != nil {
			return nil, errors.Join(err, thaw())
		}
	}
	return thaw, nil
}

// post asks the freezer for one operation.
func post(ctx context.Context, url string, f control.Freezing) error {
	ctx, cancel := context.WithTimeout(ctx, freezeTime)
	defer cancel()
	body, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("fake ec2: %s: %w", f.Operation, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("fake ec2: freezer: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fake ec2: %s %v: %w", f.Operation, f.Volumes, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // for the message only
		return fmt.Errorf("fake ec2: %s %v: the freezer answered %s: %s", f.Operation, f.Volumes, resp.Status, answer)
	}
	return nil
}
