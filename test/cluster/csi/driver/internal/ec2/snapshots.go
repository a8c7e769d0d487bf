package ec2

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/test/cluster/csi/driver/internal/volume"
)

// snapshot is a snapshot of the fake.
type snapshot struct {
	ID      string            `json:"id"`
	Region  string            `json:"region"`
	Volume  string            `json:"volume"`
	SizeGiB int64             `json:"sizeGiB"`
	State   string            `json:"state"`
	Message string            `json:"message"`
	Tags    map[string]string `json:"tags"`
	Started time.Time         `json:"started"`
}

func (s snapshot) snapshot() volume.Snapshot {
	made := volume.Snapshot{
		ID: s.ID, Name: s.Tags[tagSnapshot], Volume: s.Volume, Size: s.SizeGiB * volume.GiB, Created: s.Started, Ready: s.State == "completed",
	}
	if s.State == "error" {
		made.Failed = "the snapshot is in the state error: " + s.Message
	}
	return made
}

// CreateSnapshot implements [volume.Backend]. The snapshot is pending, with its
// moment over, when it returns.
func (p *Provider) CreateSnapshot(ctx context.Context, spec volume.SnapshotSpec) (volume.Snapshot, error) {
	tags := map[string]string{tagSnapshot: spec.Name, tagCluster: "true"}
	for key, value := range spec.Parameters {
		switch {
		case strings.HasPrefix(key, "csi.storage.k8s.io/"):
		case strings.HasPrefix(strings.ToLower(key), "tagspecification_") && strings.Contains(value, "="):
			name, text, _ := strings.Cut(value, "=")
			tags[name] = text
		default:
			return volume.Snapshot{}, fmt.Errorf("parameter %q of the VolumeSnapshotClass: %w: there is none", key, volume.ErrInvalid)
		}
	}
	all, err := p.Snapshots(ctx)
	if err != nil {
		return volume.Snapshot{}, err
	}
	if i := slices.IndexFunc(all, func(s volume.Snapshot) bool { return s.Name == spec.Name }); i >= 0 {
		if all[i].Volume != spec.Volume {
			return volume.Snapshot{}, fmt.Errorf("snapshot %s of volume %s: %w", spec.Name, all[i].Volume, volume.ErrExists)
		}
		return all[i], nil
	}
	parameters := url.Values{"Action": {"CreateSnapshot"}, "VolumeId": {spec.Volume}, "TagSpecification.1.ResourceType": {"snapshot"}}
	number := 0
	for key, value := range tags {
		number++
		parameters.Set("TagSpecification.1.Tag."+strconv.Itoa(number)+".Key", key)
		parameters.Set("TagSpecification.1.Tag."+strconv.Itoa(number)+".Value", value)
	}
	var made struct {
		XMLName xml.Name
		ID      string    `xml:"snapshotId"`
		SizeGiB int64     `xml:"volumeSize"`
		State   string    `xml:"status"`
		Started time.Time `xml:"startTime"`
	}
	if err := p.client.query(ctx, parameters, &made); err != nil {
		return volume.Snapshot{}, fmt.Errorf("snapshot volume %s: %w", spec.Volume, err)
	}
	return snapshot{ID: made.ID, Volume: spec.Volume, SizeGiB: made.SizeGiB, State: made.State, Started: made.Started, Tags: tags}.snapshot(), nil
}

// DeleteSnapshot implements [volume.Backend].
func (p *Provider) DeleteSnapshot(ctx context.Context, id string) error {
	if !strings.HasPrefix(id, "snap-") {
		return nil // there cannot be one
	}
	var reply struct{ XMLName xml.Name }
	return ignoreAbsent(p.client.query(ctx, url.Values{"Action": {"DeleteSnapshot"}, "SnapshotId": {id}}, &reply))
}

// Snapshots implements [volume.Backend].
func (p *Provider) Snapshots(ctx context.Context) ([]volume.Snapshot, error) {
	var all []snapshot
	if err := p.client.control(ctx, http.MethodGet, "snapshots", nil, &all); err != nil {
		return nil, err
	}
	var found []volume.Snapshot
	for _, s := range all {
		if s.Region == p.client.region {
			found = append(found, s.snapshot())
		}
	}
	return found, nil
}
