package ebs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"keepset/internal/snapshot"
)

// kind is what an error means to callers and users.
type kind struct {
	sentinel error
	remedy   string
	// again: another attempt may succeed.
	again bool
	// unknown: the action may have been performed all the same.
	unknown bool
}

const (
	remedyKey   = "check the credentials: the role of the pod's ServiceAccount (IRSA, Pod Identity) or AWS_ACCESS_KEY_ID"
	remedyClock = "this machine's clock and AWS's differ, set it right (NTP)"
	remedyQuota = "ask AWS to raise the quota or delete what is not needed"
	remedyRate  = "AWS's rate limits did not let it through; back up fewer members at once"
)

var (
	denied   = kind{sentinel: snapshot.ErrDenied, remedy: remedyKey}
	absent   = kind{sentinel: snapshot.ErrNotFound}
	throttle = kind{sentinel: snapshot.ErrLimit, remedy: remedyRate, again: true}
	quota    = kind{sentinel: snapshot.ErrLimit, remedy: remedyQuota}
	down     = kind{sentinel: snapshot.ErrUnreachable, again: true, unknown: true}
	refused  = kind{sentinel: snapshot.ErrFailed}
)

// Codes that the flow of a call depends on.
const (
	codeMismatch    = "IdempotentParameterMismatch"
	codeNoSnapshot  = "InvalidSnapshot.NotFound"
	codeNoVolume    = "InvalidVolume.NotFound"
	codeNoInstance  = "InvalidInstanceID.NotFound"
	codeVolumeInUse = "VolumeInUse"
	codeDryRun      = "DryRunOperation"
	codeDenied      = "UnauthorizedOperation"
	codeNotFound    = "ResourceNotFoundException"
)

// kinds are the codes of EC2 and of the EBS direct API. Codes:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html and
// https://docs.aws.amazon.com/ebs/latest/userguide/error-retries.html
var kinds = map[string]kind{
	codeDenied:                    {sentinel: snapshot.ErrDenied},
	"AccessDenied":                {sentinel: snapshot.ErrDenied},
	"AccessDeniedException":       {sentinel: snapshot.ErrDenied},
	"Blocked":                     {sentinel: snapshot.ErrDenied, remedy: "AWS has blocked the account, ask AWS"},
	"OptInRequired":               {sentinel: snapshot.ErrDenied, remedy: "the account has not subscribed to EC2 in this region"},
	"PendingVerification":         {sentinel: snapshot.ErrDenied, remedy: "AWS is still verifying the account"},
	"AuthFailure":                 denied,
	"InvalidClientTokenId":        denied,
	"UnrecognizedClientException": denied,
	"SignatureDoesNotMatch":       denied,
	"InvalidSignatureException":   denied,
	"IncompleteSignature":         denied,
	"MissingAuthenticationToken":  denied,
	"ExpiredToken":                denied,
	"ExpiredTokenException":       denied,
	"RequestExpired":              {sentinel: snapshot.ErrDenied, remedy: remedyClock},

	codeNoSnapshot:               absent,
	"InvalidSnapshotID":          absent,
	codeNoVolume:                 absent,
	"InvalidVolume.ZoneMismatch": {sentinel: snapshot.ErrNotFound, remedy: "the volume is in another zone"},
	codeNoInstance:               absent,
	"InvalidZone.NotFound":       {sentinel: snapshot.ErrNotFound, remedy: "name a zone of this region"},
	codeNotFound:                 absent,

	"RequestLimitExceeded":                  throttle,
	"Throttling":                            throttle,
	"ThrottlingException":                   throttle,
	"RequestThrottled":                      throttle,
	"RequestThrottledException":             throttle,
	"TooManyRequestsException":              throttle,
	"ConcurrentLimitExceededException":      throttle,
	"SnapshotCreationPerVolumeRateExceeded": throttle,
	"ConcurrentSnapshotLimitExceeded":       throttle,
	"ConcurrentCreateSnapshotLimitExceeded": throttle,
	"ResourceLimitExceeded":                 throttle, // of CopySnapshot: copies in progress
	"ConcurrentTagAccess":                   throttle,

	"SnapshotLimitExceeded":         quota,
	"VolumeLimitExceeded":           quota,
	"MaxIOPSLimitExceeded":          quota,
	"TagLimitExceeded":              {sentinel: snapshot.ErrLimit, remedy: "the volume has so many tags that ours find no room (50)"},
	"ServiceQuotaExceededException": quota,
	"InsufficientVolumeCapacity":    {sentinel: snapshot.ErrLimit, remedy: "AWS has no such volume to give in this zone now; try again, or another type or zone"},

	"Unavailable":             down,
	"ServiceUnavailable":      down,
	"InternalError":           down,
	"InternalFailure":         down,
	"InternalServerException": down,

	"InvalidSnapshot.InUse": {sentinel: snapshot.ErrFailed, remedy: "an image (AMI) was registered of it, deregister that first"},
	codeVolumeInUse:         {sentinel: snapshot.ErrFailed, remedy: "it is attached to an instance"},
	"IncorrectState":        {sentinel: snapshot.ErrFailed, remedy: "wait until it is ready"},
}

