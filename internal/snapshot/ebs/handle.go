package ebs

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"keepset/internal/snapshot"
)

// Keys under which nodes, and so PersistentVolumes, name their zone: by the
// driver of old, by everybody now, by everybody before 1.17.
const (
	zoneKeyDriver = "topology.ebs.csi.aws.com/zone"
	zoneKeyBeta   = "failure-domain.beta.kubernetes.io/zone"
)

var zoneKeys = []string{zoneKeyDriver, corev1.LabelTopologyZone, zoneKeyBeta}

// volumeID is the form of an EBS volume's ID.
var volumeID = regexp.MustCompile(`^vol-[0-9a-f]{8,}$`)

// handle is the EBS volume behind a PersistentVolume.
type handle struct {
	id, driver, zone, fsType string
	size                     int64
	block                    bool
}

// handleOf reads a PersistentVolume. ErrUnsupported when it is not EBS's.
func handleOf(pv *corev1.PersistentVolume) (handle, error) {
	capacity := pv.Spec.Capacity[corev1.ResourceStorage]
	h := handle{size: capacity.Value(), block: pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock}
	key, zone := zoneOf(pv)
	_, h.zone = key, zone
	switch {
	case pv.Spec.CSI != nil && (pv.Spec.CSI.Driver == driverCSI || pv.Spec.CSI.Driver == driverAuto):
		h.id, h.driver, h.fsType = pv.Spec.CSI.VolumeHandle, pv.Spec.CSI.Driver, pv.Spec.CSI.FSType
	case pv.Spec.CSI != nil:
		return h, fmt.Errorf("persistentvolume %s is of driver %s: %w", pv.Name, pv.Spec.CSI.Driver, snapshot.ErrUnsupported)
	case pv.Spec.AWSElasticBlockStore != nil:
		// https://kubernetes.io/docs/concepts/storage/volumes/#awselasticblockstore: served by the CSI
		// driver since 1.27, whatever the annotation pv.kubernetes.io/migrated-to says.
		source := pv.Spec.AWSElasticBlockStore
		h.driver, h.fsType = driverCSI, source.FSType
		var zone string
		h.id, zone = parseInTree(source.VolumeID)
		if h.zone == "" {
			h.zone = zone
		}
	default:
		return h, fmt.Errorf("persistentvolume %s is of type %s: %w", pv.Name, sourceName(pv), snapshot.ErrUnsupported)
	}
	if !volumeID.MatchString(h.id) {
		return h, fmt.Errorf("persistentvolume %s has the handle %q, which is no EBS volume's ID: %w", pv.Name, h.id, snapshot.ErrUnsupported)
	}
	if h.block {
		h.fsType = ""
	}
	return h, nil
}

// parseInTree reads the in-tree plugin's spellings of a volume: vol-1, aws://zone/vol-1, aws:///vol-1.
func parseInTree(s string) (id, zone string) {
	rest, found := strings.CutPrefix(s, "aws://")
	if !found {
		return s, ""
	}
	zone, id, found = strings.Cut(rest, "/")
	if !found {
		return zone, ""
	}
	return id, zone
}

// zoneOf is where a PersistentVolume lives, and under which key it says so.
func zoneOf(pv *corev1.PersistentVolume) (key, zone string) {
	if pv.Spec.NodeAffinity != nil && pv.Spec.NodeAffinity.Required != nil {
		for _, key := range zoneKeys {
			for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
				for _, e := range term.MatchExpressions {
					if e.Key == key && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
						return key, e.Values[0]
					}
				}
			}
		}
	}
	// The labels that the in-tree plugin set, before there was an affinity.
	for _, key := range zoneKeys {
		if zone := pv.Labels[key]; zone != "" && !strings.Contains(zone, "__") {
			return key, zone
		}
	}
	return "", ""
}

// sourceName names the kind of a volume that is not EBS's.
func sourceName(pv *corev1.PersistentVolume) string {
	s := pv.Spec.PersistentVolumeSource
	switch {
	case s.HostPath != nil:
		return "hostPath"
	case s.Local != nil:
		return "local"
	case s.NFS != nil:
		return "nfs"
	case s.GCEPersistentDisk != nil:
		return "gcePersistentDisk"
	case s.AzureDisk != nil:
		return "azureDisk"
	case s.AzureFile != nil:
		return "azureFile"
	case s.ISCSI != nil:
		return "iscsi"
	case s.FC != nil:
		return "fc"
	case s.RBD != nil:
		return "rbd"
	case s.CephFS != nil:
		return "cephfs"
	case s.Cinder != nil:
		return "cinder"
	case s.VsphereVolume != nil:
		return "vsphereVolume"
	case s.FlexVolume != nil:
		return "flexVolume of driver " + s.FlexVolume.Driver
	default:
		return "another kind than EBS"
	}
}
