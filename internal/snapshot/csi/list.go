package csi

import (
	"context"
	"fmt"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// listPage is how many VolumeSnapshots are asked for at a time.
const listPage = 500

// List implements [snapshot.Snapshotter]: the VolumeSnapshots in the namespace
// of the owner's set. One that a cut has not come to its end with has no ID as
// long as nothing has been cut, and can be deleted all the same.
func (s *Snapshotter) List(ctx context.Context, owner snapshot.Owner) iter.Seq2[snapshot.Ref, error] {
	return func(yield func(snapshot.Ref, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(snapshot.Ref{}, fmt.Errorf("list the VolumeSnapshots of namespace %s: %w", owner.Set.Namespace, err))
			return
		}
		options := metav1.ListOptions{LabelSelector: selector(owner, s.purpose), Limit: listPage}
		for {
			page, err := s.snapshots.SnapshotV1().VolumeSnapshots(owner.Set.Namespace).List(ctx, options)
			if err != nil {
				yield(snapshot.Ref{}, explain(err, "list the VolumeSnapshots of namespace "+owner.Set.Namespace))
				return
			}
			for i := range page.Items {
				vs := &page.Items[i]
				if !bears(vs, owner, s.purpose) {
					continue
				}
				content, err := s.boundContent(ctx, vs)
				if err != nil && !missing(err) {
					yield(snapshot.Ref{}, err)
					return
				}
				r, _ := decodeRecord(vs)
				if !yield(complete(r, vs, content), nil) {
					return
				}
			}
			if options.Continue = page.Continue; options.Continue == "" {
				return
			}
		}
	}
}
