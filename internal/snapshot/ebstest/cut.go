package ebstest

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// cut makes snapshots of volumes, all of them or none. Their images are copied
// while the call runs, between Freeze and thaw.
func (s *Server) cut(q *request, choose func() ([]*volume, error), tags func(*volume) map[string]string) ([]*snapshot, error) {
	made, sources, err := s.begin(q, choose, tags)
	if err != nil {
		return nil, err
	}
	err = s.copyFrozen(q, made, sources)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range made {
		n.Copying = false
		if err != nil {
			delete(s.state.Snapshots, n.ID)
			err = errors.Join(err, removeImage(s.snapshotPath(n.ID)))
		}
	}
	if err != nil {
		return nil, err
	}
	return made, s.save()
}

// begin checks and registers the snapshots, and opens the images that they are
// to be copied from, so that nothing that happens to the volumes meanwhile
// matters.
func (s *Server) begin(q *request, choose func() ([]*volume, error), tags func(*volume) map[string]string) (made []*snapshot, sources []*os.File, err error) {
	outcome, message, hide := q.faults.fate()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if err != nil {
			closeAll(sources)
		}
	}()
	volumes, err := choose()
	if err != nil {
		return nil, nil, err
	}
	for _, v := range volumes {
		if err := s.maySnapshot(v, q.now); err != nil {
			return nil, sources, err
		}
		given := tags(v)
		if err := checkTags(given); err != nil {
			return nil, sources, err
		}
		f, err := os.Open(s.volumePath(v.ID))
		if err != nil {
			return nil, sources, fmt.Errorf("fake ec2: %w", err)
		}
		sources = append(sources, f)
		made = append(made, &snapshot{
			Place: q.Place, ID: newID("snap"), Volume: v.ID, Description: q.p.get("Description"), SizeGiB: v.SizeGiB,
			Encrypted: v.Encrypted, KMSKey: v.KMSKey, Tags: given, Started: q.now, Ready: q.now.Add(s.options.SnapshotTime),
			Outcome: outcome, Message: message, Hidden: hide, Lineage: v.Lineage, Copying: true,
		})
	}
	for _, n := range made {
		s.state.Snapshots[n.ID] = n
	}
	return made, sources, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // they were only read
	}
}

// maySnapshot applies AWS's limits: 15 seconds between concurrent snapshots of
// a volume, and five that are not complete, or one of an st1 or sc1 volume;
// failed ones count, and deleted ones while they go on. See
// https://repost.aws/knowledge-center/ebs-snapshot-stuck. The caller holds s.mu.
func (s *Server) maySnapshot(v *volume, now time.Time) error {
	if state := v.status(now); state != "available" && state != "in-use" {
		return fail("IncorrectState", "The volume '%s' is in the '%s' state", v.ID, state)
	}
	pending := 0
	for id, n := range s.state.Snapshots {
		if n.Volume != v.ID {
			continue
		}
		switch state, _ := n.status(now); {
		case state == "completed" && n.Deleted:
			delete(s.state.Snapshots, id)
		case state == "pending" && now.Sub(n.Started) < s.options.SnapshotInterval:
			return &Error{Code: "SnapshotCreationPerVolumeRateExceeded"}
		case state != "completed":
			pending++
		}
	}
	if pending >= volumeTypes[v.Type].pending {
		return &Error{Code: "ConcurrentSnapshotLimitExceeded"}
	}
	return nil
}

// copyFrozen copies the images while whoever mounts the volumes holds still.
func (s *Server) copyFrozen(q *request, made []*snapshot, sources []*os.File) (err error) {
	defer closeAll(sources)
	ids := make([]string, len(made))
	for i, n := range made {
		ids[i] = n.Volume
	}
	thaw, err := s.freeze(q.ctx, ids)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, thaw()) }()
	for i, n := range made {
		if err := copyImage(s.snapshotPath(n.ID), sources[i], n.SizeGiB); err != nil {
			return err
		}
	}
	return nil
}
