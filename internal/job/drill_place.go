package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// DrillCluster is a place for drills in Kubernetes: a pod like the ordinal's, on
// claims of its own.
type DrillCluster struct {
	Cluster *statefulset.Client
	// Set is the StatefulSet's name.
	Set   string
	Spec  statefulset.DrillSpec
	Run   statefulset.Run
	Lease statefulset.LeaseOptions
	// Ready asks once whether the server accepts our account; ServerWait bounds
	// the wait for that.
	Ready      func(ctx context.Context, address string) error
	ServerWait time.Duration
	Clock      func() time.Time
	// Note is told how the pod differs from the set's.
	Note func(note string)

	pod *statefulset.DrillPod
}

// Plan implements DrillPlace.
func (d *DrillCluster) Plan(ctx context.Context, member record.PlannedMember) ([]string, error) {
	if err := d.build(ctx, member); err != nil {
		return nil, err
	}
	return d.pod.Plan(ctx)
}

// build makes the pod of a member, without creating it.
func (d *DrillCluster) build(ctx context.Context, member record.PlannedMember) error {
	set, err := d.Cluster.Discover(ctx, d.Set, d.Spec.DiscoverOptions)
	if err != nil {
		return err
	}
	spec := d.Spec
	spec.Ordinal, spec.Sizes = member.Ordinal, map[string]string{}
	for _, claim := range member.Claims {
		spec.Sizes[claim.Template] = claim.Size
	}
	d.pod, err = d.Cluster.NewDrill(set, spec, d.Run)
	return err
}

// Provide implements DrillPlace.
func (d *DrillCluster) Provide(ctx context.Context, member record.PlannedMember) (string, error) {
	if err := d.build(ctx, member); err != nil {
		return "", err
	}
	for _, note := range d.pod.Notes() {
		d.Note(note)
	}
	if err := d.pod.Place(ctx, d.Lease); err != nil {
		if errors.Is(err, statefulset.ErrBusy) {
			return "", fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return "", err
	}
	address, err := d.pod.WaitRunning(ctx)
	if err != nil {
		return "", err
	}
	ready := func(ctx context.Context) error { return d.Ready(ctx, address) }
	err = waitReady(ctx, d.Clock, ready, d.pod.Alive, d.ServerWait)
	if errors.Is(err, dbdump.ErrAccess) {
		err = fmt.Errorf("%w; a fresh volume has the accounts that the image makes, so --target-user must be one of those (root)", err)
	}
	return address, err
}

// Alive implements DrillPlace.
func (d *DrillCluster) Alive(ctx context.Context) error { return d.pod.Alive(ctx) }

// Remove implements DrillPlace.
func (d *DrillCluster) Remove(ctx context.Context) error {
	if d.pod == nil {
		return nil
	}
	return d.pod.Remove(ctx)
}
