package ebs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// parameters are what a StorageClass and a VolumeAttributesClass say of a
// volume, in the spellings of the CSI driver and of the in-tree plugin:
// https://github.com/kubernetes-sigs/aws-ebs-csi-driver/blob/master/docs/parameters.md
type parameters struct {
	volumeType       types.VolumeType
	iops, iopsPerGB  int64
	throughput, rate int64
	encrypted        bool
	kmsKey, fsType   string
	tags             map[string]string
	zones            []string
	ignored          []string
}

// parse reads a class's parameters. Keys are case-insensitive, as the driver has it.
func (p *parameters) parse(from map[string]string) error {
	if p.tags == nil {
		p.tags = map[string]string{}
	}
	for key, value := range from {
		if err := p.set(strings.ToLower(key), key, value); err != nil {
			return err
		}
	}
	slices.Sort(p.ignored)
	return nil
}

func (p *parameters) set(lower, key, value string) error {
	var err error
	switch lower {
	case "type":
		p.volumeType = types.VolumeType(value)
	case "iops":
		p.iops, err = strconv.ParseInt(value, 10, 32)
	case "iopspergb":
		p.iopsPerGB, err = strconv.ParseInt(value, 10, 32)
	case "throughput":
		p.throughput, err = strconv.ParseInt(value, 10, 32)
	case "volumeinitializationrate":
		p.rate, err = strconv.ParseInt(value, 10, 32)
	case "encrypted":
		p.encrypted = value == "true"
	case "kmskeyid":
		p.kmsKey = value
	case "csi.storage.k8s.io/fstype", "fstype":
		p.fsType = value
	case "zone", "zones":
		for zone := range strings.SplitSeq(value, ",") {
			p.zones = append(p.zones, strings.TrimSpace(zone))
		}
	default:
		tag, found := strings.CutPrefix(lower, "tagspecification_")
		k, v, split := strings.Cut(value, "=")
		if !found || tag == "" || !split || strings.Contains(value, "{{") {
			p.ignored = append(p.ignored, key)
			return nil
		}
		p.tags[k] = v
	}
	if err != nil {
		return fmt.Errorf("parameter %s is %q, not a number: %w", key, value, snapshot.ErrUnfit)
	}
	return nil
}

// Bounds of IOPS by type; the driver keeps iopsPerGB within them:
// https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html
var maxIOPS = map[types.VolumeType]int64{types.VolumeTypeIo1: 64000, types.VolumeTypeIo2: 256000, types.VolumeTypeGp3: 80000}

const minIOPS = 100

// iopsFor is what to ask for a volume of so many GiB; 0 leaves it to AWS.
func (p *parameters) iopsFor(size int64) int64 {
	limit, ok := maxIOPS[p.volumeType]
	switch {
	case !ok:
		return 0
	case p.iops > 0:
		return p.iops
	case p.iopsPerGB > 0:
		return min(max(p.iopsPerGB*size, minIOPS), limit)
	}
	return 0
}

// class is what a claim's StorageClass means for a new volume.
type class struct {
	parameters
	name, driver string
	reclaim      corev1.PersistentVolumeReclaimPolicy
	mountOptions []string
	// allowed are the zones of allowedTopologies; empty: any.
	allowed []string
}

// classOf reads the class of a claim.
func (s *Snapshotter) classOf(ctx context.Context, claim *corev1.PersistentVolumeClaim) (class, error) {
	object, err := s.storageClass(ctx, claim)
	if err != nil {
		return class{}, err
	}
	c := class{name: object.Name, reclaim: corev1.PersistentVolumeReclaimDelete, mountOptions: object.MountOptions}
	c.volumeType = types.VolumeTypeGp3
	switch object.Provisioner {
	case driverCSI, driverAuto:
		c.driver = object.Provisioner
	case inTree:
		// Since 1.23 the CSI driver makes these volumes, with the plugin's default.
		c.driver, c.volumeType = driverCSI, types.VolumeTypeGp2
	default:
		return c, fmt.Errorf("storageclass %s is of provisioner %s, which makes no EBS volumes: %w", object.Name, object.Provisioner, snapshot.ErrUnfit)
	}
	if object.ReclaimPolicy != nil {
		c.reclaim = *object.ReclaimPolicy
	}
	if err := c.parse(object.Parameters); err != nil {
		return c, fmt.Errorf("storageclass %s: %w", object.Name, err)
	}
	c.allowed = slices.Concat(c.zones, allowedZones(object.AllowedTopologies))
	return c, s.attributes(ctx, claim, &c)
}

// attributes lets the claim's VolumeAttributesClass have the last word.
func (s *Snapshotter) attributes(ctx context.Context, claim *corev1.PersistentVolumeClaim, c *class) error {
	name := claim.Spec.VolumeAttributesClassName
	if name == nil || *name == "" {
		return nil
	}
	object, err := s.kube.StorageV1().VolumeAttributesClasses().Get(ctx, *name, metav1.GetOptions{})
	if err != nil {
		return explain(ctx, err, "read volumeattributesclass "+*name, roleRestore)
	}
	if object.DriverName != c.driver {
		return fmt.Errorf("volumeattributesclass %s is of driver %s, storageclass %s of %s: %w", *name, object.DriverName, c.name, c.driver, snapshot.ErrUnfit)
	}
	if err := c.parse(object.Parameters); err != nil {
		return fmt.Errorf("volumeattributesclass %s: %w", *name, err)
	}
	return nil
}

// storageClass is the class that the claim names, or the cluster's default one.
func (s *Snapshotter) storageClass(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*storagev1.StorageClass, error) {
	name := claim.Spec.StorageClassName
	if name == nil {
		return s.defaultClass(ctx)
	}
	if *name == "" {
		return nil, fmt.Errorf("the claim wants no storageclass, so that nothing says what volume to make: name one for the restore: %w", snapshot.ErrUnfit)
	}
	object, err := s.kube.StorageV1().StorageClasses().Get(ctx, *name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("storageclass %s does not exist: create it or name another for the restore: %w", *name, snapshot.ErrNotFound)
	}
	return object, explain(ctx, err, "read storageclass "+*name, roleRestore)
}

// defaultClass is the one that a claim without a class gets: of several the newest.
func (s *Snapshotter) defaultClass(ctx context.Context) (*storagev1.StorageClass, error) {
	list, err := s.kube.StorageV1().StorageClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(ctx, err, "the claim names no storageclass: list them for the default", roleRestore)
	}
	var newest *storagev1.StorageClass
	for i := range list.Items {
		c := &list.Items[i]
		if c.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" {
			continue
		}
		if newest == nil || newest.CreationTimestamp.Before(&c.CreationTimestamp) {
			newest = c
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("the claim names no storageclass and none is the default: name one for the restore: %w", snapshot.ErrNotFound)
	}
	return newest, nil
}

func allowedZones(terms []corev1.TopologySelectorTerm) []string {
	var zones []string
	for _, term := range terms {
		for _, e := range term.MatchLabelExpressions {
			if slices.Contains(zoneKeys, e.Key) {
				zones = append(zones, e.Values...)
			}
		}
	}
	return zones
}
