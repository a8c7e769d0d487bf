package ebstest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"keepset/internal/snapshot/ebstest/control"
)

// volume finds a volume of an account and region that is there now. The caller
// holds s.mu.
func (s *Server) volume(in control.Place, id string) (*volume, error) {
	if err := checkID(id, "vol-", "volumeId", "InvalidVolumeID.Malformed"); err != nil {
		return nil, err
	}
	v := s.state.Volumes[id]
	if v == nil || v.Place != in {
		return nil, fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
	}
	return v, nil
}

// status of a volume at a time. The caller holds s.mu.
func (v *volume) status(now time.Time) string {
	switch {
	case v.Outcome == control.Failing:
		return "error"
	case v.Copying, v.Outcome == control.Held, now.Before(v.Ready):
		return "creating"
	case v.Instance != "":
		return "in-use"
	default:
		return "available"
	}
}

func (s *Server) createVolume(q *request) ([]element, error) {
	v, err := s.requested(q)
	if err != nil {
		return nil, err
	}
	made, again, err := s.addVolume(q, v)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	body := s.volumeElements(made, q.now)
	if !again {
		// The reply of the call that makes it is always "creating".
		for i := range body {
			if body[i].name == "status" {
				body[i].text = "creating"
			}
		}
	}
	return body, nil
}

// addVolume makes the volume, or finds the one that its client token has made.
func (s *Server) addVolume(q *request, v *volume) (made *volume, again bool, err error) {
	outcome, _, hide := q.faults.fate()
	s.mu.Lock()
	if id, err := s.redeem(q); err != nil || id != "" {
		defer s.mu.Unlock()
		return s.state.Volumes[id], true, err
	}
	source, err := s.source(q.Place, v, q.now)
	if err != nil {
		s.mu.Unlock()
		return nil, false, err
	}
	v.Outcome, v.Hidden, v.Copying = outcome, hide, true
	if v.Encrypted && s.state.DeniedKeys[v.KMSKey] {
		v.Outcome = control.Vanishing
	}
	s.state.Volumes[v.ID] = v
	s.spend(q, v.ID)
	s.mu.Unlock()

	err = makeImage(s.volumePath(v.ID), source, v.SizeGiB)
	s.mu.Lock()
	defer s.mu.Unlock()
	v.Copying = false
	switch {
	case err != nil:
		delete(s.state.Volumes, v.ID)
		delete(s.state.Tokens, tokenKey(q))
		return nil, false, err
	case v.Outcome == control.Vanishing:
		return v, false, s.removeVolume(v)
	default:
		return v, false, s.save()
	}
}

// source opens the image that a new volume is made of, nil for an empty one,
// and gives the volume what it inherits. The caller holds s.mu.
func (s *Server) source(in control.Place, v *volume, now time.Time) (*os.File, error) {
	if v.Snapshot == "" {
		v.inherit(&snapshot{})
		return nil, nil
	}
	n, err := s.snapshot(in, v.Snapshot)
	if err != nil {
		return nil, err
	}
	if state, _ := n.status(now); state != "completed" {
		return nil, fail("IncorrectState", "Snapshot is in invalid state - %s", state)
	}
	if v.SizeGiB == 0 {
		v.SizeGiB = n.SizeGiB
	}
	if v.SizeGiB < n.SizeGiB {
		return nil, fail("InvalidParameterValue", "Volume of %dGiB is smaller than snapshot '%s', expect size >= %dGiB", v.SizeGiB, n.ID, n.SizeGiB)
	}
	if err := v.checkSize(); err != nil {
		return nil, err
	}
	v.inherit(n)
	f, err := os.Open(s.snapshotPath(n.ID))
	if err != nil {
		return nil, fmt.Errorf("fake ec2: %w", err)
	}
	return f, nil
}

// inherit gives a volume what comes with its snapshot. Encryption is inherited,
// and so is the lineage as long as the key stays the same: see
// types.Snapshot.DataEncryptionKeyId.
func (v *volume) inherit(n *snapshot) {
	v.Lineage = v.ID
	if n.Encrypted {
		v.Encrypted = true
		if v.KMSKey == "" {
			v.KMSKey = n.KMSKey
		}
	}
	if v.Encrypted && v.KMSKey == "" {
		v.KMSKey = defaultKey(v.Place)
	}
	if n.ID != "" && v.Encrypted == n.Encrypted && v.KMSKey == n.KMSKey {
		v.Lineage = n.Lineage
	}
}

