package storage

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits on keys. S3 allows 1024 bytes for bucket prefix and key together
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html);
// file systems allow 255 bytes a name.
const (
	maxKey     = 900
	maxElement = 255
)

// ReservedPrefix begins elements that stores keep for themselves, such as the
// place of half-written files. No key has such an element.
const ReservedPrefix = ".keepset-"

// CheckKey returns nil for a valid key and an error that wraps [ErrInvalid]
// for any other. A key is relative, non-empty, slash-separated, valid UTF-8
// without control characters, at most 900 bytes long; its elements are 1 to
// 255 bytes long, not "." or "..", and do not begin with [ReservedPrefix].
func CheckKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("key %.40q... is longer than %d bytes: %w", key, maxKey, ErrInvalid)
	}
	if !utf8.ValidString(key) {
		return fmt.Errorf("key %q is not valid UTF-8: %w", key, ErrInvalid)
	}
	// XML 1.0, in which object stores list keys, cannot carry control characters
	// nor the two non-characters.
	bad := func(r rune) bool { return r < 0x20 || r == 0x7f || r == 0xfffe || r == 0xffff }
	if strings.ContainsFunc(key, bad) {
		return fmt.Errorf("key %q contains a control character: %w", key, ErrInvalid)
	}
	for element := range strings.SplitSeq(key, "/") {
		if err := checkElement(element); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return nil
}

func checkElement(element string) error {
	switch {
	case element == "":
		return fmt.Errorf("empty element: %w", ErrInvalid)
	case element == "." || element == "..":
		return fmt.Errorf("element %q: %w", element, ErrInvalid)
	case len(element) > maxElement:
		return fmt.Errorf("element %.40q... is longer than %d bytes: %w", element, maxElement, ErrInvalid)
	case strings.HasPrefix(element, ReservedPrefix):
		return fmt.Errorf("element %q is reserved for the store: %w", element, ErrInvalid)
	}
	return nil
}

// CheckPrefix says whether prefix is empty or can begin a valid key. It
// returns the part up to and without the last slash, which is a valid key or
// empty: the directory under which all matches lie.
func CheckPrefix(prefix string) (dir string, err error) {
	slash := strings.LastIndexByte(prefix, '/')
	if slash >= 0 {
		dir = prefix[:slash]
		if err := CheckKey(dir); err != nil {
			return "", fmt.Errorf("prefix %q: %w", prefix, err)
		}
	}
	if !utf8.ValidString(prefix) {
		return "", fmt.Errorf("prefix %q is not valid UTF-8: %w", prefix, ErrInvalid)
	}
	return dir, nil
}

// CheckRange returns the number of bytes that a Get of offset and length
// means on an object of size bytes, or an error that wraps [ErrInvalid].
// With size -1 the object's size is not known yet, and only the signs are
// checked; the length returned is then the one asked for.
func CheckRange(key string, offset, length, size int64) (int64, error) {
	if offset < 0 || length < -1 {
		return 0, fmt.Errorf("range %d+%d of object %q is negative: %w", offset, length, key, ErrInvalid)
	}
	if size < 0 {
		return length, nil
	}
	if offset > size || length > size-offset {
		return 0, fmt.Errorf("range %d+%d is outside of object %q of %d bytes: %w", offset, length, key, size, ErrInvalid)
	}
	if length < 0 {
		return size - offset, nil
	}
	return length, nil
}
