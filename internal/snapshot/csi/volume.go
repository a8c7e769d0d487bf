package csi

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// kindOf names the kind of a volume as its YAML does: hostPath, nfs,
// awsElasticBlockStore.
func kindOf(source corev1.PersistentVolumeSource) string {
	text, err := json.Marshal(source)
	if err != nil {
		return "unknown"
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil || len(fields) == 0 {
		return "unknown"
	}
	return strings.Join(slices.Sorted(maps.Keys(fields)), "+")
}

// zoneOf is the one zone that a volume can be used in, empty where there are
// several or none is named. Drivers have topology keys of their own, such as
// topology.ebs.csi.aws.com/zone; all of them end in /zone.
func zoneOf(volume *corev1.PersistentVolume) string {
	zones := map[string]bool{}
	if affinity := volume.Spec.NodeAffinity; affinity != nil && affinity.Required != nil {
		for _, term := range affinity.Required.NodeSelectorTerms {
			for _, e := range term.MatchExpressions {
				if e.Operator == corev1.NodeSelectorOpIn && isZoneKey(e.Key) {
					for _, z := range e.Values {
						zones[z] = true
					}
				}
			}
		}
	}
	if len(zones) == 0 {
		for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaZone} {
			if z := volume.Labels[key]; z != "" && !strings.Contains(z, "__") {
				zones[z] = true
			}
		}
	}
	if len(zones) != 1 {
		return ""
	}
	for z := range zones {
		return z
	}
	return ""
}

func isZoneKey(key string) bool {
	return strings.HasSuffix(key, "/zone") || key == corev1.LabelFailureDomainBetaZone
}
