package ebstest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// tokenKey is by what a client token is remembered: it is one account's in
// one region, for one action.
func tokenKey(q *request) string {
	t := q.p.get("ClientToken")
	if t == "" {
		return ""
	}
	return strings.Join([]string{q.Account, q.Region, q.call.Action, t}, " ")
}

// redeem returns the volume that the request's client token has made. With
// other parameters, or when that volume is gone, it fails, and goes on to do
// so. See https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
// and, for the volume that is gone,
// https://github.com/kubernetes-sigs/aws-ebs-csi-driver/issues/3010.
// The caller holds s.mu.
func (s *Server) redeem(q *request) (string, error) {
	t := s.state.Tokens[tokenKey(q)]
	if t == nil {
		return "", nil
	}
	if t.Parameters != identity(q.p) {
		return "", fail("IdempotentParameterMismatch",
			"The client token you have provided was used with different request parameters; please use a different token")
	}
	if _, err := s.volume(q.Place, t.Resource); err != nil {
		return "", fail("IdempotentParameterMismatch",
			"The client token you have provided is associated with a resource that is already deleted. Please use a different client token.")
	}
	return t.Resource, nil
}

// spend remembers the client token. The caller holds s.mu.
func (s *Server) spend(q *request, resource string) {
	if key := tokenKey(q); key != "" {
		s.state.Tokens[key] = &token{Parameters: identity(q.p), Resource: resource}
	}
}

// identity is what must be equal in two requests with one client token.
func identity(p parameters) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if !strings.HasPrefix(name, "X-Amz-") {
			fmt.Fprintf(&b, "%q=%q ", name, p[name])
		}
	}
	return b.String()
}
