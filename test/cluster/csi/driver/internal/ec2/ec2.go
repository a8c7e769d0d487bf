// Package ec2 is the provider of volumes behind ebs.csi.aws.com: a fake EC2
// whose volumes are image files of this machine. A [Provider] is that fake as
// seen from one instance.
//
// It does as the real driver does where somebody can see it: volumes and
// snapshots bear the same tags, a volume is created with a client token that
// is derived from its name, its size is whole GiB, and it is attached to the
// node's instance as long as it is staged there. Parameters of StorageClasses
// are documented at
// https://github.com/kubernetes-sigs/aws-ebs-csi-driver/blob/master/docs/parameters.md.
package ec2

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"keepset/test/cluster/csi/driver/internal/volume"
)

// Tags that the real driver gives.
const (
	tagVolume   = "CSIVolumeName"
	tagSnapshot = "CSIVolumeSnapshotName"
	tagCluster  = "ebs.csi.aws.com/cluster"
	tagName     = "kubernetes.io/created-for/"
)

// Provider keeps volumes in the fake. It implements [volume.Backend].
type Provider struct {
	client   client
	instance string
	zone     string

	mu     sync.Mutex
	images map[string]string // by the IDs of the volumes that are attached here
}

var _ volume.Backend = (*Provider)(nil)

// Config says where the fake is, and who asks.
type Config struct {
	URL      string // of the fake
	Region   string
	Zone     string // of the instance
	Instance string // ID that volumes are attached to
	RootGiB  int64  // size of the boot volume that the instance is made with
}

// New returns the provider of an instance, which it makes in the fake.
func New(ctx context.Context, c Config) (*Provider, error) {
	p := &Provider{client: newClient(c.URL, c.Region), instance: c.Instance, zone: c.Zone, images: map[string]string{}}
	made := map[string]any{"id": c.Instance, "zone": c.Zone, "region": c.Region, "rootGiB": c.RootGiB}
	if err := p.client.control(ctx, http.MethodPut, "instances", made, nil); err != nil {
		return nil, fmt.Errorf("make instance %s: %w", c.Instance, err)
	}
	all, err := p.all(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.Instance == c.Instance {
			p.images[v.ID] = v.Path
		}
	}
	return p, nil
}

// Freezer has the fake post to the URL before a cut and after it.
func (p *Provider) Freezer(ctx context.Context, address string) error {
	return p.client.control(ctx, http.MethodPut, "freezer", map[string]string{"url": address}, nil)
}

