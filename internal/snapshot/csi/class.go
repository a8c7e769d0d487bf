package csi

import (
	"context"
	"fmt"
	"slices"
	"strings"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// annotationDefaultClass makes a VolumeSnapshotClass the default of its driver.
const annotationDefaultClass = "snapshot.storage.kubernetes.io/is-default-class"

// snapshotClass is the VolumeSnapshotClass that a cut uses. Name is empty where
// we may not look: then the snapshot-controller takes the driver's default.
// Policy is empty where it is not known.
type snapshotClass struct {
	name   string
	policy volumesnapshotv1.DeletionPolicy
}

// classOf finds the class for volumes of a driver: the configured one, else
// the driver's default, else its only one.
func (s *Snapshotter) classOf(ctx context.Context, driver string) (snapshotClass, error) {
	class, err := s.findClass(ctx, driver)
	if err == nil {
		err = s.goes(class)
	}
	return class, err
}

func (s *Snapshotter) findClass(ctx context.Context, driver string) (snapshotClass, error) {
	if s.class != "" {
		return s.namedClass(ctx, driver)
	}
	list, err := s.classes(ctx)
	if denied(err) {
		return snapshotClass{}, nil
	}
	if err != nil {
		return snapshotClass{}, err
	}
	candidates := slices.DeleteFunc(slices.Clone(list), func(c volumesnapshotv1.VolumeSnapshotClass) bool { return c.Driver != driver })
	defaults := slices.DeleteFunc(slices.Clone(candidates), func(c volumesnapshotv1.VolumeSnapshotClass) bool {
		return c.Annotations[annotationDefaultClass] != "true"
	})
	switch {
	case len(defaults) == 1:
		return s.chosen(defaults[0]), nil
	case len(defaults) > 1:
		return snapshotClass{}, fmt.Errorf("choose a VolumeSnapshotClass for driver %s: %w: more than one is its default (%s); give --volume-snapshot-class, or make one the default",
			driver, snapshot.ErrUnsupported, classNames(defaults))
	case len(candidates) == 1:
		return s.chosen(candidates[0]), nil
	case len(candidates) > 1:
		return snapshotClass{}, fmt.Errorf("choose a VolumeSnapshotClass for driver %s: %w: it has several and none is the default (%s); give --volume-snapshot-class, or annotate one with %s=true",
			driver, snapshot.ErrUnsupported, classNames(candidates), annotationDefaultClass)
	}
	return snapshotClass{}, fmt.Errorf("choose a VolumeSnapshotClass for driver %s: %w: it has none%s; create one, if the driver knows snapshots",
		driver, snapshot.ErrNotFound, others(list))
}

// namedClass is the class of the Options, checked as far as we may look.
func (s *Snapshotter) namedClass(ctx context.Context, driver string) (snapshotClass, error) {
	doing := "read VolumeSnapshotClass " + s.class
	class, err := s.snapshots.SnapshotV1().VolumeSnapshotClasses().Get(ctx, s.class, metav1.GetOptions{})
	switch err = explain(err, doing); {
	case denied(err):
		return snapshotClass{name: s.class}, nil
	case missing(err):
		list, _ := s.classes(ctx)
		return snapshotClass{}, fmt.Errorf("%s: %w%s; give --volume-snapshot-class another one", doing, snapshot.ErrNotFound, others(list))
	case err != nil:
		return snapshotClass{}, err
	case class.Driver != driver:
		return snapshotClass{}, fmt.Errorf("%s: %w: it is for driver %s, and the volume is of driver %s; give --volume-snapshot-class another one",
			doing, snapshot.ErrUnsupported, class.Driver, driver)
	}
	return s.chosen(*class), nil
}

func (s *Snapshotter) classes(ctx context.Context) ([]volumesnapshotv1.VolumeSnapshotClass, error) {
	list, err := s.snapshots.SnapshotV1().VolumeSnapshotClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(err, "list the VolumeSnapshotClasses")
	}
	return list.Items, nil
}

// chosen warns, once, of a class whose snapshots do not outlive their objects.
func (s *Snapshotter) chosen(class volumesnapshotv1.VolumeSnapshotClass) snapshotClass {
	if class.DeletionPolicy == volumesnapshotv1.VolumeSnapshotContentDelete && s.temporary == nil {
		if _, told := s.warned.LoadOrStore(class.Name, true); !told {
			s.log.Warn("whoever deletes the VolumeSnapshots, or their namespace, deletes the volume snapshots; a class with deletionPolicy Retain keeps them",
				"class", class.Name, "driver", class.Driver, "deletionPolicy", class.DeletionPolicy)
		}
	}
	return snapshotClass{name: class.Name, policy: class.DeletionPolicy}
}

func classNames(list []volumesnapshotv1.VolumeSnapshotClass) string {
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = c.Name
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// others says which classes there are at all.
func others(list []volumesnapshotv1.VolumeSnapshotClass) string {
	if len(list) == 0 {
		return ", and the cluster has no other"
	}
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = c.Name + " of driver " + c.Driver
	}
	slices.Sort(names)
	return " (there are " + strings.Join(names, ", ") + ")"
}
