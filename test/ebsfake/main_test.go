package main

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"keepset/internal/snapshot/ebstest/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs the program until its end is asked for.
func serve(t *testing.T, args ...string) (c *control.Client, end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, args, w, io.Discard) }()
	address, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		cancel()
		t.Fatal(err, <-done)
	}
	return control.New(strings.TrimSpace(address)), func() error {
		cancel()
		return <-done
	}
}

func TestProgramKeepsItsState(t *testing.T) {
	args := []string{"--dir", t.TempDir(), "--region", "eu-west-1", "--zones", "eu-west-1a,eu-west-1b", "--other-region", "us-east-1=us-east-1a"}
	c, end := serve(t, args...)
	v, err := c.CreateVolume(t.Context(), control.Volume{Zone: "eu-west-1b", SizeGiB: 1})
	if err != nil || v.Region != "eu-west-1" {
		t.Fatal(v, err)
	}
	if _, err := c.CreateVolume(t.Context(), control.Volume{Zone: "eu-west-1c", SizeGiB: 1}); err == nil {
		t.Error("a zone that is not there")
	}
	there := control.Volume{Place: control.Place{Region: "us-east-1"}, Zone: "us-east-1a", SizeGiB: 1}
	if _, err := c.CreateVolume(t.Context(), there); err != nil {
		t.Error(err)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	c, end = serve(t, args...)
	if again, err := c.Volume(t.Context(), v.ID); err != nil || again.Path != v.Path {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestProgramRefuses(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"--dir", t.TempDir(), "more"},
		{"--dir", t.TempDir(), "--account", "k"},
		{"--dir", t.TempDir(), "--other-region", "r"},
		{"--dir", t.TempDir(), "--listen", "nowhere:port"},
		{"--colour"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
}
