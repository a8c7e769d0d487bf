package toolchain

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestKeepNewest(t *testing.T) {
	cache := t.TempDir()
	for i, name := range []string{"coredns-1111", "coredns-3333", "coredns-2222", "coredns-v1.0.0", "pause-1111"} {
		dir := filepath.Join(cache, name)
		if err := os.MkdirAll(filepath.Join(dir, "inner"), 0o755); err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 11, 20, i, 0, 0, 0, time.UTC)
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := keepNewest(filepath.Join(cache, "coredns-????")); err != nil {
			t.Fatal(err)
		}
		left, err := filepath.Glob(filepath.Join(cache, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range left {
			left[i] = filepath.Base(left[i])
		}
		if want := []string{"coredns-2222", "coredns-3333", "coredns-v1.0.0", "pause-1111"}; !slices.Equal(left, want) {
			t.Fatalf("left %v, want %v", left, want)
		}
	}
}
