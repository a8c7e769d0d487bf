package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"keepset/test/cluster/csi/driver/internal/disk"
	"keepset/test/cluster/csi/driver/internal/volume"
)

// NodeGetCapabilities implements [csi.NodeServer].
func (d *Driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{
		Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}},
	}}}, nil
}

// NodeGetInfo implements [csi.NodeServer].
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:             d.config.NodeID,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{d.config.ZoneKey: d.config.Zone}},
	}, nil
}

// NodeStageVolume implements [csi.NodeServer]: it attaches the volume and
// mounts its file system, or shows it as a device.
func (d *Driver) NodeStageVolume(ctx context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "staging_target_path", r.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	if err := supported(r.GetVolumeCapability()); err != nil {
		return nil, err
	}
	release, err := d.claim(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	image, err := d.backend.Attach(ctx, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if r.GetVolumeCapability().GetBlock() != nil {
		_, err := disk.AttachLoop(ctx, image)
		return &csi.NodeStageVolumeResponse{}, err
	}
	if err := os.MkdirAll(r.GetStagingTargetPath(), 0o750); err != nil {
		return nil, fmt.Errorf("create staging directory: %w", err)
	}
	return &csi.NodeStageVolumeResponse{}, disk.MountImage(ctx, image, r.GetStagingTargetPath(), r.GetVolumeCapability().GetMount().GetMountFlags())
}

// NodeUnstageVolume implements [csi.NodeServer].
func (d *Driver) NodeUnstageVolume(ctx context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "staging_target_path", r.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	release, err := d.claim(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	if err := disk.Unmount(r.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	image, err := d.backend.Image(ctx, r.GetVolumeId())
	if err == nil {
		err = disk.DetachLoops(ctx, image)
	}
	if err != nil && !errors.Is(err, volume.ErrNotFound) {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, d.backend.Detach(ctx, r.GetVolumeId())
}

// NodePublishVolume implements [csi.NodeServer]: it shows what is staged at the
// place from which a pod gets it.
func (d *Driver) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "target_path", r.GetTargetPath(), "staging_target_path", r.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	if err := supported(r.GetVolumeCapability()); err != nil {
		return nil, err
	}
	release, err := d.claim(r.GetVolumeId() + " at " + r.GetTargetPath())
	if err != nil {
		return nil, err
	}
	defer release()
	if r.GetVolumeCapability().GetBlock() != nil {
		return &csi.NodePublishVolumeResponse{}, d.publishDevice(ctx, r)
	}
	if err := d.exists(ctx, r.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.GetTargetPath(), 0o750); err != nil {
		return nil, fmt.Errorf("create target directory: %w", err)
	}
	return &csi.NodePublishVolumeResponse{}, disk.Bind(r.GetStagingTargetPath(), r.GetTargetPath(), r.GetReadonly())
}

// publishDevice binds the volume's device to the target, a file.
func (d *Driver) publishDevice(ctx context.Context, r *csi.NodePublishVolumeRequest) error {
	image, err := d.backend.Image(ctx, r.GetVolumeId())
	if err != nil {
		return err
	}
	device, err := disk.AttachLoop(ctx, image)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.GetTargetPath()), 0o750); err != nil {
		return fmt.Errorf("create target directory: %w", err)
	}
	target, err := os.OpenFile(r.GetTargetPath(), os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return fmt.Errorf("create target: %w", err)
	}
	if err := target.Close(); err != nil {
		return fmt.Errorf("create target: %w", err)
	}
	return disk.Bind(device, r.GetTargetPath(), r.GetReadonly())
}

// NodeUnpublishVolume implements [csi.NodeServer].
func (d *Driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "target_path", r.GetTargetPath()); err != nil {
		return nil, err
	}
	release, err := d.claim(r.GetVolumeId() + " at " + r.GetTargetPath())
	if err != nil {
		return nil, err
	}
	defer release()
	return &csi.NodeUnpublishVolumeResponse{}, disk.RemovePoint(r.GetTargetPath())
}
