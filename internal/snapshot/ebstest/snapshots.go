package ebstest

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/internal/snapshot/ebstest/control"
)

// snapshot finds a snapshot of an account and region that is there now. The
// caller holds s.mu.
func (s *Server) snapshot(in control.Place, id string) (*snapshot, error) {
	if err := checkID(id, "snap-", "snapshotId", "InvalidSnapshotID.Malformed"); err != nil {
		return nil, err
	}
	n := s.state.Snapshots[id]
	if n == nil || n.Place != in || n.Deleted || n.Copying {
		return nil, fail("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
	}
	return n, nil
}

// checkID holds an ID to AWS's form: a prefix and hexadecimal digits.
func checkID(id, prefix, parameter, malformed string) error {
	digits, ok := strings.CutPrefix(id, prefix)
	if !ok {
		return fail("InvalidParameterValue", "Value (%s) for parameter %s is invalid. Expected: '%s...'.", id, parameter, prefix)
	}
	if digits == "" || strings.Trim(digits, "0123456789abcdef") != "" {
		return fail(malformed, "Invalid id: \"%s\"", id)
	}
	return nil
}

// status of a snapshot at a time, and its progress in percent.
func (n *snapshot) status(now time.Time) (string, int) {
	switch {
	case n.Outcome == control.Failing, n.Direct != nil && now.Sub(n.Direct.LastUsed) > n.Direct.Timeout:
		return "error", n.Progress
	case n.Outcome == control.Held, n.Direct != nil:
		return "pending", n.Progress
	case now.Before(n.Ready):
		done := now.Sub(n.Started) * 100 / n.Ready.Sub(n.Started)
		return "pending", max(n.Progress, min(int(done), 99))
	default:
		return "completed", 100
	}
}

func (s *Server) createSnapshot(q *request) ([]element, error) {
	id, err := q.p.required("VolumeId")
	if err != nil {
		return nil, err
	}
	tags, err := q.p.specified("snapshot")
	if err != nil {
		return nil, err
	}
	made, err := s.cut(q, func() ([]*volume, error) {
		v, err := s.volume(q.Place, id)
		return []*volume{v}, err
	}, func(*volume) map[string]string { return tags })
	if err != nil {
		return nil, err
	}
	return s.snapshotElements(made[0], "status", "pending", 0), nil
}

// createSnapshots cuts the volumes of an instance at one point in time. The
// boot volume and up to 40 others may be left out; naming the boot volume among
// those fails. See the comment of types.InstanceSpecification.
func (s *Server) createSnapshots(q *request) ([]element, error) {
	id, err := q.p.required("InstanceSpecification.InstanceId")
	if err != nil {
		return nil, err
	}
	tags, err := q.p.specified("snapshot")
	if err != nil {
		return nil, err
	}
	from := q.p.get("CopyTagsFromSource")
	if from != "" && from != "volume" {
		return nil, fail("InvalidParameterValue", "Value (%s) for parameter CopyTagsFromSource is invalid. Expected: 'volume'.", from)
	}
	made, err := s.cut(q, func() ([]*volume, error) { return s.ofInstance(q, id) }, func(v *volume) map[string]string {
		if from == "" {
			return maps.Clone(tags)
		}
		all := maps.Clone(v.Tags)
		maps.Copy(all, tags)
		return all
	})
	if err != nil {
		return nil, err
	}
	return []element{list("snapshotSet", made, func(n *snapshot) []element {
		return s.snapshotElements(n, "state", "pending", 0)
	})}, nil
}

// ofInstance are the volumes of an instance that CreateSnapshots is about. The
// caller holds s.mu.
func (s *Server) ofInstance(q *request, id string) ([]*volume, error) {
	if _, err := s.instance(q.Place, id); err != nil {
		return nil, err
	}
	noRoot, err := q.p.flag("InstanceSpecification.ExcludeBootVolume")
	if err != nil {
		return nil, err
	}
	excluded := q.p.list("InstanceSpecification.ExcludeDataVolumeId")
	if len(excluded) > 40 {
		return nil, fail("InvalidParameterValue", "The number of ExcludeDataVolumeIds %d exceeds the maximum of 40.", len(excluded))
	}
	attached := s.attached(id)
	for _, e := range excluded {
		i := slices.IndexFunc(attached, func(v *volume) bool { return v.ID == e })
		if i < 0 {
			return nil, fail("InvalidParameterValue", "The volume '%s' is not attached to instance '%s'.", e, id)
		}
		if attached[i].Root {
			return nil, fail("InvalidParameterValue", "The volume '%s' is the root volume of '%s': use ExcludeBootVolume.", e, id)
		}
	}
	wanted := slices.DeleteFunc(attached, func(v *volume) bool { return slices.Contains(excluded, v.ID) || v.Root && noRoot })
	if len(wanted) == 0 {
		return nil, fail("InvalidParameterValue", "No volumes of instance '%s' are left to snapshot.", id)
	}
	return wanted, nil
}

func (s *Server) describeSnapshots(q *request) ([]element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := q.p.list("SnapshotId")
	for _, id := range ids {
		n, err := s.snapshot(q.Place, id)
		if err == nil && hidden(&n.Hidden) {
			err = fail("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
		}
		// Another account's is left out of the answer: see DescribeSnapshots.
		if other := s.state.Snapshots[id]; err != nil && (other == nil || other.Account == q.Account) {
			return nil, err
		}
	}
	owners := q.p.list("Owner")
	var found []*snapshot
	for _, id := range slices.Sorted(maps.Keys(s.state.Snapshots)) {
		n, err := s.snapshot(q.Place, id)
		if err != nil || len(ids) > 0 && !slices.Contains(ids, id) ||
			len(owners) > 0 && !slices.Contains(owners, "self") && !slices.Contains(owners, n.Account) {
			continue
		}
		ok, err := matches(q.p.filters(), n.attributes(q.now), n.Tags)
		if err != nil {
			return nil, err
		}
		if ok && !hidden(&n.Hidden) {
			found = append(found, n)
		}
	}
	found, next, err := page(s, q, "SnapshotId", found, func(n *snapshot) string { return n.ID })
	if err != nil {
		return nil, err
	}
	return append(next, list("snapshotSet", found, func(n *snapshot) []element {
		state, progress := n.status(q.now)
		e := s.snapshotElements(n, "status", state, progress)
		e = append(e, optional("kmsKeyId", n.KMSKey)...)
		if state == "completed" {
			e = append(e, text("completionTime", n.Ready))
		}
		if state == "error" {
			e = append(e, optional("statusMessage", n.message())...)
		}
		return append(e, text("storageTier", "standard"))
	})), nil
}

func (n *snapshot) message() string {
	if n.Message == "" && n.Direct != nil {
		return "The snapshot was not completed in time"
	}
	return n.Message
}

// attributes of a snapshot by the names of the filters of DescribeSnapshots.
func (n *snapshot) attributes(now time.Time) map[string]string {
	state, progress := n.status(now)
	return map[string]string{
		"description": n.Description, "encrypted": strconv.FormatBool(n.Encrypted), "owner-id": n.Account, "owner-alias": "",
		"progress": strconv.Itoa(progress) + "%", "snapshot-id": n.ID, "start-time": stamp(n.Started), "status": state,
		"storage-tier": "standard", "volume-id": n.Volume, "volume-size": strconv.FormatInt(n.SizeGiB, 10),
	}
}

// snapshotElements are what types.Snapshot and types.SnapshotInfo have in
// common; the state's name differs.
func (s *Server) snapshotElements(n *snapshot, stateName, state string, progress int) []element {
	return []element{
		text("snapshotId", n.ID), text("volumeId", n.Volume), text(stateName, state), text("startTime", n.Started),
		text("progress", strconv.Itoa(progress)+"%"), text("ownerId", n.Account), text("volumeSize", n.SizeGiB),
		text("description", n.Description), text("encrypted", n.Encrypted), tagSet(n.Tags),
	}
}

// deleteSnapshot deletes a snapshot, a pending one too, unless an image is
// registered of it.
func (s *Server) deleteSnapshot(q *request) ([]element, error) {
	id, err := q.p.required("SnapshotId")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.snapshot(q.Place, id)
	if err != nil {
		return nil, err
	}
	if n.Image {
		return nil, fail("InvalidSnapshot.InUse", "The snapshot %s is currently in use by ami-0%s", id, id[6:])
	}
	if state, _ := n.status(q.now); state == "pending" && n.Direct == nil {
		n.Deleted, n.Outcome = true, control.Usual
	} else {
		delete(s.state.Snapshots, id)
	}
	delete(s.blocks, id)
	if err := s.save(); err != nil {
		return nil, err
	}
	err = errors.Join(removeImage(s.snapshotPath(id)), removeImage(s.journalPath(id)))
	return []element{text("return", true)}, err
}
