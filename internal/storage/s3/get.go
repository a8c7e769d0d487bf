package s3

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"keepset/internal/storage"
)

// Get implements [storage.Store]. A whole object is compared with the
// checksum that the store keeps of it.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, fmt.Errorf("get object %q: %w", key, err)
	}
	if _, err := storage.CheckRange(key, offset, length, -1); err != nil {
		return nil, err
	}
	if length == 0 {
		return s.nothing(ctx, key, offset, 0) // HTTP has no empty range
	}
	in := &s3.GetObjectInput{Bucket: &s.bucket, Key: s.name(key)}
	var options []func(*s3.Options)
	switch {
	case length > 0:
		// An end past 2^63 would be refused as malformed; it is past any object.
		last := max(offset+length-1, offset)
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, last))
	case offset > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	default:
		// Not by in.ChecksumMode: then the SDK would compare too, with an
		// error that nobody can recognise, after all bytes have gone out.
		options = append(options, s3.WithAPIOptions(smithyhttp.SetHeaderValue("X-Amz-Checksum-Mode", "ENABLED")))
	}
	var out *s3.GetObjectOutput
	err := s.again(ctx, func() (err error) {
		out, err = s.client.GetObject(ctx, in, options...)
		return err
	})
	if status(err) == http.StatusRequestedRangeNotSatisfiable && ctx.Err() == nil {
		return s.nothing(ctx, key, offset, length)
	}
	if err != nil {
		return nil, s.describe(ctx, "get", key, err)
	}
	r, err := s.reader(ctx, key, in, out, length)
	if err != nil {
		return nil, errors.Join(err, out.Body.Close())
	}
	return r, nil
}

// reader checks that the store sends what was asked for.
func (s *Store) reader(ctx context.Context, key string, in *s3.GetObjectInput, out *s3.GetObjectOutput, length int64) (io.ReadCloser, error) {
	if out.ContentLength == nil {
		return nil, fmt.Errorf("get object %q: the store does not say how long it is: %w", key, storage.ErrRefused)
	}
	n := *out.ContentLength
	if in.Range != nil {
		want := strings.Replace(strings.TrimSuffix(*in.Range, "-"), "=", " ", 1)
		if first, _, _ := strings.Cut(want, "-"); !strings.HasPrefix(aws.ToString(out.ContentRange), first+"-") {
			return nil, fmt.Errorf("get object %q: asked for %s, the store sends %q: %w",
				key, *in.Range, aws.ToString(out.ContentRange), storage.ErrRefused)
		}
		if length > n {
			return nil, fmt.Errorf("get object %q: only %d of %d bytes lie within it: %w", key, n, length, storage.ErrInvalid)
		}
		if length >= 0 && length < n {
			return nil, fmt.Errorf("get object %q: the store sends %d bytes instead of %d: %w", key, n, length, storage.ErrRefused)
		}
	}
	body := &body{store: s, check: ctx.Err, key: key, ReadCloser: out.Body, left: n}
	if sum, ok := wholeSHA256(out.ChecksumSHA256, out.ChecksumType); ok && in.Range == nil {
		body.hash, body.sum = sha256.New(), sum
	}
	return storage.ExactReader(ctx, body, n), nil
}

// body explains the errors of a response's body and compares its checksum.
type body struct {
	io.ReadCloser
	store *Store
	check func() error
	key   string
	left  int64
	hash  hash.Hash // nil when there is nothing to compare with
	sum   [sha256.Size]byte
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		if ended := b.check(); ended != nil {
			err = ended
		}
		return n, fmt.Errorf("get object %q in bucket %q at %s: %w", b.key, b.store.bucket, b.store.endpoint, err)
	}
	if b.hash == nil {
		return n, err
	}
	b.hash.Write(p[:n]) // never fails
	if b.left == 0 && [sha256.Size]byte(b.hash.Sum(nil)) != b.sum {
		// Not even the last bytes go out: a caller who counts would never see the error.
		return 0, fmt.Errorf("get object %q in bucket %q: %w", b.key, b.store.bucket, storage.ErrCorrupt)
	}
	return n, err
}

// nothing answers a Get of no bytes, and a Get that the store calls outside
// of the object, which the one at its very end is not.
func (s *Store) nothing(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	o, err := s.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	n, err := storage.CheckRange(key, offset, length, o.Size)
	if err != nil {
		return nil, err
	}
	if n > 0 {
		return nil, fmt.Errorf("get object %q: the store refuses the range %d+%d of %d bytes: %w", key, offset, length, o.Size, storage.ErrRefused)
	}
	return storage.ExactReader(ctx, io.NopCloser(strings.NewReader("")), 0), nil
}

// Stat implements [storage.Store].
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := check(ctx, key); err != nil {
		return storage.Object{}, fmt.Errorf("stat object %q: %w", key, err)
	}
	o, err := s.stat(ctx, key)
	return o, s.describe(ctx, "stat", key, err)
}

// stat lists the one key. It comes first of all keys that begin with it.
func (s *Store) stat(ctx context.Context, key string) (storage.Object, error) {
	out, err := s.page(ctx, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.name(key), MaxKeys: aws.Int32(1)})
	if err != nil {
		return storage.Object{}, err
	}
	for _, o := range out.Contents {
		if aws.ToString(o.Key) == s.prefix+key {
			return describeObject(key, o), nil
		}
	}
	return storage.Object{}, errAbsent
}

func (s *Store) page(ctx context.Context, in *s3.ListObjectsV2Input) (out *s3.ListObjectsV2Output, err error) {
	err = s.again(ctx, func() (err error) {
		out, err = s.client.ListObjectsV2(ctx, in)
		return err
	})
	return out, err
}

// List implements [storage.Store].
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if _, err := storage.CheckPrefix(prefix); err != nil {
			yield(storage.Object{}, fmt.Errorf("list objects: %w", err))
			return
		}
		in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.name(prefix)}
		last := ""
		for {
			out, err := s.page(ctx, in)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(storage.Object{}, s.describe(ctx, "list", prefix, err))
				return
			}
			for _, o := range out.Contents {
				name := aws.ToString(o.Key)
				if name <= last {
					yield(storage.Object{}, fmt.Errorf("list objects %q: the store lists %q after %q, not in order of keys as S3 does; directory buckets are not supported: %w",
						prefix, name, last, storage.ErrRefused))
					return
				}
				last = name
				key, ok := strings.CutPrefix(name, s.prefix)
				if !ok || storage.CheckKey(key) != nil {
					continue // somebody else's, such as a folder made by a console
				}
				if !yield(describeObject(key, o), nil) {
					return
				}
			}
			if !aws.ToBool(out.IsTruncated) {
				return
			}
			if aws.ToString(out.NextContinuationToken) == "" {
				yield(storage.Object{}, fmt.Errorf("list objects %q: the store says there is more after %q and not how to get it: %w", prefix, last, storage.ErrRefused))
				return
			}
			in.ContinuationToken = out.NextContinuationToken
		}
	}
}

func describeObject(key string, o types.Object) storage.Object {
	class := string(o.StorageClass)
	if o.StorageClass == types.ObjectStorageClassStandard {
		class = ""
	}
	return storage.Object{
		Key: key, Size: aws.ToInt64(o.Size), LastModified: aws.ToTime(o.LastModified).UTC(), Class: class,
	}
}

func check(ctx context.Context, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	return ctx.Err()
}
