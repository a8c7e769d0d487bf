package lock

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

func TestSecondHolderWaitsForTheFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "lock")
	release, err := Acquire(t.Context(), file, func() { t.Error("the first had to wait") })
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	got := make(chan error, 1)
	go func() {
		release, err := Acquire(t.Context(), file, func() { close(waited) })
		if err == nil {
			release()
		}
		got <- err
	}()
	<-waited
	select {
	case err := <-got:
		t.Fatalf("the second did not wait: %v", err)
	default:
	}
	release()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	release, err := Acquire(t.Context(), file, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Acquire(ctx, file, func() {}); err == nil {
		t.Fatal("two hold the lock")
	}
}
