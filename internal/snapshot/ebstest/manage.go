package ebstest

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"keepset/internal/snapshot/ebstest/control"
)

// place fills in the defaults of a place.
func (s *Server) place(p control.Place) control.Place {
	if p.Account == "" {
		p.Account = DefaultAccount
	}
	if p.Region == "" {
		p.Region = s.options.Region
	}
	return p
}

// PutInstance makes an instance, with a boot volume when RootGiB is set. One
// that exists stays as it is.
func (s *Server) PutInstance(i control.Instance) (control.Instance, error) {
	i.Place = s.place(i.Place)
	s.mu.Lock()
	known := s.state.Instances[i.ID]
	if known == nil {
		if !slices.Contains(s.options.Regions[i.Region], i.Zone) {
			s.mu.Unlock()
			return i, fail("InvalidZone.NotFound", "The zone '%s' does not exist.", i.Zone)
		}
		s.state.Instances[i.ID] = &instance{Place: i.Place, ID: i.ID, Zone: i.Zone}
	}
	err := s.save()
	s.mu.Unlock()
	if err != nil || known != nil {
		return s.describeInstance(i.ID), err
	}
	if i.RootGiB > 0 {
		v, err := s.CreateVolume(control.Volume{Place: i.Place, Zone: i.Zone, SizeGiB: i.RootGiB})
		if err != nil {
			return i, err
		}
		if err := s.attachRoot(v.ID, i.ID); err != nil {
			return i, err
		}
	}
	return s.describeInstance(i.ID), nil
}

func (s *Server) attachRoot(id, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.state.Volumes[id]
	v.Instance, v.Device, v.Attached, v.Root = to, "/dev/xvda", s.now(), true
	return s.save()
}

func (s *Server) describeInstance(id string) control.Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.state.Instances[id]
	out := control.Instance{Place: i.Place, ID: i.ID, Zone: i.Zone}
	for _, v := range s.attached(id) {
		if v.Root {
			out.Root, out.RootGiB = v.ID, v.SizeGiB
		}
	}
	return out
}

// DeleteInstance terminates an instance: its volumes are detached, and its boot
// volume is deleted. One that is not there is no error.
func (s *Server) DeleteInstance(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.attached(id) {
		root := v.Root
		v.Instance, v.Device, v.Root = "", "", false
		if root {
			if err := s.removeVolume(v); err != nil {
				return err
			}
		}
	}
	delete(s.state.Instances, id)
	return s.save()
}

// CreateVolume makes a volume by the rules of EC2's CreateVolume, outside the
// log, the faults and the rights.
func (s *Server) CreateVolume(v control.Volume) (control.Volume, error) {
	values := url.Values{"Action": {"CreateVolume"}, "AvailabilityZone": {v.Zone}, "VolumeType": {v.Type}}
	for name, text := range map[string]string{"SnapshotId": v.Snapshot, "KmsKeyId": v.KMSKey, "ClientToken": v.ClientToken} {
		if text != "" {
			values.Set(name, text)
		}
	}
	for name, number := range map[string]int64{"Size": v.SizeGiB, "Iops": v.IOPS, "Throughput": v.Throughput} {
		if number != 0 {
			values.Set(name, strconv.FormatInt(number, 10))
		}
	}
	if v.Encrypted {
		values.Set("Encrypted", "true")
	}
	for i, key := range slices.Sorted(maps.Keys(v.Tags)) {
		at := "TagSpecification.1.Tag." + strconv.Itoa(i+1)
		values.Set("TagSpecification.1.ResourceType", "volume")
		values.Set(at+".Key", key)
		values.Set(at+".Value", v.Tags[key])
	}
	q := &request{
		Place: s.place(v.Place), ctx: context.Background(), p: parameters(values), now: s.now(),
		call: Call{Action: "CreateVolume"},
	}
	wanted, err := s.requested(q)
	if err != nil {
		return v, err
	}
	made, _, err := s.addVolume(q, wanted)
	if err != nil {
		return v, err
	}
	return s.Volume(made.ID)
}

// Volume describes a volume.
func (s *Server) Volume(id string) (control.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.known(id)
	if err != nil {
		return control.Volume{}, err
	}
	return s.describe(v), nil
}

// known finds a volume in whatever account and region. The caller holds s.mu.
func (s *Server) known(id string) (*volume, error) {
	v := s.state.Volumes[id]
	if v == nil {
		return nil, fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
	}
	return s.volume(v.Place, id)
}

