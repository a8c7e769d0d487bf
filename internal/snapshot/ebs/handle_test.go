package ebs

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

func inTreeSource(id string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: id, FSType: "xfs"}}
}

func csiSource(driver, handle string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle, FSType: "xfs"}}
}

func TestHandles(t *testing.T) {
	const id = "vol-0123456789abcdef0"
	for name, test := range map[string]struct {
		source      corev1.PersistentVolumeSource
		annotations map[string]string
		want        handle
		err         string
	}{
		"csi":                   {source: csiSource(driverCSI, id), want: handle{id: id, driver: driverCSI, fsType: "xfs"}},
		"auto mode":             {source: csiSource(driverAuto, id), want: handle{id: id, driver: driverAuto, fsType: "xfs"}},
		"in-tree, bare":         {source: inTreeSource(id), want: handle{id: id, driver: driverCSI, fsType: "xfs"}},
		"in-tree, zone":         {source: inTreeSource("aws://eu-west-1c/" + id), want: handle{id: id, driver: driverCSI, fsType: "xfs", zone: "eu-west-1c"}},
		"in-tree, no zone":      {source: inTreeSource("aws:///" + id), want: handle{id: id, driver: driverCSI, fsType: "xfs"}},
		"in-tree, old short ID": {source: inTreeSource("vol-1234abcd"), want: handle{id: "vol-1234abcd", driver: driverCSI, fsType: "xfs"}},
		"in-tree, migrated":     {source: inTreeSource(id), annotations: map[string]string{"pv.kubernetes.io/migrated-to": driverCSI}, want: handle{id: id, driver: driverCSI, fsType: "xfs"}},
		"in-tree, no ID":        {source: inTreeSource("aws://eu-west-1c"), err: "no EBS volume's ID"},
		"csi, strange handle":   {source: csiSource(driverCSI, "eu-west-1c/"+id), err: "no EBS volume's ID"},
		"another driver":        {source: csiSource("efs.csi.aws.com", "fs-1"), err: "driver efs.csi.aws.com"},
		"a directory":           {source: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}, err: "hostPath"},
		"nothing that is known": {err: "another kind than EBS"},
	} {
		t.Run(name, func(t *testing.T) {
			pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv", Annotations: test.annotations}}
			pv.Spec.PersistentVolumeSource = test.source
			got, err := handleOf(pv)
			if test.err != "" {
				require.ErrorIs(t, err, snapshot.ErrUnsupported)
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func TestZones(t *testing.T) {
	for _, key := range zoneKeys {
		pv := &corev1.PersistentVolume{}
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "kubernetes.io/os", Operator: corev1.NodeSelectorOpIn, Values: []string{"linux"}},
				{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{"eu-west-1c"}},
			},
		}}}}
		gotKey, zone := zoneOf(pv)
		require.Equal(t, key, gotKey)
		require.Equal(t, "eu-west-1c", zone)
		_, zone = zoneOf(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{key: "eu-west-1b"}}})
		require.Equal(t, "eu-west-1b", zone)
	}
	for zone, region := range map[string]string{
		"ap-northeast-2a": "ap-northeast-2", "us-gov-west-1b": "us-gov-west-1", "us-west-2-lax-1a": "us-west-2", "cn-north-1a": "cn-north-1",
		"us-east-1-wl1-bos-wlz-1": "us-east-1", "eu-isoe-west-1a": "eu-isoe-west-1", "": "", "zone-a": "", "rack1": "",
	} {
		require.Equal(t, region, regionOf(zone), zone)
	}
}
