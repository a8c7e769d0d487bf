package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{{nil, 64}, {[]string{"nonsense"}, 64}} {
		var stderr bytes.Buffer
		if got := report(&stderr, run(t.Context(), c.args, io.Discard, &stderr)); got != c.want {
			t.Errorf("cluster %v ends with %d, want %d", c.args, got, c.want)
		}
		if !strings.Contains(stderr.String(), "usage: cluster") {
			t.Errorf("cluster %v does not say how to use it: %s", c.args, stderr.String())
		}
	}
	if got := report(io.Discard, errors.New("broken")); got != 1 {
		t.Errorf("a failure ends with %d, want 1", got)
	}
	if got := report(io.Discard, nil); got != 0 {
		t.Errorf("success ends with %d", got)
	}
}

func TestSourceIsFoundFromAnywhereInTheCheckout(t *testing.T) {
	want, err := findSource()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{want, filepath.Join(want, "internal", "node"), filepath.Join(want, "..", ".."), filepath.Join(want, "..")} {
		t.Chdir(dir)
		if got, err := findSource(); err != nil || got != want {
			t.Errorf("from %s: got %s (%v), want %s", dir, got, err, want)
		}
	}
	t.Chdir(os.TempDir())
	if got, err := findSource(); err == nil {
		t.Errorf("found %s from outside", got)
	}
}
