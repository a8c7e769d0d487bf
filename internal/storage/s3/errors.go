package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"keepset/internal/storage"
)

// Codes that the flow of a request depends on.
const (
	codePrecondition = "PreconditionFailed"
	codeConflict     = "ConditionalRequestConflict"
	codeNoKey        = "NoSuchKey"
	codeNoLock       = "NoSuchObjectLockConfiguration"
)

// errAbsent says that a listing does not show the key.
var errAbsent = errors.New("not listed")

// kind is what an error of the store means to callers and users.
type kind struct {
	sentinel error // nil for failures that may pass
	remedy   string
}

// kinds are the codes of S3 and of stores like it. Codes:
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
var kinds = map[string]kind{
	codeNoKey:        {fs.ErrNotExist, ""},
	codePrecondition: {storage.ErrExists, ""},
	"NoSuchBucket":   {storage.ErrNoContainer, "create it or correct its name"},
	"InvalidRange":   {storage.ErrInvalid, ""},

	"InvalidAccessKeyId":    {storage.ErrCredentials, "the store does not know this access key, check AWS_ACCESS_KEY_ID"},
	"SignatureDoesNotMatch": {storage.ErrCredentials, "the secret key does not belong to the access key, check AWS_SECRET_ACCESS_KEY"},
	"ExpiredToken":          {storage.ErrCredentials, "they have expired and their source gives no newer ones"},
	"ExpiredTokenException": {storage.ErrCredentials, "they have expired and their source gives no newer ones"},
	"TokenRefreshRequired":  {storage.ErrCredentials, "they have expired and their source gives no newer ones"},
	"InvalidToken":          {storage.ErrCredentials, "check AWS_SESSION_TOKEN"},
	"InvalidSecurity":       {storage.ErrCredentials, "check the access key"},
	"NotSignedUp":           {storage.ErrCredentials, "the account has no S3"},
	"RequestTimeTooSkewed": {
		storage.ErrCredentials,
		"this machine's clock and the store's differ by more than 15 minutes, set it right (NTP)",
	},

	"AllAccessDisabled":                  {storage.ErrDenied, "the account's access to the bucket is disabled"},
	"AccountProblem":                     {storage.ErrDenied, "the account has a problem, ask the provider"},
	"InvalidObjectState":                 {storage.ErrRefused, "the object is in an archive class, thaw it first (aws s3api restore-object)"},
	"AuthorizationHeaderMalformed":       {storage.ErrRefused, "the bucket is in another region, set AWS_REGION"},
	"PermanentRedirect":                  {storage.ErrRefused, "the bucket is in another region, set AWS_REGION"},
	"IllegalLocationConstraintException": {storage.ErrRefused, "the bucket is in another region, set AWS_REGION"},

	"QuotaExceeded":                  {storage.ErrFull, "raise the bucket's quota or prune the repository"},
	"XMinioAdminBucketQuotaExceeded": {storage.ErrFull, "raise the bucket's quota or prune the repository"},
	"XMinioStorageFull":              {storage.ErrFull, "enlarge the store or prune the repository"},
	"InsufficientStorage":            {storage.ErrFull, "enlarge the store or prune the repository"},
	"InsufficientCapacity":           {storage.ErrFull, "enlarge the store or prune the repository"},

	// 400 by status and yet worth another attempt: the request was damaged
	// or cut on its way.
	"RequestTimeout":              {},
	"IncompleteBody":              {},
	"BadDigest":                   {},
	"XAmzContentSHA256Mismatch":   {},
	"XAmzContentChecksumMismatch": {},
	"OperationAborted":            {},
	codeConflict:                  {},
}

// rights name what each operation needs to be granted.
var rights = map[string]string{
	"put": "s3:PutObject", "probe with": "s3:PutObject", "get": "s3:GetObject", "compare": "s3:GetObject",
	"look at the lock of": "s3:GetObjectRetention",
	"stat":                "s3:ListBucket", "list": "s3:ListBucket", "delete": "s3:DeleteObject",
}

// describe returns err in the terms of package storage: the operation, the
// object, a sentinel where a caller decides on it, what the user can do,
// and what the store itself said.
func (s *Store) describe(ctx context.Context, operation, key string, err error) error {
	if err == nil {
		return nil
	}
	object := fmt.Sprintf("%s object %q in bucket %q", operation, s.prefix+key, s.bucket)
	if operation == "list" {
		object = fmt.Sprintf("list objects %q in bucket %q", s.prefix+key, s.bucket)
	}
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%s: %w", object, ended)
	}
	k, said := classify(operation, err)
	switch {
	case k.sentinel == nil && said == nil:
		return fmt.Errorf("%s at %s: %w", object, s.endpoint, silent(plain(err)))
	case k.sentinel == nil:
		return fmt.Errorf("%s: %w", object, said)
	case k.remedy == "" && said == nil:
		return fmt.Errorf("%s: %w", object, k.sentinel)
	case k.remedy == "":
		return fmt.Errorf("%s: %w (%w)", object, k.sentinel, said)
	case said == nil:
		return fmt.Errorf("%s: %w, %s: %w", object, k.sentinel, k.remedy, plain(err))
	}
	return fmt.Errorf("%s: %w, %s (%w)", object, k.sentinel, k.remedy, said)
}

