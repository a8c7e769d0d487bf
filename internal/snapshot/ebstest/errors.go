package ebstest

import (
	"errors"
	"fmt"
	"net/http"

	"keepset/internal/snapshot/ebstest/control"
)

// usual is what AWS answers with a code: its status of HTTP and its text.
// The codes are those of
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
// and https://docs.aws.amazon.com/ebs/latest/userguide/error-retries.html;
// statuses of the EBS direct API stand in its model, as the SDK has it. Where a
// code is missing its status is 400, and its text the code.
var usual = map[string]struct {
	status int
	text   string
}{
	"AuthFailure":           {http.StatusUnauthorized, "AWS was not able to validate the provided access credentials"},
	"DryRunOperation":       {http.StatusPreconditionFailed, "Request would have succeeded, but DryRun flag is set."},
	"UnauthorizedOperation": {http.StatusForbidden, "You are not authorized to perform this operation."},
	"RequestLimitExceeded":  {http.StatusServiceUnavailable, "Request limit exceeded."},
	"InternalError":         {http.StatusInternalServerError, "An internal error has occurred"},
	"InternalFailure":       {http.StatusInternalServerError, "The request processing has failed because of an unknown error, exception, or failure."},
	"ServiceUnavailable":    {http.StatusServiceUnavailable, "The request has failed due to a temporary failure of the server."},
	"Unavailable":           {http.StatusServiceUnavailable, "The server is overloaded and can't handle the request."},

	"SnapshotCreationPerVolumeRateExceeded": {0, "The maximum per volume CreateSnapshot request rate has been exceeded. " +
		"Use an increasing or variable sleep interval between requests."},
	"ConcurrentSnapshotLimitExceeded": {0, "Maximum allowed in-progress snapshots for a single volume exceeded."},
	"SnapshotLimitExceeded":           {0, "You have reached the limit on the number of snapshots that you can create."},
	"VolumeLimitExceeded":             {0, "You have reached the limit on the number of volumes that you can create."},
	"MaxIOPSLimitExceeded":            {0, "You have reached the limit on your IOPS usage for that Region."},
	"AttachmentLimitExceeded":         {0, "You have exceeded the maximum number of volumes for the instance."},

	"AccessDeniedException":            {http.StatusForbidden, "You do not have sufficient access to perform this action."},
	"ResourceNotFoundException":        {http.StatusNotFound, "The specified resource does not exist."},
	"ServiceQuotaExceededException":    {http.StatusPaymentRequired, "Your current service quotas do not allow you to perform this action."},
	"ConflictException":                {http.StatusConflict, "The request uses the same client token as a previous, but non-identical request."},
	"InternalServerException":          {http.StatusInternalServerError, "An internal error has occurred."},
	"ThrottlingException":              {0, "Rate exceeded"},
	"RequestThrottledException":        {0, "The number of API requests has exceeded the maximum allowed API request throttling limit for the snapshot."},
	"ConcurrentLimitExceededException": {0, "You have reached the limit for concurrent API requests."},
	"ValidationException":              {0, "The input fails to satisfy the constraints of the EBS direct APIs."},
}

// fail makes an error of AWS's.
func fail(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// invalid makes a ValidationException of the EBS direct API.
func invalid(reason, format string, args ...any) *Error {
	return &Error{Code: "ValidationException", Message: fmt.Sprintf(format, args...), Reason: reason}
}

// complete fills in what a rule leaves open. An error that is not AWS's is the
// fake's own, and arrives as the given code of status 500.
func complete(err error, internal string) *Error {
	e, ok := errors.AsType[*control.Error](err)
	if !ok {
		e = &Error{Code: internal, Message: err.Error()}
	}
	filled := *e
	known := usual[e.Code]
	if filled.Status == 0 {
		filled.Status = known.status
	}
	if filled.Status == 0 {
		filled.Status = http.StatusBadRequest
	}
	if filled.Message == "" {
		filled.Message = known.text
	}
	if filled.Message == "" {
		filled.Message = filled.Code
	}
	return &filled
}
