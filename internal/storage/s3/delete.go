package s3

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Delete implements [storage.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	_, err := s.Remove(ctx, key)
	return err
}

// Remove implements [storage.Remover]: in a bucket with versions a deletion puts
// a marker over the object, and the bytes stay below it. It never names a
// version, so that what it does can be undone for as long as the version lasts.
func (s *Store) Remove(ctx context.Context, key string) (kept bool, err error) {
	if err := check(ctx, key); err != nil {
		return false, fmt.Errorf("delete object %q: %w", key, err)
	}
	var out *s3.DeleteObjectOutput
	err = s.again(ctx, func() (err error) {
		out, err = s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.name(key)})
		return err
	})
	if code(err) == codeNoKey {
		return false, nil
	}
	if err != nil {
		return false, s.describe(ctx, "delete", key, err)
	}
	return aws.ToBool(out.DeleteMarker), nil
}