// reasons refine the ValidationException of the EBS direct API.
var reasons = map[types.ValidationExceptionReason]kind{
	types.ValidationExceptionReasonUnrelatedSnapshots:       {sentinel: snapshot.ErrNotFound, remedy: "the two snapshots are not of one volume"},
	types.ValidationExceptionReasonInvalidSnapshotId:        absent,
	types.ValidationExceptionReasonInvalidVolumeSize:        {sentinel: snapshot.ErrUnfit},
	types.ValidationExceptionReasonInvalidDependencyRequest: {sentinel: snapshot.ErrDenied, remedy: "check the KMS key and the rights on it"},
}

// unseenError is about something that we have just made and that AWS may not see yet.
type unseenError struct{ error }

func (e *unseenError) Unwrap() error { return e.error }

// classify says what an error of the SDK means.
func classify(err error) kind {
	if _, ok := errors.AsType[*unseenError](err); ok {
		return kind{sentinel: snapshot.ErrNotFound, again: true}
	}
	if c, ok := errors.AsType[*credentialsError](err); ok {
		return byCredentials(c.err)
	}
	if validation, ok := errors.AsType[*types.ValidationException](err); ok {
		if k, ok := reasons[validation.Reason]; ok {
			return k
		}
		return refused
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if k, ok := kinds[api.ErrorCode()]; ok {
			return k
		}
		if strings.HasSuffix(api.ErrorCode(), ".NotFound") {
			return absent
		}
	}
	// The SDK wraps a request that got no reply in a response of status 0.
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && response.HTTPStatusCode() != 0 {
		return byStatus(response.HTTPStatusCode())
	}
	if api != nil {
		return refused
	}
	return byTransport(err)
}

func byStatus(status int) kind {
	switch {
	case status < http.StatusMultipleChoices: // it was done, and the reply broke off
		return down
	case status == http.StatusTooManyRequests:
		return throttle
	case status >= http.StatusInternalServerError:
		return down
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return denied
	}
	return refused
}

// byCredentials decides on credentials that could not be had. Whoever has none at all ends at
// the instance's metadata service, which is not there.
func byCredentials(err error) kind {
	op, ok := errors.AsType[*smithy.OperationError](err)
	if k := classify(err); k.again && ok && op.ServiceID != "ec2imds" {
		k.unknown = false
		return k
	}
	return kind{sentinel: snapshot.ErrDenied, remedy: "there are no AWS credentials: give the pod's ServiceAccount a role (IRSA or Pod Identity) or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}
}

// byTransport decides on requests that got no reply.
func byTransport(err error) kind {
	var certificate *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.As(err, &certificate):
		return kind{sentinel: snapshot.ErrUnreachable, remedy: "name the certificate authority's file in AWS_CA_BUNDLE"}
	case errors.As(err, &op) && op.Op == "dial":
		k := down
		k.unknown = false
		k.remedy = "check the network policy, the VPC endpoint or AWS_ENDPOINT_URL_EC2"
		return k
	}
	return down
}

// code is AWS's word for an error, empty when there is none.
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// lost says that the action may have been performed although it failed.
func lost(err error) bool {
	d, ok := errors.AsType[*described](err)
	return ok && d.unknown
}

// describe puts an error into words: action, object, sentinel, remedy, and
// what AWS said.
func (a action) describe(object string, k kind, err error) error {
	if k == refused && a == createVolume {
		k = kind{sentinel: snapshot.ErrUnfit, remedy: "the StorageClass and the claim ask for what EBS does not make"}
	}
	if errors.Is(k.sentinel, snapshot.ErrDenied) && k.remedy == "" {
		k.remedy = "allow it (the policies are in deploy/iam)"
		if m := performing.FindStringSubmatch(err.Error()); m != nil && m[1] != a.name {
			k.remedy = "allow " + m[1] + " too (the policies are in deploy/iam)"
		}
	}
	d := &described{action: a.name, object: object, kind: k, err: err}
	return d
}

// performing matches the action that AWS misses, which is not always the one that was called.
var performing = regexp.MustCompile(`not authorized to perform: ([a-z0-9]+:[A-Za-z]+)`)

// described is an error in words.
type described struct {
	kind
	action, object string
	err            error
}

func (d *described) Error() string {
	text := fmt.Sprintf("%s of %s: %v", d.action, d.object, d.sentinel)
	if d.remedy != "" {
		text += ", " + d.remedy
	}
	return text + " (" + said(d.err) + ")"
}

func (d *described) Unwrap() []error { return []error{d.sentinel, d.err} }

// said is what AWS said, without what only its own console can decode.
func said(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		message, _, _ := strings.Cut(api.ErrorMessage(), "Encoded authorization failure message")
		return api.ErrorCode() + ": " + strings.TrimRight(message, " .\n")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", attemptTimeout)
	}
	if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}
