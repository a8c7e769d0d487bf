package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"

	"keepset/internal/storage"
)

// conflictTries bounds the repetitions of a conditional write that the store
// could not decide because another one of the same key was under way.
const conflictTries = 8

// Put implements [storage.Store].
func (s *Store) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := check(ctx, key); err != nil {
		return fmt.Errorf("put object %q: %w", key, err)
	}
	sum, err := sumOf(ctx, body)
	if err != nil {
		return fmt.Errorf("put object %q: %w", key, err)
	}
	p := upload{store: s, key: key, body: body, sum: sum, form: s.form()}
	err = p.send(ctx)
	if err != nil && notImplemented(err) {
		err = p.sendPlainer(ctx, err)
	}
	if err != nil {
		return s.describe(ctx, "put", key, err)
	}
	if !p.until.IsZero() && !s.locks.proven.Load() {
		return s.proveLock(ctx, key, p.until)
	}
	return nil
}

// form is how much a request asks of the store.
type form struct{ condition, checksum bool }

func (s *Store) form() form {
	return form{condition: !s.noCondition.Load(), checksum: !s.noChecksum.Load()}
}

func (s *Store) remember(f form) {
	s.noCondition.Store(!f.condition)
	s.noChecksum.Store(!f.checksum)
}

// upload is one Put.
type upload struct {
	store *Store
	key   string
	body  io.ReadSeeker
	sum   [sha256.Size]byte
	form  form
	// until is when the lock of the last request ends.
	until time.Time
}

// sendPlainer repeats the upload in simpler forms until the store
// understands one, and returns first, the error of the full form, if it never does.
func (u *upload) sendPlainer(ctx context.Context, first error) error {
	full := u.form
	for _, f := range []form{{true, false}, {false, true}, {false, false}} {
		if f == full || f.condition && !full.condition || f.checksum && !full.checksum {
			continue
		}
		u.form = f
		err := u.send(ctx)
		if notImplemented(err) {
			continue
		}
		if err == nil || errors.Is(err, storage.ErrExists) || code(err) == codePrecondition {
			u.store.remember(f)
		}
		return err
	}
	return first
}