// disk is a volume of the fake.
type disk struct {
	ID          string            `json:"id,omitempty"`
	Region      string            `json:"region,omitempty"`
	Zone        string            `json:"zone,omitempty"`
	SizeGiB     int64             `json:"sizeGiB,omitempty"`
	Type        string            `json:"type,omitempty"`
	IOPS        int64             `json:"iops,omitempty"`
	Throughput  int64             `json:"throughput,omitempty"`
	Encrypted   bool              `json:"encrypted,omitempty"`
	KMSKey      string            `json:"kmsKey,omitempty"`
	Snapshot    string            `json:"snapshot,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	ClientToken string            `json:"clientToken,omitempty"`
	State       string            `json:"state,omitempty"`
	Instance    string            `json:"instance,omitempty"`
	Path        string            `json:"path,omitempty"`
}

func (d disk) volume() volume.Volume {
	return volume.Volume{ID: d.ID, Name: d.Tags[tagVolume], Size: d.SizeGiB * volume.GiB, Zone: d.Zone, Snapshot: d.Snapshot}
}

func (p *Provider) all(ctx context.Context) ([]disk, error) {
	var all []disk
	return all, p.client.control(ctx, http.MethodGet, "volumes", nil, &all)
}

func (p *Provider) get(ctx context.Context, id string) (disk, error) {
	var d disk
	return d, p.client.control(ctx, http.MethodGet, "volumes/"+url.PathEscape(id), nil, &d)
}

// CreateVolume implements [volume.Backend].
func (p *Provider) CreateVolume(ctx context.Context, spec volume.Spec) (volume.Volume, error) {
	wanted, err := diskOf(spec)
	if err != nil {
		return volume.Volume{}, err
	}
	if spec.Snapshot != "" && !strings.HasPrefix(spec.Snapshot, "snap-") { // EC2 says that this is no ID, not that there is none
		return volume.Volume{}, fmt.Errorf("snapshot %q: %w", spec.Snapshot, volume.ErrNotFound)
	}
	wanted.Region, wanted.Zone = p.client.region, p.zone
	if len(spec.Zones) > 0 {
		wanted.Zone = spec.Zones[0]
	}
	var made disk
	if err := p.client.control(ctx, http.MethodPost, "volumes", wanted, &made); err != nil {
		return volume.Volume{}, fmt.Errorf("create volume %s: %w", spec.Name, err)
	}
	for made.State == "creating" {
		select {
		case <-ctx.Done():
			return volume.Volume{}, fmt.Errorf("wait for volume %s: %w", made.ID, ctx.Err())
		case <-time.After(poll):
		}
		// One that vanishes lacked rights on its key.
		if made, err = p.get(ctx, made.ID); err != nil {
			return volume.Volume{}, fmt.Errorf("wait for volume %s: %w", spec.Name, err)
		}
	}
	return made.volume(), nil
}

// diskOf turns what Kubernetes asks for into what EC2 is asked for.
func diskOf(spec volume.Spec) (disk, error) {
	sum := sha256.Sum256([]byte(spec.Name))
	d := disk{
		Type: "gp3", SizeGiB: max(1, (spec.Size+volume.GiB-1)/volume.GiB), Snapshot: spec.Snapshot, ClientToken: hex.EncodeToString(sum[:]),
		Tags: map[string]string{tagVolume: spec.Name, tagCluster: "true"},
	}
	if spec.Limit > 0 && d.SizeGiB*volume.GiB > spec.Limit {
		return d, fmt.Errorf("volume %s: %w: it would have %d GiB, and at most %d bytes are asked for", spec.Name, volume.ErrSize, d.SizeGiB, spec.Limit)
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Parameters)) {
		if err := d.set(key, spec.Parameters[key]); err != nil {
			return d, fmt.Errorf("parameter %q of the StorageClass: %w: %w", key, volume.ErrInvalid, err)
		}
	}
	return d, nil
}

// set applies a parameter of a StorageClass, whose case does not matter.
func (d *disk) set(key, value string) (err error) {
	switch lower := strings.ToLower(key); {
	case lower == "type":
		d.Type = value
	case lower == "iops":
		d.IOPS, err = strconv.ParseInt(value, 10, 64)
	case lower == "throughput":
		d.Throughput, err = strconv.ParseInt(value, 10, 64)
	case lower == "encrypted":
		d.Encrypted, err = strconv.ParseBool(value)
	case lower == "kmskeyid":
		d.KMSKey = value
	case strings.HasPrefix(lower, "tagspecification_"):
		name, text, ok := strings.Cut(value, "=")
		if !ok {
			return errors.New("it is not KEY=VALUE")
		}
		d.Tags[name] = text
	case strings.HasPrefix(key, "csi.storage.k8s.io/p"): // pvc/name, pvc/namespace, pv/name
		d.Tags[tagName+strings.TrimPrefix(key, "csi.storage.k8s.io/")] = value
	default:
		err = errors.New("there is none of that name")
	}
	return err
}

// DeleteVolume implements [volume.Backend].
func (p *Provider) DeleteVolume(ctx context.Context, id string) error {
	return ignoreAbsent(p.client.control(ctx, http.MethodDelete, "volumes/"+url.PathEscape(id), nil, nil))
}

// Volumes implements [volume.Backend].
func (p *Provider) Volumes(ctx context.Context) ([]volume.Volume, error) {
	all, err := p.all(ctx)
	if err != nil {
		return nil, err
	}
	var found []volume.Volume
	for _, d := range all {
		if d.Region == p.client.region {
			found = append(found, d.volume())
		}
	}
	return found, nil
}

// Attach implements [volume.Backend].
func (p *Provider) Attach(ctx context.Context, id string) (string, error) {
	var d disk
	if err := p.client.control(ctx, http.MethodPost, "volumes/"+url.PathEscape(id)+"/attachment", disk{Instance: p.instance}, &d); err != nil {
		return "", fmt.Errorf("attach volume %s to %s: %w", id, p.instance, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images[id] = d.Path
	return d.Path, nil
}

// Image implements [volume.Backend].
func (p *Provider) Image(_ context.Context, id string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if image, ok := p.images[id]; ok {
		return image, nil
	}
	return "", fmt.Errorf("volume %s at %s: %w", id, p.instance, volume.ErrNotFound)
}

// Path returns the image file of a volume, wherever it is attached.
func (p *Provider) Path(ctx context.Context, id string) (string, error) {
	d, err := p.get(ctx, id)
	return d.Path, err
}

// Detach implements [volume.Backend].
func (p *Provider) Detach(ctx context.Context, id string) error {
	switch d, err := p.get(ctx, id); {
	case err != nil:
		return ignoreAbsent(err)
	case d.Instance != p.instance:
		return nil
	}
	if err := ignoreAbsent(p.client.control(ctx, http.MethodDelete, "volumes/"+url.PathEscape(id)+"/attachment", nil, nil)); err != nil {
		return fmt.Errorf("detach volume %s: %w", id, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.images, id)
	return nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	return err
}
