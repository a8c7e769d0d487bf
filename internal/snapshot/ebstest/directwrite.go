package ebstest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"
)

type startRequest struct {
	VolumeSize       int64
	ParentSnapshotID string `json:"ParentSnapshotId"`
	Tags             []struct{ Key, Value string }
	Description      string
	ClientToken      string
	Encrypted        bool
	KmsKeyArn        string
	Timeout          *int
}

// startSnapshot begins a snapshot that is written block by block. With a parent
// it begins as that one's copy. See
// https://docs.aws.amazon.com/ebs/latest/APIReference/API_StartSnapshot.html.
func (s *Server) startSnapshot(q *request, body []byte) (reply, error) {
	var in startRequest
	if err := json.Unmarshal(body, &in); err != nil {
		return reply{}, invalid("INVALID_PARAMETER_VALUE", "The request is not valid: %s", err)
	}
	n, err := s.started(q, &in)
	if err != nil {
		return reply{}, err
	}
	again, parent, err := s.register(q, &in, n, string(body))
	if err != nil {
		return reply{}, err
	}
	if again != nil {
		return startReply(again), nil
	}
	err = makeImage(s.snapshotPath(n.ID), parent, n.SizeGiB)
	s.mu.Lock()
	defer s.mu.Unlock()
	n.Copying = false
	if err != nil {
		delete(s.state.Snapshots, n.ID)
		delete(s.state.Tokens, tokenKey(q))
		return reply{}, err
	}
	return startReply(n), s.save()
}

// register checks and registers a snapshot that begins, and opens its parent's
// image; or it finds the one that the client token has begun.
func (s *Server) register(q *request, in *startRequest, n *snapshot, body string) (again *snapshot, parent *os.File, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if again, err = s.redeemStart(q, body); err != nil || again != nil {
		return again, nil, err
	}
	if parent, err = s.parentOf(q, in, n); err != nil {
		return nil, nil, err
	}
	s.state.Snapshots[n.ID] = n
	if key := tokenKey(q); key != "" {
		s.state.Tokens[key] = &token{Parameters: body, Resource: n.ID}
	}
	return nil, parent, nil
}

// started is the snapshot that a request describes.
func (s *Server) started(q *request, in *startRequest) (*snapshot, error) {
	timeout := 60
	if in.Timeout != nil {
		timeout = *in.Timeout
	}
	tags := map[string]string{}
	for _, t := range in.Tags {
		tags[t.Key] = t.Value
	}
	if e := checkTags(tags); e != nil {
		return nil, invalid("INVALID_TAG", "%s", e)
	}
	switch {
	case in.VolumeSize < 1 || in.VolumeSize > 65536:
		return nil, invalid("INVALID_VOLUME_SIZE", "VolumeSize %d is not from 1 to 65536 GiB", in.VolumeSize)
	case timeout < 10 || timeout > 60:
		return nil, invalid("INVALID_PARAMETER_VALUE", "Timeout %d is not from 10 to 60 minutes", timeout)
	case in.Encrypted && in.ParentSnapshotID != "":
		return nil, invalid("INVALID_PARAMETER_VALUE", "Encrypted and ParentSnapshotId cannot be specified together")
	case in.KmsKeyArn != "" && !in.Encrypted && in.ParentSnapshotID == "":
		return nil, invalid("INVALID_PARAMETER_VALUE", "KmsKeyArn requires Encrypted")
	}
	outcome, message, hide := q.faults.fate()
	n := &snapshot{
		Place: q.Place, ID: newID("snap"), Volume: "vol-ffffffff", Description: in.Description, SizeGiB: in.VolumeSize,
		Encrypted: in.Encrypted, KMSKey: in.KmsKeyArn, Tags: tags, Started: q.now, Outcome: outcome, Message: message,
		Hidden: hide, Copying: true,
		Direct: &direct{
			Parent: in.ParentSnapshotID, Timeout: time.Duration(timeout) * time.Minute, LastUsed: q.now,
			Written: map[int32]string{},
		},
	}
	n.Lineage = n.ID
	if n.Encrypted && n.KMSKey == "" {
		n.KMSKey = defaultKey(q.Place)
	}
	return n, nil
}

