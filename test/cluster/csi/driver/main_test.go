package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"keepset/test/cluster/csi/driver/internal/ec2/ec2test"
	"keepset/test/cluster/csi/driver/internal/volume"
)

// The suite that CSI's makers give every driver, against the whole program over
// the fake EC2; the plain guise has it in package driver.
func TestSanityOfEBS(t *testing.T) {
	dir := t.TempDir()
	url := ec2test.Start(t, filepath.Join(dir, "ebs"), "--zones", "us-east-1a")
	socket := filepath.Join(dir, "csi.sock")
	start(t, []string{
		"--name", "ebs.csi.aws.com", "--node", "i-0123456789abcdef0", "--zone", "us-east-1a", "--zone-key", "topology.ebs.csi.aws.com/zone",
		"--endpoint", socket, "--registration", filepath.Join(dir, "reg.sock"), "--ec2", url, "--region", "us-east-1", "--root", "0",
		"--freezer", "127.0.0.1:0",
	}, socket, filepath.Join(dir, "reg.sock"))
	config := sanity.NewTestConfig()
	config.Address = "unix:" + socket
	config.TargetPath, config.StagingPath = filepath.Join(dir, "target"), filepath.Join(dir, "staging")
	config.TestVolumeSize = volume.GiB
	config.IdempotentCount = 2
	sanity.Test(t, config)
	all, err := csi.NewControllerClient(dial(t, socket)).ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil || len(all.GetEntries()) > 0 {
		t.Errorf("volumes are left over: %v (%v)", all, err)
	}
}

// What the kubelet asks for, on the socket that it finds.
func TestRegistration(t *testing.T) {
	dir := t.TempDir()
	socket, endpoint := filepath.Join(dir, "reg.sock"), filepath.Join(dir, "csi.sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // of a driver that was killed
		t.Fatal(err)
	}
	start(t, []string{
		"--name", "csi.keepset.test", "--node", "n", "--zone", "z", "--zone-key", "k/zone", "--endpoint", endpoint, "--registration", socket,
		"--dir", filepath.Join(dir, "volumes"),
	}, endpoint, socket)
	info, err := registration.NewRegistrationClient(dial(t, socket)).GetInfo(t.Context(), &registration.InfoRequest{})
	if err != nil || info.GetType() != registration.CSIPlugin || info.GetName() != "csi.keepset.test" || info.GetEndpoint() != endpoint {
		t.Errorf("got %v (%v)", info, err)
	}
	node, err := csi.NewNodeClient(dial(t, endpoint)).NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || node.GetNodeId() != "n" || node.GetAccessibleTopology().GetSegments()["k/zone"] != "z" {
		t.Errorf("got %v (%v)", node, err)
	}
}

func TestMissingFlagIsNamed(t *testing.T) {
	err := run(t.Context(), []string{"--name", "n", "--node", "n", "--zone", "z", "--zone-key", "k", "--endpoint", "e", "--registration", "r"}, t.Output())
	if err == nil || !strings.Contains(err.Error(), "--dir or --ec2 is missing") {
		t.Errorf("got %v", err)
	}
}

// start runs the program until the test ends, and returns when it listens.
func start(t *testing.T, args []string, sockets ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx, args, t.Output()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for _, socket := range sockets {
		for {
			var d net.Dialer
			conn, err := d.DialContext(t.Context(), "unix", socket)
			if err == nil {
				_ = conn.Close()
				break
			}
			select {
			case err := <-done:
				done <- err
				t.Fatalf("the program ended: %v", err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
