package mounts

import (
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
)

func TestParse(t *testing.T) {
	got, err := parse(`22 28 0:20 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt/with\040blank rw,noatime master:1 shared:2 - ext3 /dev/root rw
`)
	want := []Mount{{"/proc", "proc", "proc"}, {"/mnt/with blank", "ext3", "/dev/root"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v (%v), want %v", got, err, want)
	}
	if _, err := parse("not a mount\n"); err == nil {
		t.Fatal("a line without type was accepted")
	}
}

// Only what lies below goes; the neighbour whose name begins alike stays.
func TestUnmountBelow(t *testing.T) {
	dir := t.TempDir()
	inner, neighbour := filepath.Join(dir, "a", "b"), filepath.Join(dir, "ab")
	for _, d := range []string{inner, neighbour} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", d, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatalf("mount a tmpfs, which needs root: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(d, syscall.MNT_DETACH) })
	}
	if err := UnmountBelow(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, m := range all {
		left[m.Point] = true
	}
	if left[inner] || !left[neighbour] {
		t.Fatalf("inner still mounted: %v, neighbour still mounted: %v", left[inner], left[neighbour])
	}
}