// classify returns what err means, and the store's own words if it
// said any.
func classify(operation string, err error) (kind, error) {
	for _, sentinel := range []error{storage.ErrExists, storage.ErrCorrupt} {
		if errors.Is(err, sentinel) {
			return kind{sentinel: sentinel}, nil
		}
	}
	var noCredentials *credentialsError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errAbsent):
		return kind{sentinel: fs.ErrNotExist}, nil
	case errors.As(err, &noCredentials):
		return kind{storage.ErrCredentials, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or give the pod a role"}, nil
	case errors.As(err, &certificate):
		return kind{storage.ErrRefused, "name the certificate authority's file in AWS_CA_BUNDLE"}, nil
	case errors.Is(err, http.ErrSchemeMismatch):
		return kind{storage.ErrRefused, "the endpoint speaks http, not https"}, nil
	}
	said := reply(err)
	if said == nil {
		return kind{}, nil
	}
	if k, ok := aboutLocks(said); ok {
		return k, said
	}
	if k, ok := kinds[said.code]; ok {
		return k, said
	}
	return byStatus(operation, said.status), said
}

// byStatus decides on codes that are not in the table.
func byStatus(operation string, status int) kind {
	switch status {
	case http.StatusUnauthorized:
		return kind{storage.ErrCredentials, "check the access key"}
	case http.StatusForbidden:
		return kind{storage.ErrDenied, "grant " + rights[operation]}
	case http.StatusProxyAuthRequired:
		return kind{storage.ErrRefused, "give the proxy's user and password in HTTPS_PROXY"}
	case http.StatusNotFound:
		return kind{fs.ErrNotExist, ""}
	case http.StatusPreconditionFailed:
		return kind{storage.ErrExists, ""}
	case http.StatusInsufficientStorage:
		return kind{storage.ErrFull, "enlarge the store or prune the repository"}
	// 307 comes from a bucket so new that its name is not known everywhere yet;
	// 499 from a proxy for which we have gone away.
	case http.StatusTemporaryRedirect, http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusConflict,
		499:
		return kind{}
	}
	if status == http.StatusNotImplemented || status >= 300 && status < 500 {
		return kind{storage.ErrRefused, "check the endpoint and the options of the store"}
	}
	return kind{}
}

// answer is an error that the store replied with.
type answer struct {
	status  int
	code    string
	message string
	request string
}

func (a *answer) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the store answered %d %s", a.status, a.code)
	if a.message != "" && a.message != a.code {
		fmt.Fprintf(&b, ": %s", strings.TrimSuffix(a.message, "."))
	}
	if a.request != "" {
		fmt.Fprintf(&b, ", request %s", a.request)
	}
	return b.String()
}

// reply extracts the store's answer, or nil when there was none.
func reply(err error) *answer {
	var response *smithyhttp.ResponseError
	if !errors.As(err, &response) || response.HTTPStatusCode() == 0 {
		return nil
	}
	a := &answer{status: response.HTTPStatusCode(), code: http.StatusText(response.HTTPStatusCode())}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		a.code, a.message = api.ErrorCode(), api.ErrorMessage()
	}
	var id interface{ ServiceRequestID() string }
	if errors.As(err, &id) {
		a.request = id.ServiceRequestID()
	}
	return a
}

// code returns the code of the store's answer, and status its HTTP status, if
// err is one.
func code(err error) string {
	if err == nil {
		return ""
	}
	if a := reply(err); a != nil {
		return a.code
	}
	return ""
}

func status(err error) int {
	if err == nil {
		return 0
	}
	if a := reply(err); a != nil {
		return a.status
	}
	return 0
}

// silent marks the timeouts of dialing and of the TLS handshake; those of an
// open connection are marked already.
func silent(err error) error {
	if _, ok := errors.AsType[*storage.SilentError](err); ok {
		return err
	}
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		return &storage.SilentError{For: dialTimeout, Err: err}
	}
	return err
}

// plain strips what the SDK puts around an error of the network.
func plain(err error) error {
	if credentials, ok := errors.AsType[*credentialsError](err); ok {
		return credentials
	}
	if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		err = op.Err
	}
	if send, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		err = send.Err
	}
	return err
}
