package ebstest

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"keepset/internal/snapshot/ebstest/control"
)

// instance finds an instance of an account and region. The caller holds s.mu.
func (s *Server) instance(in control.Place, id string) (*instance, error) {
	i := s.state.Instances[id]
	if i == nil || i.Place != in {
		return nil, fail("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
	}
	return i, nil
}

// attached are the volumes of an instance by the names of their devices. The
// caller holds s.mu.
func (s *Server) attached(id string) []*volume {
	var found []*volume
	for _, key := range slices.Sorted(maps.Keys(s.state.Volumes)) {
		if v := s.state.Volumes[key]; v.Instance == id {
			found = append(found, v)
		}
	}
	slices.SortStableFunc(found, func(a, b *volume) int { return strings.Compare(a.Device, b.Device) })
	return found
}

// attachVolume attaches an available volume to an instance of its zone. It is
// attached at once, where AWS shows it as "attaching" for seconds.
func (s *Server) attachVolume(q *request) ([]element, error) {
	for _, name := range []string{"VolumeId", "InstanceId", "Device"} {
		if _, err := q.p.required(name); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.attach(q, q.p.get("VolumeId"), q.p.get("InstanceId"), q.p.get("Device"))
	if err != nil {
		return nil, err
	}
	return attachmentElements(v, "attaching"), s.save()
}

// attach checks and attaches. The caller holds s.mu.
func (s *Server) attach(q *request, id, to, device string) (*volume, error) {
	v, err := s.volume(q.Place, id)
	if err != nil {
		return nil, err
	}
	i, err := s.instance(q.Place, to)
	if err != nil {
		return nil, err
	}
	switch state := v.status(q.now); {
	case state == "in-use":
		return nil, fail("VolumeInUse", "%s is already attached to an instance", id)
	case state != "available":
		return nil, fail("IncorrectState", "Volume '%s' is in the '%s' state", id, state)
	case v.Zone != i.Zone:
		return nil, fail("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", id, to)
	}
	for _, other := range s.attached(to) {
		if other.Device == device {
			return nil, fail("InvalidParameterValue", "Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)
		}
	}
	v.Instance, v.Device, v.Attached = to, device, q.now
	return v, nil
}

// detachVolume detaches, and the volume is available at once. Detaching one
// that is not attached fails with IncorrectState.
func (s *Server) detachVolume(q *request) ([]element, error) {
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
	if v.Instance == "" {
		return nil, fail("IncorrectState", "Volume '%s' is in the 'available' state.", id)
	}
	if from := q.p.get("InstanceId"); from != "" && from != v.Instance {
		return nil, fail("InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s'.", id, from)
	}
	body := attachmentElements(v, "detaching")
	v.Instance, v.Device, v.Root = "", "", false
	return body, s.save()
}

func attachmentElements(v *volume, state string) []element {
	return []element{
		text("volumeId", v.ID), text("instanceId", v.Instance), text("device", v.Device), text("status", state),
		text("attachTime", v.Attached), text("deleteOnTermination", v.Root),
	}
}

func (s *Server) describeInstances(q *request) ([]element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, next, err := s.instances(q)
	if err != nil {
		return nil, err
	}
	return append(next, list("reservationSet", found, func(i *instance) []element {
		root := ""
		devices := list("blockDeviceMapping", s.attached(i.ID), func(v *volume) []element {
			if v.Root {
				root = v.Device
			}
			return []element{text("deviceName", v.Device), group("ebs",
				text("volumeId", v.ID), text("status", "attached"), text("attachTime", v.Attached), text("deleteOnTermination", v.Root))}
		})
		return []element{
			text("reservationId", "r-"+i.ID[2:]), text("ownerId", i.Account),
			group("instancesSet", group("item",
				text("instanceId", i.ID), instanceState("instanceState"), group("placement", text("availabilityZone", i.Zone)),
				text("rootDeviceType", "ebs"), text("rootDeviceName", root), devices)),
		}
	})), nil
}

func (s *Server) describeInstanceStatus(q *request) ([]element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, next, err := s.instances(q)
	if err != nil {
		return nil, err
	}
	return append(next, list("instanceStatusSet", found, func(i *instance) []element {
		ok := []element{text("status", "ok")}
		return []element{
			text("instanceId", i.ID), text("availabilityZone", i.Zone), instanceState("instanceState"),
			group("systemStatus", ok...), group("instanceStatus", ok...),
		}
	})), nil
}

// instanceState is that of all instances: the fake's run.
func instanceState(name string) element {
	return group(name, text("code", 16), text("name", "running"))
}

// instances are those that a Describe action asks for. The caller holds s.mu.
func (s *Server) instances(q *request) ([]*instance, []element, error) {
	ids := q.p.list("InstanceId")
	for _, id := range ids {
		if _, err := s.instance(q.Place, id); err != nil {
			return nil, nil, err
		}
	}
	var found []*instance
	for _, id := range slices.Sorted(maps.Keys(s.state.Instances)) {
		i, err := s.instance(q.Place, id)
		if err != nil || len(ids) > 0 && !slices.Contains(ids, id) {
			continue
		}
		ok, err := matches(q.p.filters(), map[string]string{
			"instance-id": i.ID, "availability-zone": i.Zone, "instance-state-name": "running",
		}, nil)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			found = append(found, i)
		}
	}
	return page(s, q, "InstanceId", found, func(i *instance) string { return i.ID })
}

// zoneID is a zone's other name, such as us-east-1-az1. AWS's are shorter and
// map to names by account.
func zoneID(region string, index int) string { return region + "-az" + strconv.Itoa(index+1) }

// describeZones lists the zones of the region. An unknown name fails.
func (s *Server) describeZones(q *request) ([]element, error) {
	zones := s.options.Regions[q.Region]
	names := q.p.list("ZoneName")
	for _, name := range names {
		if !slices.Contains(zones, name) {
			return nil, fail("InvalidParameterValue", "Invalid availability zone: [%s]", name)
		}
	}
	var found []string
	for _, zone := range zones {
		ok, err := matches(q.p.filters(), map[string]string{
			"zone-name": zone, "region-name": q.Region, "state": "available", "zone-type": "availability-zone",
			"opt-in-status": "opt-in-not-required",
		}, nil)
		if err != nil {
			return nil, err
		}
		if ok && (len(names) == 0 || slices.Contains(names, zone)) {
			found = append(found, zone)
		}
	}
	return []element{list("availabilityZoneInfo", found, func(zone string) []element {
		return []element{
			text("zoneName", zone), text("zoneId", zoneID(q.Region, slices.Index(zones, zone))), text("zoneState", "available"), text("regionName", q.Region),
			text("zoneType", "availability-zone"), text("optInStatus", "opt-in-not-required"), text("groupName", q.Region),
		}
	})}, nil
}
