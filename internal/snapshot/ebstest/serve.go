package ebstest

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/internal/snapshot/ebstest/control"
)

// request is one call at work.
type request struct {
	control.Place
	ctx    context.Context //nolint:containedctx // it lives as long as the call, like http.Request's
	call   Call
	p      parameters
	faults faults
	now    time.Time
}

// reply is an answer that has not been sent yet.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// protocol is how one of AWS's protocols says that a call failed.
type protocol struct {
	// service in the credential's scope and in the names of rights.
	service string
	// internal is the code of the fake's own failures, denied that of a
	// missing right.
	internal, denied string
	failure          func(e *Error, requestID string) reply
}

// serve takes a call through the log, the faults, the rights and the work.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, p protocol, c Call, work func(*request) (reply, error)) {
	id := newID("r")
	place, key, err := s.identify(r, p.service)
	c.Place, c.AccessKey, c.Time = place, key, s.now()
	s.tagCall(&c)
	c, fired := s.admit(c)
	var answer reply
	if err == nil {
		err = fired.before(r.Context(), c)
	}
	if err == nil {
		err = s.permitted(p, c)
	}
	if err == nil {
		// What the client has asked for is done even if it is gone by then.
		ctx := context.WithoutCancel(r.Context())
		answer, err = work(&request{
			Place: place, ctx: ctx, call: c, p: parameters(c.Parameters), faults: fired, now: c.Time,
		})
	}
	if errors.Is(err, context.Canceled) {
		// The client went away while the call was delayed.
		s.settle(c, &Error{Code: "RequestCanceled"}, true)
		drop(w)
		return
	}
	var failure *Error
	if err != nil {
		failure = p.complete(err, c)
		answer = p.failure(failure, id)
	}
	send := fired.after(r.Context(), c, &answer)
	s.settle(c, failure, !send)
	if !send {
		drop(w)
		return
	}
	maps.Copy(w.Header(), answer.header)
	w.Header().Set("x-amzn-RequestId", id)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer.body)))
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body) // a client that is gone has no use for an error
}

// identify reads who calls, and where, from the credential's scope in the
// signature of version 4: AKID/date/region/service/aws4_request. The signature
// itself is not verified, for the fake knows no secret. See
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
func (s *Server) identify(r *http.Request, service string) (control.Place, string, error) {
	if service == sts.service {
		return s.assumed(r.Form)
	}
	credential := r.URL.Query().Get("X-Amz-Credential")
	if _, rest, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		credential, _, _ = strings.Cut(rest, ",")
	}
	scope := strings.Split(strings.TrimSpace(credential), "/")
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return control.Place{}, "", &Error{Code: "AuthFailure"}
	}
	key, region := scope[0], scope[2]
	place := control.Place{Region: region, Account: s.account(key)}
	switch {
	case place.Account == "" && s.options.Strict:
		return place, key, &Error{Code: "AuthFailure"}
	case s.options.Regions[region] == nil:
		return place, key, fail("AuthFailure", "Credential should be scoped to a valid region, not '%s'.", region)
	case scope[3] != service:
		return place, key, fail("AuthFailure", "Credential should be scoped to correct service: '%s'.", service)
	case place.Account == "":
		place.Account = DefaultAccount
	}
	return place, key, nil
}

