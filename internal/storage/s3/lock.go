package s3

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"keepset/internal/storage"
)

// This file locks new objects (S3 Object Lock). A lock is part of the Put, so that no object is
// ever there without it, and it ends at a time of the store's clock.
//
// A store that does not know the headers may take the object and say nothing. So
// the first lock of a process is looked at, and if it is not there the Put has failed.

// Lock says which new objects are locked, how, and for how long.
type Lock struct {
	// Mode is "governance", in which who has a right of its own may end a lock, or
	// "compliance", in which nobody may; empty for no locks.
	Mode string
	// For is counted from the Put.
	For time.Duration
	// Of says whether an object is locked; nil locks all.
	Of func(key string) bool
}

func (l Lock) check() error {
	switch {
	case l.Mode == "" && l.For == 0:
		return nil
	case l.mode() == "":
		return fmt.Errorf("lock mode %q is none of governance, compliance: %w", l.Mode, storage.ErrInvalid)
	case l.For <= 0:
		return fmt.Errorf("a lock of %s: want more than nothing: %w", l.For, storage.ErrInvalid)
	}
	return nil
}

func (l Lock) mode() types.ObjectLockMode {
	switch l.Mode {
	case "governance":
		return types.ObjectLockModeGovernance
	case "compliance":
		return types.ObjectLockModeCompliance
	}
	return ""
}

// wants says whether an object is to be locked.
func (l Lock) wants(key string) bool { return l.Mode != "" && (l.Of == nil || l.Of(key)) }

// locks is what a store knows of its locks.
type locks struct {
	Lock
	// proven is set once the store has shown that it keeps a lock.
	proven atomic.Bool
}

// on puts the lock into a request, and returns when it ends.
func (l *locks) on(in *s3.PutObjectInput, now time.Time) time.Time {
	until := now.Add(l.For).UTC().Truncate(time.Second)
	in.ObjectLockMode, in.ObjectLockRetainUntilDate = l.mode(), &until
	return until
}

// proveLock looks whether the store has kept the lock of an object. The error is
// in the terms of package storage.
func (s *Store) proveLock(ctx context.Context, key string, until time.Time) error {
	const operation = "look at the lock of"
	var out *s3.GetObjectRetentionOutput
	err := s.again(ctx, func() (err error) {
		out, err = s.client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: &s.bucket, Key: s.name(key)})
		return err
	})
	if err != nil && code(err) != codeNoLock {
		return s.describe(ctx, operation, key, err)
	}
	if err == nil && out.Retention != nil {
		got := out.Retention
		if string(got.Mode) == string(s.locks.mode()) && !aws.ToTime(got.RetainUntilDate).Before(until) {
			s.locks.proven.Store(true)
			return nil
		}
	}
	return fmt.Errorf("%s object %q in bucket %q: %w: it took the object and not the lock, so that nothing would be protected; use a store that has Object Lock, or leave --s3-object-lock-mode out",
		operation, s.prefix+key, s.bucket, storage.ErrRefused)
}

// aboutLocks finds what stores say of locks in words only: the codes are those of a denied
// or a malformed request. Words of Amazon S3, versitygw and Ceph; of MinIO.
func aboutLocks(said *answer) (kind, bool) {
	text := strings.ToLower(strings.ReplaceAll(said.message, " ", ""))
	switch {
	case strings.Contains(text, "missingobjectlockconfiguration"):
		return kind{
			storage.ErrRefused,
			"the bucket has no Object Lock: make one that has (aws s3api create-bucket --object-lock-enabled-for-bucket), or leave --s3-object-lock-mode out",
		}, true
	case strings.Contains(text, "byobjectlock"), strings.Contains(text, "wormprotected"):
		return kind{storage.ErrLocked, "nobody can delete it before its lock ends"}, true
	}
	return kind{}, false
}