// redeemStart returns the snapshot that the client token has begun. See
// https://docs.aws.amazon.com/ebs/latest/userguide/ebs-direct-api-idempotency.html.
// The caller holds s.mu.
func (s *Server) redeemStart(q *request, body string) (*snapshot, error) {
	t := s.state.Tokens[tokenKey(q)]
	if t == nil {
		return nil, nil
	}
	if t.Parameters != body {
		return nil, &Error{Code: "ConflictException"}
	}
	n := s.state.Snapshots[t.Resource]
	if n == nil || n.Deleted {
		return nil, &Error{Code: "ConflictException", Message: "The client token is associated with a snapshot that is deleted"}
	}
	return n, nil
}

// parentOf opens the parent's image, if there is one, lets the snapshot inherit
// from it, and checks its key. The caller holds s.mu.
func (s *Server) parentOf(q *request, in *startRequest, n *snapshot) (*os.File, error) {
	if in.ParentSnapshotID == "" {
		return nil, s.usable(n.KMSKey)
	}
	parent, err := s.readable(q, in.ParentSnapshotID)
	if err != nil {
		return nil, err
	}
	if n.SizeGiB < parent.SizeGiB {
		return nil, invalid("INVALID_VOLUME_SIZE", "VolumeSize %d is smaller than the parent's %d", n.SizeGiB, parent.SizeGiB)
	}
	n.Lineage, n.Encrypted = parent.Lineage, parent.Encrypted
	if n.KMSKey == "" {
		n.KMSKey = parent.KMSKey
	}
	if err := s.usable(n.KMSKey); err != nil {
		return nil, err
	}
	f, err := os.Open(s.snapshotPath(parent.ID))
	if err != nil {
		return nil, fmt.Errorf("fake ec2: %w", err)
	}
	return f, nil
}

func startReply(n *snapshot) reply {
	type tag struct{ Key, Value string }
	out := struct {
		SnapshotID       string `json:"SnapshotId"`
		OwnerID          string `json:"OwnerId"`
		Status           string
		StartTime        float64
		VolumeSize       int64
		BlockSize        int
		Description      string `json:",omitempty"`
		ParentSnapshotID string `json:"ParentSnapshotId,omitempty"`
		KmsKeyArn        string `json:",omitempty"`
		Tags             []tag  `json:",omitempty"`
	}{
		SnapshotID: n.ID, OwnerID: n.Account, Status: "pending", StartTime: seconds(n.Started), VolumeSize: n.SizeGiB,
		BlockSize: blockSize, Description: n.Description, KmsKeyArn: n.KMSKey,
	}
	if n.Direct != nil {
		out.ParentSnapshotID = n.Direct.Parent
	}
	for _, key := range slices.Sorted(maps.Keys(n.Tags)) {
		out.Tags = append(out.Tags, tag{key, n.Tags[key]})
	}
	return jsonReply(http.StatusCreated, out)
}

// writable finds a snapshot that is being written. The caller holds s.mu.
func (s *Server) writable(q *request, id string) (*snapshot, error) {
	n, err := s.directSnapshot(q, id)
	if err != nil {
		return nil, err
	}
	if state, _ := n.status(q.now); n.Direct == nil || state != "pending" {
		return nil, invalid("INVALID_SNAPSHOT_ID", "The snapshot '%s' is in the %s state and cannot be written", id, state)
	}
	return n, nil
}

