package disk

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// A copy has the same bytes and the same holes.
func TestCopyKeepsHoles(t *testing.T) {
	src, dst := filepath.Join(t.TempDir(), "src"), filepath.Join(t.TempDir(), "dst")
	if err := CreateImage(src, 32*mib); err != nil {
		t.Fatal(err)
	}
	writeAt(t, src, "begin", 0)
	writeAt(t, src, "middle", 20*mib+123)
	if err := CopyImage(src, dst); err != nil {
		t.Fatal(err)
	}
	want, got := readAll(t, src), readAll(t, dst)
	if !bytes.Equal(want, got) {
		t.Fatal("the copy has other bytes")
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dst, &st); err != nil || st.Blocks*512 > mib {
		t.Errorf("the copy takes %d bytes (%v)", st.Blocks*512, err)
	}
	writeAt(t, src, "later", 0)
	if readAll(t, dst)[0] != 'b' {
		t.Error("a later write is in the copy")
	}
}

func TestImageDoesNotShrink(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image")
	for _, size := range []int64{2 * mib, mib, 3 * mib} {
		if err := CreateImage(file, size); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Size() != 3*mib {
		t.Fatalf("got %v (%v)", info, err)
	}
	if err := CreateImage(file, mib); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() != 3*mib {
		t.Fatalf("it shrank: %v (%v)", info, err)
	}
}

// What was written before a freeze is in a copy that is made meanwhile, and a
// larger copy comes with a larger file system. Nothing is left of the mounts.
func TestFrozenVolumeIsCopied(t *testing.T) {
	image, point := mounted(t, "a volume", 64*mib)
	if err := os.WriteFile(filepath.Join(point, "row"), []byte("42"), 0o600); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "copy")
	thaw, err := Freeze(image)
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(filepath.Join(point, "later"), []byte("43"), 0o600) }()
	if err := CopyImage(image, dst); err != nil {
		t.Error(err)
	}
	select {
	case err := <-written:
		t.Errorf("the frozen file system took a write (%v)", err)
	default:
	}
	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if err := CreateImage(dst, 192*mib); err != nil {
		t.Fatal(err)
	}
	restored := mountAt(t, dst)
	if got, err := os.ReadFile(filepath.Join(restored, "row")); err != nil || string(got) != "42" {
		t.Errorf("the row is %q (%v)", got, err)
	}
	if _, err := os.Stat(filepath.Join(restored, "later")); !os.IsNotExist(err) {
		t.Errorf("the later write is in the copy (%v)", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(restored, &st); err != nil || int64(st.Blocks)*st.Bsize < 150*mib {
		t.Errorf("the file system was not grown: %d bytes (%v)", int64(st.Blocks)*st.Bsize, err)
	}
}

// A failure to freeze one thaws the others.
func TestFreezeIsAllOrNothing(t *testing.T) {
	first, point := mounted(t, "one", 64*mib)
	second, _ := mounted(t, "two", 64*mib)
	thaw, err := Freeze(second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Freeze(first, second); err == nil {
		t.Error("a frozen file system was frozen again")
	}
	if err := os.WriteFile(filepath.Join(point, "f"), nil, 0o600); err != nil { // hangs if it is frozen
		t.Error(err)
	}
	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	if thaw, err := Freeze(filepath.Join(t.TempDir(), "never mounted")); err != nil || thaw() != nil {
		t.Errorf("an image that is not mounted: %v", err)
	}
}

func TestRawDevice(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := CreateImage(image, 16*mib); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detach(t, image) })
	device, err := AttachLoop(t.Context(), image)
	if err != nil {
		t.Fatalf("a loop device, which needs root: %v", err)
	}
	if again, err := AttachLoop(t.Context(), image); err != nil || again != device {
		t.Errorf("it is shown twice, as %s and %s (%v)", device, again, err)
	}
	target := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Bind(device, target, false); err != nil {
		t.Fatal(err)
	}
	writeAt(t, target, "raw", 0)
	if err := RemovePoint(target); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, image)[:3]; string(got) != "raw" {
		t.Errorf("the image holds %q", got)
	}
	if err := DetachLoops(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	if loops, err := Loops(image); err != nil || len(loops) > 0 {
		t.Errorf("left: %v (%v)", loops, err)
	}
}

// mounted returns a new image and where it is mounted.
func mounted(t *testing.T, name string, size int64) (image, point string) {
	t.Helper()
	image = filepath.Join(t.TempDir(), name)
	if err := CreateImage(image, size); err != nil {
		t.Fatal(err)
	}
	return image, mountAt(t, image)
}

func mountAt(t *testing.T, image string) string {
	t.Helper()
	point := t.TempDir()
	t.Cleanup(func() {
		if err := Unmount(point); err != nil {
			t.Error(err)
		}
		detach(t, image)
	})
	if err := MountImage(t.Context(), image, point, []string{"noatime"}); err != nil {
		t.Fatalf("mount an image, which needs root and the packages e2fsprogs and mount: %v", err)
	}
	if err := MountImage(t.Context(), image, point, nil); err != nil {
		t.Fatalf("mount it again: %v", err)
	}
	return point
}

func detach(t *testing.T, image string) {
	t.Helper()
	if err := DetachLoops(context.WithoutCancel(t.Context()), image); err != nil {
		t.Error(err)
	}
}

func writeAt(t *testing.T, file, text string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(text), offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
