package driver

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"keepset/test/cluster/csi/driver/internal/volume"
)

// ControllerGetCapabilities implements [csi.ControllerServer].
func (d *Driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	reply := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT, csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
	} {
		reply.Capabilities = append(reply.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}},
		})
	}
	return reply, nil
}

// CreateVolume implements [csi.ControllerServer].
func (d *Driver) CreateVolume(ctx context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := required("name", r.GetName()); err != nil {
		return nil, err
	}
	if err := supported(r.GetVolumeCapabilities()...); err != nil {
		return nil, err
	}
	if r.GetVolumeContentSource().GetVolume() != nil {
		return nil, status.Error(codes.InvalidArgument, "volumes are not cloned here: make a snapshot")
	}
	zones, err := d.zones(r.GetAccessibilityRequirements())
	if err != nil {
		return nil, err
	}
	release, err := d.claim(r.GetName())
	if err != nil {
		return nil, err
	}
	defer release()
	v, err := d.backend.CreateVolume(ctx, volume.Spec{
		Name: r.GetName(), Size: r.GetCapacityRange().GetRequiredBytes(), Limit: r.GetCapacityRange().GetLimitBytes(),
		Snapshot: r.GetVolumeContentSource().GetSnapshot().GetSnapshotId(), Zones: zones, Parameters: r.GetParameters(),
	})
	if err != nil {
		return nil, err
	}
	reply := d.describe(v)
	reply.ContentSource = r.GetVolumeContentSource()
	return &csi.CreateVolumeResponse{Volume: reply}, nil
}

// zones returns the zones of the topology that is asked for, the preferred first.
func (d *Driver) zones(t *csi.TopologyRequirement) ([]string, error) {
	var zones []string
	for _, topology := range slices.Concat(t.GetPreferred(), t.GetRequisite()) {
		if zone := topology.GetSegments()[d.config.ZoneKey]; zone != "" && !slices.Contains(zones, zone) {
			zones = append(zones, zone)
		}
	}
	if len(t.GetRequisite()) > 0 && len(zones) == 0 {
		return nil, status.Errorf(codes.InvalidArgument, "the topology that is asked for names no %s", d.config.ZoneKey)
	}
	return zones, nil
}

func (d *Driver) describe(v volume.Volume) *csi.Volume {
	return &csi.Volume{
		VolumeId: v.ID, CapacityBytes: v.Size,
		AccessibleTopology: []*csi.Topology{{Segments: map[string]string{d.config.ZoneKey: v.Zone}}},
	}
}

// DeleteVolume implements [csi.ControllerServer].
func (d *Driver) DeleteVolume(ctx context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	release, err := d.claim(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	return &csi.DeleteVolumeResponse{}, d.backend.DeleteVolume(ctx, r.GetVolumeId())
}

// ValidateVolumeCapabilities implements [csi.ControllerServer].
func (d *Driver) ValidateVolumeCapabilities(ctx context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if err := required("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the volume's capability is missing")
	}
	if err := d.exists(ctx, r.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := supported(r.GetVolumeCapabilities()...); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil //nolint:nilerr // that is the answer
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: r.GetVolumeContext(), VolumeCapabilities: r.GetVolumeCapabilities(), Parameters: r.GetParameters(),
	}}, nil
}

// exists is nil for the ID of a volume, and [volume.ErrNotFound] else.
func (d *Driver) exists(ctx context.Context, id string) error {
	all, err := d.backend.Volumes(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(v volume.Volume) bool { return v.ID == id }) {
		return fmt.Errorf("volume %s: %w", id, volume.ErrNotFound)
	}
	return nil
}

// ListVolumes implements [csi.ControllerServer].
func (d *Driver) ListVolumes(ctx context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	all, err := d.backend.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(all, r.GetStartingToken(), int(r.GetMaxEntries()))
	if err != nil {
		return nil, err
	}
	reply := &csi.ListVolumesResponse{NextToken: next}
	for _, v := range page {
		reply.Entries = append(reply.Entries, &csi.ListVolumesResponse_Entry{Volume: d.describe(v)})
	}
	return reply, nil
}

// CreateSnapshot implements [csi.ControllerServer].
func (d *Driver) CreateSnapshot(ctx context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if err := required("name", r.GetName(), "source_volume_id", r.GetSourceVolumeId()); err != nil {
		return nil, err
	}
	release, err := d.claim(r.GetName(), r.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	s, err := d.backend.CreateSnapshot(ctx, volume.SnapshotSpec{Name: r.GetName(), Volume: r.GetSourceVolumeId(), Parameters: r.GetParameters()})
	if err != nil {
		return nil, err
	}
	if s.Failed != "" {
		return nil, status.Errorf(codes.Internal, "snapshot %s of volume %s: %s", s.ID, s.Volume, s.Failed)
	}
	return &csi.CreateSnapshotResponse{Snapshot: describeSnapshot(s)}, nil
}

func describeSnapshot(s volume.Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: s.ID, SourceVolumeId: s.Volume, SizeBytes: s.Size,
		CreationTime: timestamppb.New(s.Created), ReadyToUse: s.Ready,
	}
}

// DeleteSnapshot implements [csi.ControllerServer].
func (d *Driver) DeleteSnapshot(ctx context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if err := required("snapshot_id", r.GetSnapshotId()); err != nil {
		return nil, err
	}
	release, err := d.claim(r.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	defer release()
	return &csi.DeleteSnapshotResponse{}, d.backend.DeleteSnapshot(ctx, r.GetSnapshotId())
}

// ListSnapshots implements [csi.ControllerServer].
func (d *Driver) ListSnapshots(ctx context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	all, err := d.backend.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s volume.Snapshot) bool {
		return (r.GetSnapshotId() != "" && s.ID != r.GetSnapshotId()) || (r.GetSourceVolumeId() != "" && s.Volume != r.GetSourceVolumeId())
	})
	page, next, err := pageOf(all, r.GetStartingToken(), int(r.GetMaxEntries()))
	if err != nil {
		return nil, err
	}
	reply := &csi.ListSnapshotsResponse{NextToken: next}
	for _, s := range page {
		reply.Entries = append(reply.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: describeSnapshot(s)})
	}
	return reply, nil
}

// pageOf returns the part of a list that starts at the token, an index, and the
// token of the next part.
func pageOf[T any](all []T, token string, most int) (page []T, next string, err error) {
	start := 0
	if token != "" {
		if start, err = strconv.Atoi(token); err != nil || start < 0 || start > len(all) {
			return nil, "", status.Errorf(codes.Aborted, "starting token %q is not one of ours", token)
		}
	}
	end := len(all)
	if most > 0 && start+most < end {
		end = start + most
		next = strconv.Itoa(end)
	}
	return all[start:end], next, nil
}
