package node

import (
	"context"
	"fmt"
)

// Load puts the images of an archive, as `docker save` or an OCI layout in a
// tar, where the kubelet finds them. Pods use them with imagePullPolicy Never
// or IfNotPresent.
func (n *Node) Load(ctx context.Context, archive string) error {
	_, err := n.run(ctx, "ctr", "--address", n.socket(), "--namespace", "k8s.io",
		"images", "import", "--snapshotter", n.snapshotter(), archive)
	if err != nil {
		return fmt.Errorf("load image %s: %w", archive, err)
	}
	return nil
}
