package node

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"keepset/test/cluster/internal/process"
)

// What the fake EC2 and the driver that is ebs.csi.aws.com there agree on. The
// fake is reached by pods and by the machine; the freezer, by which the fake
// holds the mounted volumes still, by the machine only.
const (
	region       = "us-east-1"
	zone         = "us-east-1a"
	instance     = "i-0c1a55e7ab1e00001"
	ebsPort      = "4566"
	ebsURL       = "http://" + Address + ":" + ebsPort
	freezerHost  = "127.0.0.77:4567"
	plainDriver  = "csi.keepset.test"
	ebsDriver    = "ebs.csi.aws.com"
	plainZoneKey = "topology.csi.keepset.test/zone"
	ebsZoneKey   = "topology.ebs.csi.aws.com/zone"
)

// volumeComponents serve volumes and their snapshots: the fake EC2, the
// driver in its two guises, and for each the sidecars that a provider runs
// beside it. The sidecars keep trying until what they talk to is there.
func (n *Node) volumeComponents() []component {
	all := []component{
		{n.spec("ebsfake", []string{"--listen", Address + ":" + ebsPort, "--dir", n.path("ebs"), "--region", region, "--snapshot-time", "1s"}), n.ebsReady, nil},
		{n.named("csi-plain", "csi-driver", n.driverArgs("plain", plainDriver, plainZoneKey, name, "--dir", n.path("csi-volumes"))), nil, nil},
		{n.named("csi-ebs", "csi-driver", n.driverArgs("ebs", ebsDriver, ebsZoneKey, instance,
			"--ec2", ebsURL, "--region", region, "--freezer", freezerHost)), nil, nil},
		{n.spec("snapshot-controller", []string{"--kubeconfig", n.Kubeconfig()}), nil, n.applyClasses},
	}
	for _, guise := range []string{"plain", "ebs"} {
		// A test does not wait as long for the next try as a user has to.
		common := []string{
			"--kubeconfig", n.Kubeconfig(), "--csi-address", n.driverSocket(guise), "--extra-create-metadata", "--timeout", "60s",
			"--retry-interval-start", "500ms", "--retry-interval-max", "10s", "--kube-api-qps", "50", "--kube-api-burst", "100",
		}
		all = append(all,
			component{n.named("csi-"+guise+"-provisioner", "csi-provisioner", append([]string{"--default-fstype", "ext4"}, common...)), nil, nil},
			component{n.named("csi-"+guise+"-snapshotter", "csi-snapshotter", common), nil, nil})
	}
	return all
}

// driverSocket is where the driver of a guise serves CSI.
func (n *Node) driverSocket(guise string) string { return n.path("run", guise+".sock") }

func (n *Node) driverArgs(guise, driver, zoneKey, nodeID string, more ...string) []string {
	return append([]string{
		"--name", driver, "--node", nodeID, "--zone", n.place().zone, "--zone-key", zoneKey,
		"--endpoint", n.driverSocket(guise), "--registration", n.path("kubelet", "plugins_registry", guise+".sock"),
	}, more...)
}

// named is a program that runs several times, each under a name of its own.
func (n *Node) named(name, program string, args []string) process.Spec {
	s := n.spec(program, args)
	s.Name = name
	return s
}

func (n *Node) ebsReady(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", Address+":"+ebsPort)
	if err != nil {
		return err
	}
	return conn.Close()
}

// applyClasses makes the drivers known, and the classes of their volumes and
// snapshots.
func (n *Node) applyClasses(ctx context.Context) error {
	if _, err := n.kubectl(ctx, nil, "wait", "--for", "condition=Established", "--timeout", "60s", "--filename", n.Tools.SnapshotCRDs); err != nil {
		return fmt.Errorf("wait for the definitions of VolumeSnapshots: %w", err)
	}
	data, err := render("volumes.yaml", n.values())
	if err != nil {
		return err
	}
	if _, err := n.kubectl(ctx, data, "apply", "--server-side", "--filename", "-"); err != nil {
		return fmt.Errorf("create classes of volumes: %w", err)
	}
	return nil
}

// driversReady is nil once the kubelet has taken both drivers.
func (n *Node) driversReady(ctx context.Context) error {
	out, err := n.kubectl(ctx, nil, "get", "csinode", n.place().name, "--request-timeout", "5s", "--output", "jsonpath={.spec.drivers[*].name}")
	if err != nil {
		return err
	}
	for _, driver := range []string{plainDriver, ebsDriver} {
		if !slices.Contains(strings.Fields(out), driver) {
			return fmt.Errorf("the kubelet knows the drivers [%s] and not %s", out, driver)
		}
	}
	return nil
}
