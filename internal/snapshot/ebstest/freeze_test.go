package ebstest_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"testing"

	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

// A writer counts in two volumes, always first in one and then in the other. A
// cut of both at one point in time can only find the first one ahead, by one.
func TestCutOfSeveralVolumesIsOfOnePointInTime(t *testing.T) {
	var quiet sync.RWMutex // held for reading by each of the writer's steps
	o := ebstest.Options{Freeze: func(_ context.Context, volumes []string) (func(), error) {
		if len(volumes) != 2 {
			return nil, errors.New("two volumes are cut")
		}
		quiet.Lock()
		return quiet.Unlock, nil
	}}
	s, w := start(t, o)
	i, data, log := machine(t, s)
	// Enough data that copying takes a while.
	for n := range 64 {
		write(t, data.Path, int64(n+1)<<20, filled(byte(n)))
	}
	stop := make(chan struct{})
	done := make(chan error, 1)
	count := func(path string, n uint64) error {
		quiet.RLock()
		defer quiet.RUnlock()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(binary.BigEndian.AppendUint64(nil, n), 0)
		return errors.Join(err, f.Close())
	}
	go func() {
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := errors.Join(count(log.Path, n), count(data.Path, n)); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 5 {
		w.ec2("CreateSnapshots", "InstanceSpecification.InstanceId", i.ID, "InstanceSpecification.ExcludeBootVolume", "true")
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ahead := map[string]uint64{}
	for _, n := range s.Snapshots() {
		value := binary.BigEndian.Uint64(read(t, n.Path, 0, 8))
		if n.Volume == log.ID {
			ahead[n.Started.String()] += value
		} else {
			ahead[n.Started.String()] -= value
		}
	}
	for at, n := range ahead {
		if n > 1 {
			t.Errorf("the cut of %s is torn: the volumes are %d apart", at, int64(n))
		}
	}
	if len(ahead) != 5 {
		t.Errorf("%d cuts", len(ahead))
	}
}

func TestFreezerOverHTTP(t *testing.T) {
	s, w := start(t, ebstest.Options{})
	_, data, _ := machine(t, s)
	var mu sync.Mutex
	var asked []string
	fails := ""
	freezer := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var f control.Freezing
		err := json.NewDecoder(r.Body).Decode(&f)
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, f.Operation)
		if err != nil || !slices.Equal(f.Volumes, []string{data.ID}) || f.Operation == fails {
			http.Error(rw, "no", http.StatusConflict)
		}
	}))
	defer freezer.Close()
	if err := s.Control().SetFreezer(t.Context(), freezer.URL); err != nil {
		t.Fatal(err)
	}
	expect := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(asked, want) {
			t.Errorf("asked to %v, want %v", asked, want)
		}
		asked = nil
	}
	w.ec2("CreateSnapshot", "VolumeId", data.ID)
	expect("freeze", "thaw")
	for _, fails = range []string{"freeze", "thaw"} {
		w.refuses(500, "InternalError", "CreateSnapshot", "VolumeId", data.ID)
		expect("freeze", "thaw")
	}
	if n := len(s.Snapshots()); n != 1 {
		t.Errorf("%d snapshots: a cut that fails leaves none", n)
	}
}
