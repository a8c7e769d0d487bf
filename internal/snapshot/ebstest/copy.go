package ebstest

import (
	"fmt"
	"os"

	"keepset/internal/snapshot/ebstest/control"
)

// copySnapshot copies a snapshot of another region, or the same, into the one
// that is asked. A copy of an encrypted snapshot is encrypted; with KmsKeyId
// Encrypted must be true. The copy goes on after the call, and when nobody has
// rights on the key it ends in state error. Its volume ID means nothing. See
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CopySnapshot.html.
func (s *Server) copySnapshot(q *request) ([]element, error) {
	for _, name := range []string{"SourceRegion", "SourceSnapshotId"} {
		if _, err := q.p.required(name); err != nil {
			return nil, err
		}
	}
	tags, err := q.p.specified("snapshot")
	if err != nil {
		return nil, err
	}
	encrypted, err := q.p.flag("Encrypted")
	if err != nil {
		return nil, err
	}
	key := q.p.get("KmsKeyId")
	switch {
	case q.p.has("Encrypted") && !encrypted:
		return nil, fail("InvalidParameterValue", "Encrypted cannot be set to false.")
	case key != "" && !encrypted:
		return nil, fail("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	n, source, err := s.beginCopy(q, tags, encrypted, key)
	if err != nil {
		return nil, err
	}
	err = makeImage(s.snapshotPath(n.ID), source, n.SizeGiB)
	s.mu.Lock()
	defer s.mu.Unlock()
	n.Copying = false
	if err != nil {
		delete(s.state.Snapshots, n.ID)
		return nil, err
	}
	return []element{text("snapshotId", n.ID), tagSet(n.Tags)}, s.save()
}

func (s *Server) beginCopy(q *request, tags map[string]string, encrypted bool, key string) (*snapshot, *os.File, error) {
	outcome, message, hide := q.faults.fate()
	s.mu.Lock()
	defer s.mu.Unlock()
	from := control.Place{Account: q.Account, Region: q.p.get("SourceRegion")}
	if s.options.Regions[from.Region] == nil {
		return nil, nil, fail("InvalidParameterValue", "Invalid source region '%s'.", from.Region)
	}
	source, err := s.snapshot(from, q.p.get("SourceSnapshotId"))
	if err != nil {
		return nil, nil, err
	}
	if state, _ := source.status(q.now); state != "completed" {
		return nil, nil, fail("IncorrectState", "Snapshot is in invalid state - %s", state)
	}
	n := &snapshot{
		Place: q.Place, ID: newID("snap"), Volume: "vol-ffffffff", Description: q.p.get("Description"), SizeGiB: source.SizeGiB,
		Encrypted: encrypted || source.Encrypted, KMSKey: key, Tags: tags, Started: q.now, Ready: q.now.Add(s.options.SnapshotTime),
		Outcome: outcome, Message: message, Hidden: hide, Copying: true,
	}
	n.Lineage = n.ID
	if n.Encrypted && n.KMSKey == "" {
		n.KMSKey = defaultKey(q.Place)
	}
	if n.Outcome == control.Usual && n.Encrypted && s.state.DeniedKeys[n.KMSKey] {
		n.Outcome, n.Message = control.Failing, "Given key ID is not accessible"
	}
	f, err := os.Open(s.snapshotPath(source.ID))
	if err != nil {
		return nil, nil, fmt.Errorf("fake ec2: %w", err)
	}
	s.state.Snapshots[n.ID] = n
	return n, f, nil
}
