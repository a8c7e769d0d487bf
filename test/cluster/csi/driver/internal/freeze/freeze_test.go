package freeze

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"keepset/test/cluster/csi/driver/internal/disk"
	"keepset/test/cluster/csi/driver/internal/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Both volumes stand still between freeze and thaw; one that is not attached
// here is left out.
func TestFreezeAndThaw(t *testing.T) {
	f, points := freezer(t, time.Minute, "vol-1", "vol-2")
	if code := post(t, f, "freeze", "vol-2", "vol-1", "vol-elsewhere"); code != http.StatusOK {
		t.Fatalf("freeze: %d", code)
	}
	for _, point := range points {
		if !isFrozen(t, point) {
			t.Errorf("%s is not frozen", point)
		}
	}
	if code := post(t, f, "thaw", "vol-1", "vol-2", "vol-elsewhere"); code != http.StatusOK {
		t.Fatalf("thaw: %d", code)
	}
	for _, point := range points {
		if isFrozen(t, point) {
			t.Errorf("%s is still frozen", point)
		}
	}
	if code := post(t, f, "thaw", "vol-1"); code != http.StatusOK {
		t.Errorf("thaw what is not frozen: %d", code)
	}
	if code := post(t, f, "melt", "vol-1"); code != http.StatusBadRequest {
		t.Errorf("an unknown operation: %d", code)
	}
}

// A volume in two cuts stands still until both are over.
func TestCutsOverlap(t *testing.T) {
	f, points := freezer(t, time.Minute, "vol-1", "vol-2")
	for _, volumes := range [][]string{{"vol-1", "vol-2"}, {"vol-2"}, {"vol-2"}} {
		if code := post(t, f, "freeze", volumes...); code != http.StatusOK {
			t.Fatalf("freeze %v: %d", volumes, code)
		}
	}
	for _, c := range []struct {
		thaw          []string
		first, second bool
	}{{[]string{"vol-2"}, true, true}, {[]string{"vol-1", "vol-2"}, false, true}, {[]string{"vol-2"}, false, false}} {
		if code := post(t, f, "thaw", c.thaw...); code != http.StatusOK {
			t.Fatalf("thaw %v: %d", c.thaw, code)
		}
		if first, second := isFrozen(t, points[0]), isFrozen(t, points[1]); first != c.first || second != c.second {
			t.Errorf("after the thaw of %v: frozen %t and %t, want %t and %t", c.thaw, first, second, c.first, c.second)
		}
	}
}

// One that cannot be frozen fails the cut, and leaves none frozen.
func TestFailedFreeze(t *testing.T) {
	f, points := freezer(t, time.Minute, "vol-1", "vol-2")
	thaw, err := disk.Freeze(points[1] + ".img") // somebody else's
	if err != nil {
		t.Fatal(err)
	}
	if code := post(t, f, "freeze", "vol-1", "vol-2"); code != http.StatusInternalServerError {
		t.Errorf("freeze: %d", code)
	}
	if isFrozen(t, points[0]) {
		t.Error("the first volume is still frozen")
	}
	if err := thaw(); err != nil {
		t.Fatal(err)
	}
}

// A fake that is killed between freeze and thaw leaves no volume frozen.
func TestForgottenFreezeEnds(t *testing.T) {
	f, points := freezer(t, 50*time.Millisecond, "vol-1")
	if code := post(t, f, "freeze", "vol-1"); code != http.StatusOK {
		t.Fatalf("freeze: %d", code)
	}
	if err := os.WriteFile(filepath.Join(points[0], "f"), nil, 0o600); err != nil { // waits until it is thawed
		t.Error(err)
	}
}

func TestCloseThaws(t *testing.T) {
	f, points := freezer(t, time.Minute, "vol-1")
	if code := post(t, f, "freeze", "vol-1"); code != http.StatusOK {
		t.Fatalf("freeze: %d", code)
	}
	if !isFrozen(t, points[0]) {
		t.Error("it is not frozen")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if isFrozen(t, points[0]) {
		t.Error("it is still frozen")
	}
}

// freezer returns one with mounted volumes.
func freezer(t *testing.T, limit time.Duration, ids ...string) (f *Freezer, points []string) {
	t.Helper()
	dir := t.TempDir()
	for _, id := range ids {
		point, image := filepath.Join(dir, id), filepath.Join(dir, id+".img")
		if err := os.Mkdir(point, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := disk.CreateImage(image, 64<<20); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			// A frozen file system that is unmounted stays, and hangs whoever removes its directory.
			_ = exec.Command("fsfreeze", "--unfreeze", point).Run() //nolint:noctx // it fails where nothing is frozen
			if err := disk.Unmount(point); err != nil {
				t.Error(err)
			}
		})
		if err := disk.MountImage(t.Context(), image, point, nil); err != nil {
			t.Fatalf("mount an image, which needs root and the packages e2fsprogs and mount: %v", err)
		}
		points = append(points, point)
	}
	f = &Freezer{Limit: limit, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Image: func(_ context.Context, id string) (string, error) {
		image := filepath.Join(dir, id+".img")
		if _, err := os.Stat(image); err != nil {
			return "", fmt.Errorf("volume %s: %w", id, volume.ErrNotFound)
		}
		return image, nil
	}}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f, points
}

func post(t *testing.T, f *Freezer, operation string, volumes ...string) int {
	t.Helper()
	body := fmt.Sprintf(`{"operation": %q, "volumes": ["%s"]}`, operation, strings.Join(volumes, `", "`))
	reply := httptest.NewRecorder()
	f.ServeHTTP(reply, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body)))
	return reply.Code
}

// isFrozen tells whether the volume that is mounted there is frozen: it cannot
// be frozen again then.
func isFrozen(t *testing.T, point string) bool {
	t.Helper()
	thaw, err := disk.Freeze(point + ".img")
	if err != nil {
		return true
	}
	if err := thaw(); err != nil {
		t.Error(err)
	}
	return false
}
