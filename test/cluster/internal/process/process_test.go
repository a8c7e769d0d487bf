package process

import (
	"os"
	"testing"
	"time"
)

func TestStartedProcessIsKnownAliveAndStopped(t *testing.T) {
	set := Set{Records: t.TempDir(), Logs: t.TempDir()}
	r, err := set.Start(Spec{Name: "sleeper", Path: "/bin/sh", Args: []string{"-c", "echo hello; exec sleep 100"}})
	if err != nil {
		t.Fatal(err)
	}
	awaitLog(t, set, "sleeper", "hello")
	if !r.Alive() {
		t.Fatal("the started process is reported dead")
	}
	all, err := set.All()
	if err != nil || len(all) != 1 || all[0] != r {
		t.Fatalf("recorded %v (%v), want %v", all, err, r)
	}
	if err := set.Stop(r, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if r.Alive() {
		t.Fatal("the stopped process is reported alive")
	}
	if all, err := set.All(); err != nil || len(all) != 0 {
		t.Fatalf("records after stop: %v (%v)", all, err)
	}
}

func TestStopResortsToKill(t *testing.T) {
	set := Set{Records: t.TempDir(), Logs: t.TempDir()}
	r, err := set.Start(Spec{Name: "deaf", Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"}})
	if err != nil {
		t.Fatal(err)
	}
	awaitLog(t, set, "deaf", "ready")
	if err := set.Stop(r, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if r.Alive() {
		t.Fatal("the process survived")
	}
}

// A record outlives a reboot; its PID then belongs to another process, which
// must be neither taken for ours nor stopped.
func TestForeignProcessIsNotOurs(t *testing.T) {
	set := Set{Records: t.TempDir(), Logs: t.TempDir()}
	self, err := identify("self", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, stranger := range map[string]Record{
		"another start time": {Name: "a", PID: self.PID, Start: self.Start + 1, Boot: self.Boot},
		"another boot":       {Name: "b", PID: self.PID, Start: self.Start, Boot: "00000000-0000-0000-0000-000000000000"},
	} {
		if stranger.Alive() {
			t.Errorf("%s: taken for ours", name)
		}
		if err := set.Stop(stranger, time.Second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// awaitLog waits until the last line of the log is the wanted one.
func awaitLog(t *testing.T, set Set, name, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); set.Tail(name, 1) != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log of %s says %q, want %q", name, set.Tail(name, 1), want)
		}
	}
}