// send makes the request in the current form.
func (u *upload) send(ctx context.Context) error {
	if !u.form.condition {
		switch _, err := u.store.stat(ctx, u.key); {
		case err == nil:
			return storage.ErrExists
		case !errors.Is(err, errAbsent):
			return err
		}
	}
	for try := 0; ; try++ {
		err := u.store.again(ctx, func() error { return u.request(ctx) })
		if code(err) != codeConflict || try == conflictTries {
			return err
		}
		if err := pause(ctx, time.Duration(try+1)*20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (u *upload) request(ctx context.Context) error {
	if _, err := u.body.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewind the body: %w", err)
	}
	s := u.store
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: s.name(u.key), Body: u.body,
		StorageClass: s.class, ServerSideEncryption: s.encryption,
	}
	if s.kmsKey != "" {
		in.SSEKMSKeyId = &s.kmsKey
	}
	if s.encryption == types.ServerSideEncryptionAwsKms {
		in.BucketKeyEnabled = aws.Bool(true) // one call of KMS a day instead of one an object
	}
	if u.form.condition {
		in.IfNoneMatch = aws.String("*")
	}
	if u.form.checksum {
		in.ChecksumSHA256 = aws.String(base64.StdEncoding.EncodeToString(u.sum[:]))
	}
	if s.locks.wants(u.key) {
		u.until = s.locks.on(in, s.clock.now())
	}
	_, err := s.client.PutObject(ctx, in, withPayloadHash(hex.EncodeToString(u.sum[:])))
	return err
}

// withPayloadHash signs the hash that we have, over HTTPS too, where the SDK
// would leave the payload unsigned; and saves it from computing it again.
func withPayloadHash(sum string) func(*s3.Options) {
	set := middleware.InitializeMiddlewareFunc("KeepsetPayloadHash",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (
			middleware.InitializeOutput, middleware.Metadata, error,
		) {
			return next.HandleInitialize(v4.SetPayloadHash(ctx, sum), in)
		})
	return func(o *s3.Options) {
		o.APIOptions = append(slices.Clip(o.APIOptions), func(stack *middleware.Stack) error {
			return stack.Initialize.Add(set, middleware.Before)
		})
	}
}

// again calls request, and once more after a failure that is over with the
// answer: an expired token is dropped, and the SDK has taken the time from the answer's date.
func (s *Store) again(ctx context.Context, request func() error) error {
	err := request()
	if err == nil || reply(err) != nil {
		s.patience.heard.Store(true)
	}
	switch code(err) {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		s.renew()
	case "RequestTimeTooSkewed":
	default:
		return err
	}
	if ctx.Err() != nil {
		return err
	}
	return request()
}

// Probe implements [storage.Prober].
func (s *Store) Probe(ctx context.Context, key string, body io.ReadSeeker) (storage.Guarantee, error) {
	if err := check(ctx, key); err != nil {
		return storage.GuaranteeUnknown, fmt.Errorf("probe with object %q: %w", key, err)
	}
	sum, err := sumOf(ctx, body)
	if err != nil {
		return storage.GuaranteeUnknown, fmt.Errorf("probe with object %q: %w", key, err)
	}
	if s.noCondition.Load() {
		return storage.GuaranteeChecked, nil
	}
	u := upload{store: s, key: key, body: body, sum: sum, form: s.form()}
	err = u.send(ctx)
	if notImplemented(err) {
		err = u.sendPlainer(ctx, err)
	}
	switch {
	case err == nil:
		// It overwrote the object, with the same bytes: the condition was ignored.
		s.noCondition.Store(true)
		return storage.GuaranteeChecked, nil
	case errors.Is(err, storage.ErrExists):
		return storage.GuaranteeChecked, nil
	case code(err) == codePrecondition:
		return storage.GuaranteeAtomic, nil
	}
	return storage.GuaranteeUnknown, s.describe(ctx, "probe with", key, err)
}

// Holds implements [storage.Comparer] by the checksum that the store keeps.
func (s *Store) Holds(ctx context.Context, key string, body io.ReadSeeker) (same, known bool, err error) {
	if err := check(ctx, key); err != nil {
		return false, false, fmt.Errorf("compare object %q: %w", key, err)
	}
	sum, err := sumOf(ctx, body)
	if err != nil {
		return false, false, fmt.Errorf("compare object %q: %w", key, err)
	}
	var out *s3.HeadObjectOutput
	err = s.again(ctx, func() (err error) {
		out, err = s.client.HeadObject(ctx, &s3.HeadObjectInput{
			Bucket: &s.bucket, Key: s.name(key), ChecksumMode: types.ChecksumModeEnabled,
		})
		return err
	})
	if err != nil {
		return false, false, s.describe(ctx, "compare", key, err)
	}
	theirs, ok := wholeSHA256(out.ChecksumSHA256, out.ChecksumType)
	return theirs == sum, ok, nil
}

// wholeSHA256 decodes a checksum that covers the whole object; those of
// multipart uploads by other tools may not.
func wholeSHA256(value *string, kind types.ChecksumType) (sum [sha256.Size]byte, ok bool) {
	if value == nil || kind == types.ChecksumTypeComposite {
		return sum, false
	}
	raw, err := base64.StdEncoding.DecodeString(*value)
	if err != nil || len(raw) != sha256.Size {
		return sum, false
	}
	return [sha256.Size]byte(raw), true
}

func sumOf(ctx context.Context, body io.ReadSeeker) (sum [sha256.Size]byte, err error) {
	local := storage.Unlimited(body)
	size, err := storage.BodySize(local)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	if err := storage.CopyBody(ctx, h, local, size); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// notImplemented says whether an error may mean that the store does not know
// a header of ours. Stores word it in many ways, so this is broad, and the
// simpler forms decide.
func notImplemented(err error) bool {
	if err == nil {
		return false
	}
	if said := reply(err); said != nil {
		if _, ok := aboutLocks(said); ok {
			return false
		}
	}
	switch status(err) {
	case http.StatusNotImplemented:
		return true
	case http.StatusBadRequest:
		return slices.Contains([]string{
			"NotImplemented", "InvalidArgument", "InvalidRequest", "InvalidHeader", "UnsupportedHeader", "UnsupportedOperation",
			"BadRequest", "MalformedHeader", "InvalidParameter", "UnknownError", "",
		}, code(err))
	}
	return false
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