// account of an access key, as far as it is known.
func (s *Server) account(key string) string {
	if account := s.options.Accounts[key]; account != "" {
		return account
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Roles[key]
}

// Allow gives an access key rights, by their names in IAM with * as a
// wildcard, such as "ec2:Describe*". A key without any may do everything; with
// some it may do nothing else.
func (s *Server) Allow(accessKey string, rights ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants[accessKey] = append(s.grants[accessKey], rights...)
}

// permitted checks the rights. Who gives tags to what he creates needs
// ec2:CreateTags too; see
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html.
func (s *Server) permitted(p protocol, c Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	grants := s.grants[c.AccessKey]
	if p.service == sts.service {
		return nil
	}
	needed := []string{p.service + ":" + c.Action}
	if c.Parameters.Has("TagSpecification.1.ResourceType") || c.Action == "StartSnapshot" && c.Parameters.Has("Tag.1.Key") {
		needed = append(needed, "ec2:CreateTags")
	}
	for _, right := range needed {
		f := filter{values: grants}
		if len(grants) > 0 && !f.accepts(right) {
			return p.refuse(c, right)
		}
	}
	return nil
}

// refuse is the error of a right that is missing, by its name in IAM.
func (p protocol) refuse(c Call, right string) *Error {
	return fail(p.denied, "You are not authorized to perform this operation. User: arn:aws:iam::%s:user/%s is not authorized "+
		"to perform: %s because no identity-based policy allows the %s action", c.Account, c.AccessKey, right, right)
}

// complete fills in what an error leaves open; a right that a rule denies is
// that of the call.
func (p protocol) complete(err error, c Call) *Error {
	if e, ok := errors.AsType[*Error](err); ok && e.Code == p.denied && e.Message == "" {
		e.Message = p.refuse(c, p.service+":"+c.Action).Message
	}
	return complete(err, p.internal)
}

// tagCall gathers the tags that the call bears; see control.Call.
func (s *Server) tagCall(c *Call) {
	c.Tags = url.Values{}
	p := parameters(c.Parameters)
	for i := 1; c.Parameters.Has("TagSpecification." + strconv.Itoa(i) + ".ResourceType"); i++ {
		for _, t := range p.pairs("TagSpecification." + strconv.Itoa(i) + ".Tag") {
			c.Tags.Add(t.key, t.value)
		}
	}
	for _, t := range p.pairs("Tag") {
		c.Tags.Add(t.key, t.value)
	}
	for _, f := range p.filters() {
		if key, ok := strings.CutPrefix(f.name, "tag:"); ok {
			c.Tags[key] = append(c.Tags[key], f.values...)
		}
	}
	var ids []string
	for _, name := range []string{"VolumeId", "SnapshotId", "SourceSnapshotId", "FirstSnapshotId", "ParentSnapshotId"} {
		ids = append(ids, c.Parameters[name]...)
	}
	for _, name := range []string{"VolumeId", "SnapshotId", "ResourceId"} {
		ids = append(ids, p.list(name)...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		for key, value := range s.state.tags(id) {
			if !slices.Contains(c.Tags[key], value) {
				c.Tags.Add(key, value)
			}
		}
	}
}

// tags of a volume or snapshot, by its ID.
func (st *state) tags(id string) map[string]string {
	if v := st.Volumes[id]; v != nil {
		return v.Tags
	}
	if s := st.Snapshots[id]; s != nil {
		return s.Tags
	}
	return nil
}

// ec2 is the EC2 query protocol.
var ec2 = protocol{
	service: "ec2", internal: "InternalError", denied: "UnauthorizedOperation",
	failure: func(e *Error, requestID string) reply {
		return reply{status: e.Status, header: xmlHeader(), body: queryError(e, requestID)}
	},
}

func xmlHeader() http.Header { return http.Header{"Content-Type": {"text/xml;charset=UTF-8"}} }

// serveQuery answers a call of the EC2 query protocol.
func (s *Server) serveQuery(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	call := Call{Action: r.Form.Get("Action"), Parameters: maps.Clone(r.Form)}
	if call.Action == "AssumeRoleWithWebIdentity" {
		s.serve(w, r, sts, call, s.assumeRole)
		return
	}
	s.serve(w, r, ec2, call, func(q *request) (reply, error) {
		action, known := actions[call.Action]
		if !known {
			return reply{}, fail("InvalidAction", "The action %s is not valid for this web service.", call.Action)
		}
		dry, err := q.p.flag("DryRun")
		if err != nil {
			return reply{}, err
		}
		if dry {
			return reply{}, &Error{Code: "DryRunOperation"}
		}
		body, err := action(s, q)
		if err != nil {
			return reply{}, err
		}
		return reply{status: http.StatusOK, header: xmlHeader(), body: queryReply(call.Action, newID("r"), body)}, nil
	})
}

// actions are EC2's that the fake knows.
var actions = map[string]func(*Server, *request) ([]element, error){
	"CreateVolume":    (*Server).createVolume,
	"DescribeVolumes": (*Server).describeVolumes,
	"DeleteVolume":    (*Server).deleteVolume,
	"AttachVolume":    (*Server).attachVolume,
	"DetachVolume":    (*Server).detachVolume,

	"CreateSnapshot":    (*Server).createSnapshot,
	"CreateSnapshots":   (*Server).createSnapshots,
	"DescribeSnapshots": (*Server).describeSnapshots,
	"DeleteSnapshot":    (*Server).deleteSnapshot,
	"CopySnapshot":      (*Server).copySnapshot,

	"CreateTags":   (*Server).createTags,
	"DeleteTags":   (*Server).deleteTags,
	"DescribeTags": (*Server).describeTags,

	"DescribeAvailabilityZones": (*Server).describeZones,
	"DescribeInstances":         (*Server).describeInstances,
	"DescribeInstanceStatus":    (*Server).describeInstanceStatus,
}
