package driver

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"google.golang.org/grpc"

	"keepset/test/cluster/csi/driver/internal/imagefile"
	"keepset/test/cluster/csi/driver/internal/volume"
)

// The suite that CSI's makers give every driver, over the socket, with real
// loop devices and mounts.
func TestSanity(t *testing.T) {
	dir := t.TempDir()
	store, err := imagefile.New(filepath.Join(dir, "store"), "zone-a", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	runSanity(t, dir, store)
}

func runSanity(t *testing.T, dir string, backend volume.Backend) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("loop devices and mounts need root, and the packages e2fsprogs and mount")
	}
	socket := serve(t, backend)
	config := sanity.NewTestConfig()
	config.Address = "unix:" + socket
	config.TargetPath, config.StagingPath = filepath.Join(dir, "target"), filepath.Join(dir, "staging")
	config.TestVolumeSize = volume.GiB
	config.IdempotentCount = 2
	config.TestNodeVolumeAttachLimit = false
	sanity.Test(t, config)
	left, err := backend.Volumes(t.Context())
	if err != nil || len(left) > 0 {
		t.Errorf("volumes are left over: %v (%v)", left, err)
	}
	snapshots, err := backend.Snapshots(t.Context())
	if err != nil || len(snapshots) > 0 {
		t.Errorf("snapshots are left over: %v (%v)", snapshots, err)
	}
}

// serve serves a backend until the test ends, and returns the socket.
func serve(t *testing.T, backend volume.Backend) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "csi.sock")
	d := New(Config{Name: "csi.keepset.test", NodeID: "node", Zone: "zone-a", ZoneKey: "topology.csi.keepset.test/zone", Endpoint: socket},
		backend, slog.New(slog.NewTextHandler(t.Output(), nil)))
	serveOn(t, socket, d.Server())
	return socket
}

func serveOn(t *testing.T, socket string, server *grpc.Server) {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.GracefulStop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
