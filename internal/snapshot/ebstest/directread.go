package ebstest

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tokenLife is how long the tokens of blocks are good.
const tokenLife = 7 * 24 * time.Hour

// listing is the answer of the two listings.
type listing struct {
	Blocks        []block   `json:",omitempty"`
	ChangedBlocks []changed `json:",omitempty"`
	BlockSize     int
	VolumeSize    int64
	ExpiryTime    float64
	NextToken     string `json:",omitempty"`
}

type block struct {
	BlockIndex int32
	BlockToken string
}

type changed struct {
	BlockIndex       int32
	FirstBlockToken  string `json:",omitempty"`
	SecondBlockToken string `json:",omitempty"`
}

// listSnapshotBlocks lists the blocks of a snapshot that were written.
func (s *Server) listSnapshotBlocks(q *request, _ []byte) (reply, error) {
	id := q.p.get("SnapshotId")
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.readable(q, id)
	if err != nil {
		return reply{}, err
	}
	m, err := s.blocksOf(id)
	if err != nil {
		return reply{}, err
	}
	indexes, next, err := s.window(q, m.indexes)
	if err != nil {
		return reply{}, err
	}
	expires := q.now.Add(tokenLife)
	out := listing{BlockSize: blockSize, VolumeSize: n.SizeGiB, ExpiryTime: seconds(expires), NextToken: next}
	for _, i := range indexes {
		out.Blocks = append(out.Blocks, block{i, blockToken(id, i, expires)})
	}
	return jsonReply(http.StatusOK, out), nil
}

