package ebs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// filterSize is how many values a filter may have, within EC2's limit of 200.
const filterSize = 100

// Locate implements [snapshot.Snapshotter]. It asks EC2 too, so that rights
// and volumes that are missing are known before anything stands still.
func (s *Snapshotter) Locate(ctx context.Context, volumes []snapshot.Volume) ([]snapshot.Volume, error) {
	if s.kube == nil {
		return nil, fmt.Errorf("locate volumes: %w", errNoCluster)
	}
	located := slices.Clone(volumes)
	var missing []string
	var strange []error
	for i := range located {
		why, err := s.locate(ctx, &located[i])
		switch {
		case errors.Is(err, snapshot.ErrUnsupported):
			strange = append(strange, err)
		case err != nil:
			return nil, err
		case why != "":
			missing = append(missing, why)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("locate volumes: %s: %w", strings.Join(missing, ", "), snapshot.ErrNotFound)
	}
	if len(strange) > 0 {
		return nil, fmt.Errorf("locate volumes: %w", errors.Join(strange...))
	}
	if err := s.confirm(ctx, located); err != nil {
		return nil, err
	}
	return located, nil
}

// locate fills in what the cluster knows. Why says what is missing.
func (s *Snapshotter) locate(ctx context.Context, v *snapshot.Volume) (why string, err error) {
	name := v.Namespace + "/" + v.Claim
	claim, err := s.kube.CoreV1().PersistentVolumeClaims(v.Namespace).Get(ctx, v.Claim, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "claim " + name + " does not exist", nil
	}
	if err != nil || ctx.Err() != nil {
		return "", explain(ctx, errors.Join(err, ctx.Err()), "read claim "+name, "")
	}
	if claim.Spec.VolumeName == "" || claim.Status.Phase != corev1.ClaimBound {
		return fmt.Sprintf("claim %s is not bound (%s)", name, claim.Status.Phase), nil
	}
	pv, err := s.kube.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Sprintf("persistentvolume %s of claim %s does not exist", claim.Spec.VolumeName, name), nil
	}
	if err != nil {
		return "", explain(ctx, err, fmt.Sprintf("read persistentvolume %s of claim %s", claim.Spec.VolumeName, name), roleBackup)
	}
	h, err := handleOf(pv)
	if err != nil {
		return "", fmt.Errorf("claim %s: %w", name, err)
	}
	s.learn(h.zone)
	v.PersistentVolume, v.Driver, v.Handle, v.Zone = pv.Name, h.driver, h.id, h.zone
	v.Size, v.Block, v.FSType = h.size, h.block, h.fsType
	return "", nil
}

// confirm fills in what EC2 knows better: that the volumes exist, their zone and size.
func (s *Snapshotter) confirm(ctx context.Context, located []snapshot.Volume) error {
	found, err := s.describeLocated(ctx, located)
	if err != nil {
		return err
	}
	for i := range located {
		v := &located[i]
		volume := found[v.Handle]
		v.Zone = aws.ToString(volume.AvailabilityZone)
		v.Size = int64(aws.ToInt32(volume.Size)) * gib
	}
	return nil
}

// describeLocated asks EC2 for volumes, which are all there or it is ErrNotFound.
func (s *Snapshotter) describeLocated(ctx context.Context, located []snapshot.Volume) (map[string]types.Volume, error) {
	byRegion := map[string][]string{}
	for _, v := range located {
		byRegion[regionOf(v.Zone)] = append(byRegion[regionOf(v.Zone)], v.Handle)
	}
	found := map[string]types.Volume{}
	for region, ids := range byRegion {
		c, err := s.in(region)
		if err != nil {
			return nil, err
		}
		volumes, err := s.volumesByID(ctx, c, ids)
		if err != nil {
			return nil, err
		}
		maps.Copy(found, volumes)
	}
	var missing []string
	for _, v := range located {
		if volume, ok := found[v.Handle]; !ok || gone(volume) {
			missing = append(missing, fmt.Sprintf("volume %s of claim %s/%s", v.Handle, v.Namespace, v.Claim))
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%s: EC2 does not know it in this region and account: %w", strings.Join(missing, ", "), snapshot.ErrNotFound)
	}
	return found, nil
}

func gone(v types.Volume) bool {
	return v.State == types.VolumeStateDeleting || v.State == types.VolumeStateDeleted
}

// volumesByID asks by filter and not by ID: then one that is missing is left out, and not an error for all.
func (s *Snapshotter) volumesByID(ctx context.Context, c *clients, ids []string) (map[string]types.Volume, error) {
	found := map[string]types.Volume{}
	for chunk := range slices.Chunk(ids, filterSize) {
		volumes, err := s.describeVolumes(ctx, c, "volumes "+strings.Join(chunk, ", "), []types.Filter{{Name: aws.String("volume-id"), Values: chunk}})
		if err != nil {
			return nil, err
		}
		for _, v := range volumes {
			found[aws.ToString(v.VolumeId)] = v
		}
	}
	return found, nil
}

// describeVolumes reads all pages.
func (s *Snapshotter) describeVolumes(ctx context.Context, c *clients, object string, filters []types.Filter) ([]types.Volume, error) {
	var volumes []types.Volume
	input := &ec2.DescribeVolumesInput{Filters: filters}
	for {
		var page *ec2.DescribeVolumesOutput
		err := s.call(ctx, listVolumes, object, func(ctx context.Context) (err error) {
			page, err = c.ec2.DescribeVolumes(ctx, input)
			return err
		})
		if err != nil {
			return nil, err
		}
		volumes = append(volumes, page.Volumes...)
		if aws.ToString(page.NextToken) == "" {
			return volumes, nil
		}
		input.NextToken = page.NextToken
	}
}
