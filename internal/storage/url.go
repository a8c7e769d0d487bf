package storage

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// Location is a parsed repository URL.
type Location struct {
	// Scheme is "s3", "file" or "mem".
	Scheme string
	// Bucket is set for s3.
	Bucket string
	// Path is the prefix in the bucket, without slashes at its ends and
	// possibly empty, or the absolute directory.
	Path string
}

// String returns the URL again.
func (l Location) String() string {
	switch {
	case l.Scheme == "mem":
		return "mem:"
	case l.Scheme == "s3" && l.Path == "":
		return "s3://" + l.Bucket
	}
	return l.Scheme + "://" + l.Bucket + strings.TrimSuffix("/"+strings.TrimPrefix(l.Path, "/"), "/")
}

// ParseURL parses s3://bucket/prefix, file:///directory and mem:. Bucket,
// prefix and directory are taken literally, as aws s3 and restic do: nothing
// is percent-decoded. Errors wrap [ErrInvalid].
func ParseURL(url string) (Location, error) {
	if !utf8.ValidString(url) || strings.ContainsFunc(url, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return Location{}, fmt.Errorf("repository %q contains a control character: %w", url, ErrInvalid)
	}
	if url == "mem:" {
		return Location{Scheme: "mem"}, nil
	}
	scheme, rest, ok := strings.Cut(url, "://")
	switch {
	case url == "":
		return Location{}, fmt.Errorf("the repository is not named, give s3://bucket/prefix or file:///directory: %w", ErrInvalid)
	case ok && scheme == "s3":
		return parseS3(url, rest)
	case ok && scheme == "file":
		return parseFile(url, rest)
	case strings.HasPrefix(url, "/"):
		return Location{}, fmt.Errorf("repository %q is a path, give file://%s: %w", url, path.Clean(url), ErrInvalid)
	}
	return Location{}, fmt.Errorf("repository %q is neither s3://bucket/prefix nor file:///directory: %w", url, ErrInvalid)
}

func parseS3(url, rest string) (Location, error) {
	// Kept free for options to come; a mistyped one must not become part of a name.
	if strings.ContainsAny(rest, "?#") {
		return Location{}, fmt.Errorf("repository %q: '?' and '#' are not allowed, the endpoint and the like come from AWS_ variables: %w", url, ErrInvalid)
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	if err := checkBucket(bucket); err != nil {
		return Location{}, fmt.Errorf("repository %q: %w", url, err)
	}
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix != "" {
		if err := CheckKey(prefix); err != nil {
			return Location{}, fmt.Errorf("repository %q: %w", url, err)
		}
	}
	return Location{Scheme: "s3", Bucket: bucket, Path: prefix}, nil
}

// checkBucket is broader than Amazon's rules for new buckets, since old ones
// and other stores allow more; it refuses what would change the request's host or path.
func checkBucket(name string) error {
	if name == "" {
		return fmt.Errorf("the bucket's name is missing: %w", ErrInvalid)
	}
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}
	if strings.ContainsAny(name, "@:") {
		return fmt.Errorf("bucket %q must be a name alone, credentials and the endpoint come from AWS_ variables: %w", name, ErrInvalid)
	}
	if strings.ContainsFunc(name, bad) || len(name) < 3 || len(name) > 255 || strings.Contains(name, "..") || strings.Trim(name, ".") != name {
		return fmt.Errorf("bucket %q is no valid name: %w", name, ErrInvalid)
	}
	return nil
}

func parseFile(url, rest string) (Location, error) {
	if !strings.HasPrefix(rest, "/") {
		return Location{}, fmt.Errorf("repository %q: the directory must be absolute, as in file:///%s: %w", url, rest, ErrInvalid)
	}
	dir := path.Clean(rest)
	if dir == "/" {
		return Location{}, fmt.Errorf("repository %q: the root directory cannot be a repository: %w", url, ErrInvalid)
	}
	return Location{Scheme: "file", Path: dir}, nil
}