// listChangedBlocks lists the blocks in which two snapshots of one lineage
// differ. EBS knows what was written; the fake compares what is there, so that
// a block that was written with the bytes that it had is missing.
func (s *Server) listChangedBlocks(q *request, _ []byte) (reply, error) {
	first, second := q.p.get("FirstSnapshotId"), q.p.get("SnapshotId")
	if first == "" {
		return reply{}, invalid("INVALID_SNAPSHOT_ID", "FirstSnapshotId must be specified with SecondSnapshotId")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.readable(q, first)
	if err != nil {
		return reply{}, err
	}
	b, err := s.readable(q, second)
	if err != nil {
		return reply{}, err
	}
	if a.Lineage != b.Lineage {
		return reply{}, invalid("UNRELATED_SNAPSHOTS", "The specified snapshots are unrelated")
	}
	all, err := s.compared(first, second)
	if err != nil {
		return reply{}, err
	}
	indexes, next, err := s.window(q, all.indexes)
	if err != nil {
		return reply{}, err
	}
	expires := q.now.Add(tokenLife)
	out := listing{BlockSize: blockSize, VolumeSize: b.SizeGiB, ExpiryTime: seconds(expires), NextToken: next}
	for _, i := range indexes {
		c := changed{BlockIndex: i}
		if has(s.blocks[first], i) {
			c.FirstBlockToken = blockToken(first, i, expires)
		}
		if has(s.blocks[second], i) {
			c.SecondBlockToken = blockToken(second, i, expires)
		}
		out.ChangedBlocks = append(out.ChangedBlocks, c)
	}
	return jsonReply(http.StatusOK, out), nil
}

func has(m *blockMap, index int32) bool {
	_, found := slices.BinarySearch(m.indexes, index)
	return found
}

// blocksOf is a snapshot's map of blocks. The caller holds s.mu.
func (s *Server) blocksOf(id string) (*blockMap, error) {
	if m := s.blocks[id]; m != nil {
		return m, nil
	}
	m, err := mapBlocks(s.snapshotPath(id))
	if err != nil {
		return nil, err
	}
	s.blocks[id] = m
	return m, nil
}

// compared are the blocks in which two snapshots differ, with the maps of both
// known afterwards. The caller holds s.mu.
func (s *Server) compared(first, second string) (*blockMap, error) {
	a, err := s.blocksOf(first)
	if err != nil {
		return nil, err
	}
	b, err := s.blocksOf(second)
	if err != nil {
		return nil, err
	}
	pair := first + " " + second
	if m := s.blocks[pair]; m != nil {
		return m, nil
	}
	m := &blockMap{sizeGiB: b.sizeGiB}
	union := slices.Concat(a.indexes, b.indexes)
	slices.Sort(union)
	for _, i := range slices.Compact(union) {
		same := false
		if has(a, i) && has(b, i) {
			if same, err = sameBlock(s.snapshotPath(first), s.snapshotPath(second), i); err != nil {
				return nil, fmt.Errorf("fake ec2: compare block %d: %w", i, err)
			}
		}
		if !same {
			m.indexes = append(m.indexes, i)
		}
	}
	s.blocks[pair] = m
	return m, nil
}

// window cuts a listing by MaxResults (100 to 10000, and 10000 without it),
// NextToken and StartingBlockIndex, which counts only without a token.
func (s *Server) window(q *request, all []int32) (indexes []int32, next string, err error) {
	limit := 10000
	if q.p.has("MaxResults") {
		limit, err = strconv.Atoi(q.p.get("MaxResults"))
		if err != nil || limit < 100 || limit > 10000 {
			return nil, "", invalid("INVALID_PARAMETER_VALUE", "MaxResults '%s' is not from 100 to 10000", q.p.get("MaxResults"))
		}
	}
	if s.options.PageLimit > 0 {
		limit = min(limit, s.options.PageLimit)
	}
	of := q.call.Action + " " + q.p.get("FirstSnapshotId") + " " + q.p.get("SnapshotId")
	from := int32(0)
	switch {
	case q.p.get("NextToken") != "":
		after, ok := readToken(of, q.p.get("NextToken"))
		at, err := strconv.ParseInt(after, 10, 32)
		if !ok || err != nil {
			return nil, "", invalid("INVALID_PAGE_TOKEN", "The page token is invalid")
		}
		from = int32(at) + 1
	case q.p.has("StartingBlockIndex"):
		if from, err = q.index("StartingBlockIndex"); err != nil {
			return nil, "", err
		}
	}
	at, _ := slices.BinarySearch(all, from)
	indexes = all[at:]
	if len(indexes) > limit {
		indexes = indexes[:limit]
		next = makeToken(of, strconv.FormatInt(int64(indexes[limit-1]), 10))
	}
	return indexes, next, nil
}

// blockToken is what GetSnapshotBlock wants to hear with a block's index.
func blockToken(id string, index int32, expires time.Time) string {
	plain := fmt.Sprintf("%s %d %d", id, index, expires.UnixMilli())
	sum := sha256.Sum256([]byte(plain))
	return base64.StdEncoding.EncodeToString(append(sum[:12], plain...))
}

// checkToken checks a block's token.
func checkToken(given, id string, index int32, now time.Time) error {
	b, err := base64.StdEncoding.DecodeString(given)
	if err == nil && len(b) > 12 {
		fields := strings.Fields(string(b[12:]))
		if len(fields) == 3 {
			if at, err := strconv.ParseInt(fields[2], 10, 64); err == nil {
				expires := time.UnixMilli(at)
				if blockToken(id, index, expires) == given && now.Before(expires) {
					return nil
				}
			}
		}
	}
	return invalid("INVALID_BLOCK_TOKEN", "The block token is invalid or has expired")
}

// getSnapshotBlock reads a block.
func (s *Server) getSnapshotBlock(q *request, _ []byte) (reply, error) {
	id := q.p.get("SnapshotId")
	index, err := q.index("BlockIndex")
	if err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	n, err := s.readable(q, id)
	var m *blockMap
	if err == nil {
		err = s.usable(n.KMSKey)
	}
	if err == nil {
		m, err = s.blocksOf(id)
	}
	s.mu.Unlock()
	if err != nil {
		return reply{}, err
	}
	if err := checkToken(q.p.get("BlockToken"), id, index, q.now); err != nil {
		return reply{}, err
	}
	if !has(m, index) {
		return reply{}, invalid("INVALID_BLOCK", "The snapshot '%s' has no block %d", id, index)
	}
	data, err := readBlock(s.snapshotPath(id), index)
	if err != nil {
		return reply{}, fmt.Errorf("fake ec2: read block: %w", err)
	}
	return reply{status: http.StatusOK, body: data, header: http.Header{
		"Content-Type": {"application/octet-stream"}, "X-Amz-Data-Length": {strconv.Itoa(len(data))},
		"X-Amz-Checksum": {checksum(data)}, "X-Amz-Checksum-Algorithm": {"SHA256"},
	}}, nil
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(sum[:])
}
