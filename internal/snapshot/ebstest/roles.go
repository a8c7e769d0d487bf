package ebstest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"keepset/internal/snapshot/ebstest/control"
)

// sts is as much of AWS's Security Token Service as a pod with a role of its
// own (IRSA) needs: AssumeRoleWithWebIdentity, which is not signed. Point
// AWS_ENDPOINT_URL_STS at the fake.
var sts = protocol{
	service: "sts", internal: "InternalFailure", denied: "AccessDenied",
	failure: func(e *Error, requestID string) reply {
		kind := "Sender"
		if e.Status >= http.StatusInternalServerError {
			kind = "Receiver"
		}
		var b strings.Builder
		b.WriteString(xml.Header)
		group("ErrorResponse", group("Error", text("Type", kind), text("Code", e.Code), text("Message", e.Message)),
			text("RequestId", requestID)).write(&b)
		return reply{status: e.Status, header: xmlHeader(), body: []byte(b.String())}
	},
}

// RoleKey is the access key ID that the fake gives to who assumes a role, by
// the role's ARN, so that a test can name it in a Scope or give it rights.
func RoleKey(arn string) string {
	sum := sha256.Sum256([]byte(arn))
	return "ASIA" + strings.ToUpper(hex.EncodeToString(sum[:8]))
}

// assumed is who calls AssumeRoleWithWebIdentity: the role that is assumed.
func (s *Server) assumed(form url.Values) (control.Place, string, error) {
	arn := form.Get("RoleArn")
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") {
		return control.Place{}, "", fail("ValidationError", "%s is invalid", arn)
	}
	return control.Place{Account: parts[4], Region: s.options.Region}, RoleKey(arn), nil
}

// assumeRole gives credentials of the role's account to who shows a token of
// OpenID Connect that is for sts.amazonaws.com and has not expired. Its
// signature is not verified, and every role trusts every service account. See
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html.
func (s *Server) assumeRole(q *request) (reply, error) {
	expires, subject, err := readIdentity(q.p.get("WebIdentityToken"))
	switch {
	case err != nil:
		return reply{}, err
	case !q.now.Before(expires):
		return reply{}, fail("ExpiredTokenException", "Token expired: current date/time %d must be before the expiration date/time %d",
			q.now.Unix(), expires.Unix())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Roles[q.call.AccessKey] = q.Account
	if err := s.save(); err != nil {
		return reply{}, err
	}
	role := q.p.get("RoleArn")
	session := strings.Replace(strings.Replace(role, ":iam:", ":sts:", 1), ":role/", ":assumed-role/", 1) + "/" + q.p.get("RoleSessionName")
	var b strings.Builder
	b.WriteString(xml.Header)
	group("AssumeRoleWithWebIdentityResponse",
		group("AssumeRoleWithWebIdentityResult",
			text("SubjectFromWebIdentityToken", subject), text("Audience", audience),
			group("AssumedRoleUser", text("Arn", session), text("AssumedRoleId", "AROA:"+q.p.get("RoleSessionName"))),
			group("Credentials", text("AccessKeyId", q.call.AccessKey), text("SecretAccessKey", "fake"), text("SessionToken", "fake"),
				text("Expiration", q.now.Add(time.Hour)))),
		group("ResponseMetadata", text("RequestId", newID("r"))),
	).write(&b)
	return reply{status: http.StatusOK, header: xmlHeader(), body: []byte(b.String())}, nil
}

// audience that the EKS webhook asks for in the tokens of service accounts; see
// https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html.
const audience = "sts.amazonaws.com"

// readIdentity reads a token of a service account.
func readIdentity(jwt string) (expires time.Time, subject string, err error) {
	parts := strings.Split(jwt, ".")
	malformed := fail("InvalidIdentityToken", "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	if len(parts) != 3 {
		return expires, "", malformed
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return expires, "", malformed
	}
	var claims struct {
		Audience json.RawMessage `json:"aud"`
		Expires  int64           `json:"exp"`
		Subject  string          `json:"sub"`
	}
	if json.Unmarshal(body, &claims) != nil {
		return expires, "", malformed
	}
	var many []string
	var one string
	if json.Unmarshal(claims.Audience, &many) != nil && json.Unmarshal(claims.Audience, &one) == nil {
		many = []string{one}
	}
	if !slices.Contains(many, audience) {
		return expires, "", fail("InvalidIdentityToken", "Incorrect token audience")
	}
	return time.Unix(claims.Expires, 0), claims.Subject, nil
}
