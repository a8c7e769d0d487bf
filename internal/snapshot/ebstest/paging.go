package ebstest

import (
	"encoding/base64"
	"strings"
)

// page cuts a Describe action's answer by MaxResults and NextToken, and
// returns the element that leads to the next one. The rows are in the order of
// their keys, and a page begins after the last key of the one before, so that
// nothing is skipped when rows are deleted meanwhile. See
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html#api-pagination.
// MaxResults must be from 5 to 1000; more counts as 1000. ids is the parameter
// that names the resources, with which MaxResults cannot be combined.
func page[T any](s *Server, q *request, ids string, all []T, key func(T) string) (rows []T, next []element, err error) {
	most, err := q.p.number("MaxResults")
	if err != nil {
		return nil, nil, err
	}
	switch {
	case q.p.has("MaxResults") && most < 5:
		return nil, nil, fail("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value greater than 5.", most)
	case q.p.has("MaxResults") && ids != "" && q.p.has(ids+".1"):
		return nil, nil, fail("InvalidParameterCombination", "The parameter %s cannot be used with the parameter maxResults", ids)
	}
	if t := q.p.get("NextToken"); t != "" {
		after, ok := readToken(q.call.Action, t)
		if !ok {
			return nil, nil, fail("InvalidNextToken", "The specified token '%s' is invalid.", t)
		}
		for len(all) > 0 && key(all[0]) <= after {
			all = all[1:]
		}
	}
	limit := len(all)
	if most > 0 {
		limit = min(limit, int(most), 1000)
	}
	if s.options.PageLimit > 0 {
		limit = min(limit, s.options.PageLimit)
	}
	if limit < len(all) {
		next = []element{text("nextToken", makeToken(q.call.Action, key(all[limit-1])))}
	}
	return all[:limit], next, nil
}

// makeToken is what leads to the rows after a key.
func makeToken(of, after string) string {
	return base64.StdEncoding.EncodeToString([]byte(of + " " + after))
}

func readToken(of, token string) (after string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return "", false
	}
	return strings.CutPrefix(string(b), of+" ")
}
