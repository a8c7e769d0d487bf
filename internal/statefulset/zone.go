package statefulset

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ZoneFor is the zone in which an ordinal will run: that of the volume that it
// has, while nodes there could take its pod, else the one of those that could
// which has the fewest of the set's pods. Ordinals that are placed count where
// they will be: several that are new at once do not all go to one zone. Empty
// when the nodes are in no zones, or may not be read.
func (c *Client) ZoneFor(ctx context.Context, set Set, ordinal int, placed map[int]string) (string, error) {
	nodes, err := c.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		if err := explain(err, "list the nodes"); !errors.Is(err, ErrForbidden) {
			return "", err
		}
		return "", nil
	}
	zoneOf, zones := map[string]string{}, []string{}
	for i := range nodes.Items {
		node := &nodes.Items[i]
		zone := node.Labels[corev1.LabelTopologyZone]
		zoneOf[node.Name] = zone
		if zone != "" && takes(node, set.object.Spec.Template.Spec) && !slices.Contains(zones, zone) {
			zones = append(zones, zone)
		}
	}
	current, err := c.zoneOfVolumes(ctx, set, ordinal)
	if err != nil {
		return "", err
	}
	if slices.Contains(zones, current) || len(zones) == 0 {
		return current, nil
	}
	pods := map[string]int{}
	for _, zone := range placed {
		pods[zone]++
	}
	for _, m := range set.Members {
		if _, moves := placed[m.Ordinal]; m.Pod.Exists && m.Ordinal != ordinal && !moves {
			pods[zoneOf[m.Pod.Node]]++
		}
	}
	slices.Sort(zones)
	return slices.MinFunc(zones, func(a, b string) int { return pods[a] - pods[b] }), nil
}

// zoneOfVolumes is the zone of the volumes that the ordinal has now; empty when
// it has none, or they may not be read.
func (c *Client) zoneOfVolumes(ctx context.Context, set Set, ordinal int) (string, error) {
	for _, t := range set.Templates {
		claim, err := c.getClaim(ctx, claimName(t.Name, set.Name, ordinal))
		if err != nil {
			return "", err
		}
		if claim == nil {
			continue
		}
		pv, err := c.volumeOf(ctx, claim)
		if errors.Is(err, ErrForbidden) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if zone := zoneOfVolume(pv); zone != "" {
			return zone, nil
		}
	}
	return "", nil
}

// zoneOfVolume reads a volume's node affinity, where a driver writes its zone
// under a key of its own beside the well-known ones.
func zoneOfVolume(pv *corev1.PersistentVolume) string {
	if pv == nil || pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return ""
	}
	keys := []string{corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaZone, "topology.ebs.csi.aws.com/zone"}
	for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if slices.Contains(keys, e.Key) && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
				return e.Values[0]
			}
		}
	}
	return ""
}
