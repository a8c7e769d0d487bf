package ebstest

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ebs is the EBS direct API, REST with JSON; see
// https://docs.aws.amazon.com/ebs/latest/APIReference/API_Operations.html.
var ebs = protocol{
	service: "ebs", internal: "InternalServerException", denied: "AccessDeniedException",
	failure: func(e *Error, _ string) reply {
		body := map[string]string{"Message": e.Message}
		if e.Reason != "" {
			body["Reason"] = e.Reason
		}
		r := jsonReply(e.Status, body)
		r.header.Set("X-Amzn-Errortype", e.Code)
		return r
	},
}

func jsonReply(status int, body any) reply {
	b, err := json.Marshal(body)
	if err != nil {
		return reply{status: http.StatusInternalServerError, header: http.Header{}}
	}
	return reply{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: b}
}

// operation is one of the EBS direct API.
type operation struct {
	action string
	work   func(*Server, *request, []byte) (reply, error)
}

// serveDirect answers a call of the EBS direct API.
func (s *Server) serveDirect(w http.ResponseWriter, r *http.Request) {
	o, values := route(r)
	body, err := io.ReadAll(io.LimitReader(r.Body, 2*blockSize))
	if err != nil {
		return // the client is gone
	}
	values = gather(values, r, o.action, body)
	s.serve(w, r, ebs, Call{Action: o.action, Parameters: values}, func(q *request) (reply, error) {
		if o.work == nil {
			return reply{}, &Error{Code: "UnknownOperationException", Message: r.Method + " " + r.URL.Path, Status: http.StatusNotFound}
		}
		return o.work(s, q, body)
	})
}

// route finds the operation by method and path, and the path's parameters.
func route(r *http.Request) (operation, url.Values) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	is := func(method string, pattern ...string) bool {
		if r.Method != method || len(parts) != len(pattern) {
			return false
		}
		for i, p := range pattern {
			if p != "" && p != parts[i] {
				return false
			}
		}
		return true
	}
	switch {
	case is(http.MethodPost, "snapshots"):
		return operation{"StartSnapshot", (*Server).startSnapshot}, url.Values{}
	case is(http.MethodPost, "snapshots", "completion", ""):
		return operation{"CompleteSnapshot", (*Server).completeSnapshot}, url.Values{"SnapshotId": {parts[2]}}
	case is(http.MethodGet, "snapshots", "", "blocks"):
		return operation{"ListSnapshotBlocks", (*Server).listSnapshotBlocks}, url.Values{"SnapshotId": {parts[1]}}
	case is(http.MethodGet, "snapshots", "", "changedblocks"):
		return operation{"ListChangedBlocks", (*Server).listChangedBlocks}, url.Values{"SnapshotId": {parts[1]}}
	case is(http.MethodGet, "snapshots", "", "blocks", ""):
		return operation{"GetSnapshotBlock", (*Server).getSnapshotBlock}, url.Values{"SnapshotId": {parts[1]}, "BlockIndex": {parts[3]}}
	case is(http.MethodPut, "snapshots", "", "blocks", ""):
		return operation{"PutSnapshotBlock", (*Server).putSnapshotBlock}, url.Values{"SnapshotId": {parts[1]}, "BlockIndex": {parts[3]}}
	default:
		return operation{action: "Unknown"}, url.Values{}
	}
}

// headers of the EBS direct API that are parameters, by their names in the API.
var headers = map[string]string{
	"DataLength": "x-amz-Data-Length", "Progress": "x-amz-Progress", "Checksum": "x-amz-Checksum",
	"ChecksumAlgorithm": "x-amz-Checksum-Algorithm", "ChecksumAggregationMethod": "x-amz-Checksum-Aggregation-Method",
	"ChangedBlocksCount": "x-amz-ChangedBlocksCount",
}

// queries of the EBS direct API that are parameters.
var queries = map[string]string{
	"FirstSnapshotId": "firstSnapshotId", "NextToken": "pageToken", "MaxResults": "maxResults",
	"StartingBlockIndex": "startingBlockIndex", "BlockToken": "blockToken",
}

// gather joins the parameters from path, query, headers and body. Tags become
// those of EC2's protocol, for the log.
func gather(values url.Values, r *http.Request, action string, body []byte) url.Values {
	values = maps.Clone(values)
	for name, header := range headers {
		if v := r.Header.Get(header); v != "" {
			values.Set(name, v)
		}
	}
	for name, query := range queries {
		if r.URL.Query().Has(query) {
			values.Set(name, r.URL.Query().Get(query))
		}
	}
	if action != "StartSnapshot" {
		return values
	}
	var start startRequest
	if json.Unmarshal(body, &start) != nil {
		return values // StartSnapshot itself complains
	}
	for i, t := range start.Tags {
		at := "Tag." + strconv.Itoa(i+1)
		values.Set(at+".Key", t.Key)
		values.Set(at+".Value", t.Value)
	}
	for name, v := range map[string]string{
		"ParentSnapshotId": start.ParentSnapshotID, "Description": start.Description, "ClientToken": start.ClientToken,
		"KmsKeyArn": start.KmsKeyArn, "VolumeSize": strconv.FormatInt(start.VolumeSize, 10),
	} {
		if v != "" {
			values.Set(name, v)
		}
	}
	return values
}

// readable finds a snapshot whose blocks can be read: it must be complete.
// The caller holds s.mu.
func (s *Server) readable(q *request, id string) (*snapshot, error) {
	n, err := s.directSnapshot(q, id)
	if err != nil {
		return nil, err
	}
	if state, _ := n.status(q.now); state != "completed" {
		return nil, invalid("INVALID_SNAPSHOT_ID", "The snapshot '%s' is in the %s state", id, state)
	}
	return n, nil
}

// directSnapshot finds a snapshot for the EBS direct API. The caller holds s.mu.
func (s *Server) directSnapshot(q *request, id string) (*snapshot, error) {
	if !strings.HasPrefix(id, "snap-") {
		return nil, invalid("INVALID_SNAPSHOT_ID", "The snapshot ID '%s' is not valid", id)
	}
	n, err := s.snapshot(q.Place, id)
	if err != nil || hidden(&n.Hidden) {
		return nil, &Error{Code: "ResourceNotFoundException", Message: "The snapshot '" + id + "' does not exist.", Reason: "SNAPSHOT_NOT_FOUND"}
	}
	return n, nil
}

// usable checks the rights on the key that a snapshot's data is encrypted with.
// The caller holds s.mu.
func (s *Server) usable(key string) error {
	if s.state.DeniedKeys[key] {
		return &Error{Code: "AccessDeniedException", Message: "The KMS key " + key + " is not accessible", Reason: "DEPENDENCY_ACCESS_DENIED"}
	}
	return nil
}

// index is a parameter that is a block's index.
func (q *request) index(name string) (int32, error) {
	i, err := strconv.ParseInt(q.p.get(name), 10, 32)
	if err != nil || i < 0 {
		return 0, invalid("INVALID_PARAMETER_VALUE", "%s '%s' is not a block's index", name, q.p.get(name))
	}
	return int32(i), nil
}

// seconds is a time as the EBS direct API writes it.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