func (s *Server) describeVolumes(q *request) ([]element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := q.p.list("VolumeId")
	for _, id := range ids {
		v, err := s.volume(q.Place, id)
		if err == nil && hidden(&v.Hidden) {
			err = fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
		}
		if err != nil {
			return nil, err
		}
	}
	var found []*volume
	for _, id := range slices.Sorted(maps.Keys(s.state.Volumes)) {
		v, err := s.volume(q.Place, id)
		if err != nil || len(ids) > 0 && !slices.Contains(ids, id) {
			continue
		}
		ok, err := matches(q.p.filters(), v.attributes(q.now), v.Tags)
		if err != nil {
			return nil, err
		}
		if ok && !hidden(&v.Hidden) {
			found = append(found, v)
		}
	}
	found, next, err := page(s, q, "VolumeId", found, func(v *volume) string { return v.ID })
	if err != nil {
		return nil, err
	}
	return append(next, list("volumeSet", found, func(v *volume) []element { return s.volumeElements(v, q.now) })), nil
}

// hidden counts down the looks that do not see a resource yet.
func hidden(left *int) bool {
	if *left == 0 {
		return false
	}
	*left--
	return true
}

// attributes of a volume by the names of the filters of DescribeVolumes.
func (v *volume) attributes(now time.Time) map[string]string {
	a := map[string]string{
		"availability-zone": v.Zone, "create-time": stamp(v.Created), "encrypted": strconv.FormatBool(v.Encrypted),
		"fast-restored": "false", "multi-attach-enabled": "false", "size": strconv.FormatInt(v.SizeGiB, 10),
		"snapshot-id": v.Snapshot, "status": v.status(now), "volume-id": v.ID, "volume-type": v.Type,
		"attachment.instance-id": v.Instance, "attachment.device": v.Device, "attachment.status": "",
	}
	if v.Instance != "" {
		a["attachment.status"] = "attached"
	}
	return a
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// volumeElements is a volume as the SDK's deserializer of types.Volume reads it.
func (s *Server) volumeElements(v *volume, now time.Time) []element {
	e := []element{
		text("volumeId", v.ID), text("size", v.SizeGiB), text("snapshotId", v.Snapshot), text("availabilityZone", v.Zone),
		text("availabilityZoneId", zoneID(v.Region, slices.Index(s.options.Regions[v.Region], v.Zone))),
		text("status", v.status(now)), text("createTime", v.Created), text("volumeType", v.Type),
		text("encrypted", v.Encrypted), text("multiAttachEnabled", false),
	}
	e = append(e, optional("iops", v.IOPS)...)
	e = append(e, optional("throughput", v.Throughput)...)
	e = append(e, optional("kmsKeyId", v.KMSKey)...)
	e = append(e, optional("volumeInitializationRate", v.Rate)...)
	attachments := group("attachmentSet")
	if v.Instance != "" {
		attachments.children = append(attachments.children, group("item", attachmentElements(v, "attached")...))
	}
	return append(e, attachments, tagSet(v.Tags))
}

// deleteVolume deletes a volume that is not attached. It is gone at once,
// where AWS may show it as "deleting" for minutes.
func (s *Server) deleteVolume(q *request) ([]element, error) {
	id, err := q.p.required("VolumeId")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.volume(q.Place, id)
	if err != nil {
		return nil, err
	}
	if v.Instance != "" {
		return nil, fail("VolumeInUse", "Volume %s is currently attached to %s", id, v.Instance)
	}
	if state := v.status(q.now); state == "creating" {
		return nil, fail("IncorrectState", "The volume '%s' is '%s'", id, state)
	}
	return []element{text("return", true)}, s.removeVolume(v)
}

// removeVolume forgets a volume and its image. The caller holds s.mu.
func (s *Server) removeVolume(v *volume) error {
	delete(s.state.Volumes, v.ID)
	if err := s.save(); err != nil {
		return err
	}
	return removeImage(s.volumePath(v.ID))
}