// putSnapshotBlock writes a block, whose checksum must be right.
func (s *Server) putSnapshotBlock(q *request, body []byte) (reply, error) {
	id := q.p.get("SnapshotId")
	index, err := q.index("BlockIndex")
	if err != nil {
		return reply{}, err
	}
	switch sum := checksum(body); {
	case q.p.get("ChecksumAlgorithm") != "SHA256":
		return reply{}, invalid("INVALID_PARAMETER_VALUE", "The checksum algorithm '%s' is not SHA256", q.p.get("ChecksumAlgorithm"))
	case q.p.get("DataLength") != strconv.Itoa(blockSize) || len(body) != blockSize:
		return reply{}, invalid("INVALID_BLOCK", "The block is %s and %d, and not %d bytes long", q.p.get("DataLength"), len(body), blockSize)
	case q.p.get("Checksum") != sum:
		return reply{}, invalid("INVALID_BLOCK", "The checksum does not match the block's data")
	}
	s.mu.Lock()
	n, err := s.writable(q, id)
	if err == nil {
		err = s.usable(n.KMSKey)
	}
	if err == nil && (int64(index)+1)*blockSize > n.SizeGiB*gib {
		err = invalid("INVALID_BLOCK", "Block %d is beyond the volume's %d GiB", index, n.SizeGiB)
	}
	s.mu.Unlock()
	if err != nil {
		return reply{}, err
	}
	if err := writeBlock(s.snapshotPath(id), index, body); err != nil {
		return reply{}, fmt.Errorf("fake ec2: write block: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.Direct == nil {
		return reply{}, invalid("CONFLICTING_BLOCK_UPDATE", "The snapshot '%s' was completed meanwhile", id)
	}
	n.Direct.LastUsed = q.now
	if err := s.journal(n, index, checksum(body)); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusCreated, header: http.Header{
		"X-Amz-Checksum": {checksum(body)}, "X-Amz-Checksum-Algorithm": {"SHA256"},
	}}, nil
}

// completeSnapshot seals a snapshot. The count must be that of the blocks that
// were written, and the aggregate, where it is given, that of their checksums
// in the order of the blocks, concatenated as bytes and hashed again. See
// https://docs.aws.amazon.com/ebs/latest/userguide/ebsapis-using-checksums.html.
func (s *Server) completeSnapshot(q *request, _ []byte) (reply, error) {
	count, err := strconv.Atoi(q.p.get("ChangedBlocksCount"))
	if err != nil || count < 0 {
		return reply{}, invalid("INVALID_PARAMETER_VALUE", "ChangedBlocksCount '%s' is not valid", q.p.get("ChangedBlocksCount"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.directSnapshot(q, q.p.get("SnapshotId"))
	if err != nil {
		return reply{}, err
	}
	if state, _ := n.status(q.now); n.Direct == nil && state != "error" {
		return jsonReply(http.StatusAccepted, map[string]string{"Status": state}), nil
	}
	if n, err = s.writable(q, n.ID); err != nil {
		return reply{}, err
	}
	if count != len(n.Direct.Written) {
		return reply{}, invalid("INVALID_PARAMETER_VALUE", "ChangedBlocksCount %d differs from the %d blocks that were written", count, len(n.Direct.Written))
	}
	if sum := q.p.get("Checksum"); sum != "" && sum != aggregate(n.Direct.Written) {
		return reply{}, invalid("INVALID_PARAMETER_VALUE", "The checksum does not match the snapshot's data")
	}
	n.Direct, n.Ready = nil, q.now.Add(s.options.SnapshotTime)
	if err := errors.Join(s.save(), removeImage(s.journalPath(n.ID))); err != nil {
		return reply{}, err
	}
	return jsonReply(http.StatusAccepted, map[string]string{"Status": "pending"}), nil
}

// aggregate is the LINEAR aggregate of blocks' checksums.
func aggregate(written map[int32]string) string {
	h := sha256.New()
	for _, i := range slices.Sorted(maps.Keys(written)) {
		sum, err := base64.StdEncoding.DecodeString(written[i])
		if err != nil {
			return ""
		}
		h.Write(sum)
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}