// Volumes describes all volumes of all accounts and regions, in the order of
// their IDs.
func (s *Server) Volumes() []control.Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []control.Volume{}
	for _, id := range slices.Sorted(maps.Keys(s.state.Volumes)) {
		if v, err := s.known(id); err == nil {
			all = append(all, s.describe(v))
		}
	}
	return all
}

// describe is a volume as the control interface shows it. The caller holds s.mu.
func (s *Server) describe(v *volume) control.Volume {
	return control.Volume{
		Place: v.Place, ID: v.ID, Zone: v.Zone, SizeGiB: v.SizeGiB, Type: v.Type, IOPS: v.IOPS, Throughput: v.Throughput,
		Encrypted: v.Encrypted, KMSKey: v.KMSKey, Snapshot: v.Snapshot, Tags: maps.Clone(v.Tags), State: v.status(s.now()),
		Instance: v.Instance, Device: v.Device, Path: s.volumePath(v.ID),
	}
}

// Attach attaches a volume to an instance, to a free device when none is named.
// One that is attached there already is no error.
func (s *Server) Attach(id, to, device string) (control.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.known(id)
	if err != nil {
		return control.Volume{}, err
	}
	if v.Instance == to {
		return s.describe(v), nil
	}
	if device == "" {
		device = s.freeDevice(to)
	}
	if v, err = s.attach(&request{Place: v.Place, now: s.now()}, id, to, device); err != nil {
		return control.Volume{}, err
	}
	return s.describe(v), s.save()
}

// freeDevice is a name that no volume of the instance has: /dev/xvdaa and on,
// as the EBS CSI driver chooses them. The caller holds s.mu.
func (s *Server) freeDevice(of string) string {
	taken := map[string]bool{}
	for _, v := range s.attached(of) {
		taken[v.Device] = true
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("/dev/xvd%c%c", 'a'+i/26, 'a'+i%26)
		if !taken[name] {
			return name
		}
	}
}

// Detach detaches a volume. One that is not attached is no error.
func (s *Server) Detach(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.known(id)
	if err != nil {
		return err
	}
	v.Instance, v.Device, v.Root = "", "", false
	return s.save()
}

// DeleteVolume deletes a volume by the rules of EC2's DeleteVolume.
func (s *Server) DeleteVolume(id string) error {
	s.mu.Lock()
	v, err := s.known(id)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	place := v.Place
	s.mu.Unlock()
	_, err = s.deleteVolume(&request{Place: place, p: parameters{"VolumeId": {id}}, now: s.now()})
	return err
}

// Snapshots describes all snapshots of all accounts and regions, in the order
// of their IDs.
func (s *Server) Snapshots() []control.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []control.Snapshot{}
	for _, id := range slices.Sorted(maps.Keys(s.state.Snapshots)) {
		n := s.state.Snapshots[id]
		if n.Deleted || n.Copying {
			continue
		}
		state, progress := n.status(s.now())
		all = append(all, control.Snapshot{
			Place: n.Place, ID: id, Volume: n.Volume, SizeGiB: n.SizeGiB, State: state, Progress: progress, Message: n.Message,
			Encrypted: n.Encrypted, KMSKey: n.KMSKey, Tags: maps.Clone(n.Tags), Started: n.Started, Path: s.snapshotPath(id),
		})
	}
	return all
}

// Set changes on command what becomes of a snapshot or volume: whether it is
// Held, is Failing (with a message, for a snapshot), has vanished, or goes its
// Usual way, which for one that was held is to be done at once. Progress is in
// percent, for a snapshot that is pending.
func (s *Server) Set(id string, c control.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.state.Snapshots[id]; n != nil && !n.Deleted {
		if n.Outcome == control.Held && c.Outcome == control.Usual {
			n.Ready = s.now()
		}
		n.Outcome, n.Message, n.Progress, n.Image = c.Outcome, c.Message, c.Progress, c.Image
		return s.save()
	}
	v, err := s.known(id)
	if err != nil {
		return err
	}
	if v.Outcome == control.Held && c.Outcome == control.Usual {
		v.Ready = s.now()
	}
	v.Outcome = c.Outcome
	if c.Outcome == control.Vanishing {
		return s.removeVolume(v)
	}
	return s.save()
}

// DenyKey takes from everyone the rights on a KMS key, or gives them back: an
// encrypted volume that is made with it vanishes, and a copy of a snapshot
// fails.
func (s *Server) DenyKey(key string, denied bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.DeniedKeys[key] = denied
	return s.save()
}

// SetFreezer names the URL that is asked to freeze and thaw; empty: nobody.
func (s *Server) SetFreezer(url string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Freezer = url
	return s.save()
}
