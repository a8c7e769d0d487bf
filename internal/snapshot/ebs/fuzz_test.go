package ebs

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"keepset/internal/snapshot"
)

// What stands in a PersistentVolume is the handle of an EBS volume, or refused.
func FuzzHandle(f *testing.F) {
	for _, s := range []string{"vol-0123456789abcdef0", "aws://eu-central-1a/vol-1a2b3c4d", "aws:///vol-1a2b3c4d", "aws://", "vol-", "", "aws://a/b/vol-1a2b3c4d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		pv := &corev1.PersistentVolume{}
		pv.Spec.AWSElasticBlockStore = &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: id}
		h, err := handleOf(pv)
		switch {
		case err != nil && !errors.Is(err, snapshot.ErrUnsupported):
			t.Fatalf("%q: %v", id, err)
		case err == nil && (!volumeID.MatchString(h.id) || !strings.HasSuffix(id, h.id)):
			t.Fatalf("%q is volume %q in zone %q", id, h.id, h.zone)
		}
	})
}

// A class's parameters are understood, named as ignored, or refused; none is lost.
func FuzzClassParameters(f *testing.F) {
	f.Add("type", "gp3")
	f.Add("IOPS", "3000")
	f.Add("iopsPerGB", "x")
	f.Add("tagSpecification_1", "team=shop")
	f.Add("tagSpecification_2", "claim={{ .PVCName }}")
	f.Add("zones", "a, b,")
	f.Add("unheardOf", "")
	f.Fuzz(func(t *testing.T, key, value string) {
		var p parameters
		err := p.parse(map[string]string{key: value})
		if err != nil && !errors.Is(err, snapshot.ErrUnfit) {
			t.Fatalf("%q=%q: %v", key, value, err)
		}
		if len(p.ignored) > 0 && p.ignored[0] != key {
			t.Fatalf("%q=%q: ignored %q", key, value, p.ignored)
		}
	})
}
