// Package freeze lets the fake EC2 hold the file systems of volumes still while
// it copies them, so that snapshots of several volumes show one point in time.
// A [Freezer] is an http.Handler.
//
// The fake posts {"operation": "freeze", "volumes": [...]} before a cut, and
// the same with "thaw" after it. A freeze that is not thawed within the limit,
// because the fake was killed in between, is thawed by itself: processes that
// wait for a frozen file system cannot even be killed. Cuts may overlap: a
// volume is frozen until the last of them is over.
package freeze

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"keepset/test/cluster/csi/driver/internal/disk"
	"keepset/test/cluster/csi/driver/internal/volume"
)

// Freezer freezes and thaws.
type Freezer struct {
	// Image returns the image file of a volume, and [volume.ErrNotFound] for
	// one that there is not, which is left out.
	Image func(ctx context.Context, id string) (string, error)
	// Limit is the longest that a file system is frozen.
	Limit time.Duration
	Log   *slog.Logger

	mu   sync.Mutex
	cuts []*cut          // that have not been thawed yet
	held map[string]held // by image
}

// cut is one freeze that waits for its thaw.
type cut struct {
	volumes string // IDs in order, with blanks between
	images  []string
	timer   *time.Timer
	since   time.Time
}

// held is an image that is frozen, by that many cuts.
type held struct {
	cuts int
	thaw func() error
}

// request is what is posted.
type request struct {
	Operation string   `json:"operation"`
	Volumes   []string `json:"volumes"`
}

// ServeHTTP freezes or thaws.
func (f *Freezer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var asked request
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	slices.Sort(asked.Volumes)
	key := strings.Join(asked.Volumes, " ")
	var err error
	switch asked.Operation {
	case "freeze":
		err = f.freeze(r.Context(), key, asked.Volumes)
	case "thaw":
		err = f.thaw(key)
	default:
		http.Error(w, fmt.Sprintf("no operation %q: freeze or thaw", asked.Operation), http.StatusBadRequest)
		return
	}
	if err != nil {
		f.Log.Error(asked.Operation, "volumes", key, "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (f *Freezer) freeze(ctx context.Context, key string, volumes []string) error {
	var images []string
	for _, id := range volumes {
		image, err := f.Image(ctx, id)
		switch {
		case err == nil:
			images = append(images, image)
		case !errors.Is(err, volume.ErrNotFound):
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &cut{volumes: key, since: time.Now()}
	for _, image := range images {
		if err := f.hold(image); err != nil {
			return errors.Join(err, f.end(c))
		}
		c.images = append(c.images, image)
	}
	c.timer = time.AfterFunc(f.Limit, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if slices.Contains(f.cuts, c) {
			f.Log.Error("nobody thawed the volumes in time", "volumes", key, "limit", f.Limit, "error", f.end(c))
		}
	})
	f.cuts = append(f.cuts, c)
	return nil
}

// hold freezes an image for one more cut. The caller holds f.mu.
func (f *Freezer) hold(image string) error {
	if f.held == nil {
		f.held = map[string]held{}
	}
	h, frozen := f.held[image]
	if !frozen {
		thaw, err := disk.Freeze(image)
		if err != nil {
			return err
		}
		h.thaw = thaw
	}
	h.cuts++
	f.held[image] = h
	return nil
}

// end ends a cut and thaws what no other holds. The caller holds f.mu.
func (f *Freezer) end(c *cut) error {
	if c.timer != nil {
		c.timer.Stop()
	}
	f.cuts = slices.DeleteFunc(f.cuts, func(other *cut) bool { return other == c })
	var errs []error
	for _, image := range c.images {
		h := f.held[image]
		if h.cuts--; h.cuts > 0 {
			f.held[image] = h
			continue
		}
		delete(f.held, image)
		errs = append(errs, h.thaw())
	}
	f.Log.Info("was frozen", "volumes", c.volumes, "for", time.Since(c.since))
	return errors.Join(errs...)
}

// thaw ends the oldest cut of those volumes; none is success.
func (f *Freezer) thaw(volumes string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.cuts, func(c *cut) bool { return c.volumes == volumes })
	if i < 0 {
		return nil
	}
	return f.end(f.cuts[i])
}

// Close thaws everything.
func (f *Freezer) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, c := range slices.Clone(f.cuts) {
		errs = append(errs, f.end(c))
	}
	return errors.Join(errs...)
}
