// Package record holds the types of everything that Keepset stores as a
// record: plan, map, refs, commit, checkpoint, config, and the engine's
// report, together with their IDs, validation and signatures. It does no I/O.
//
// Its central type is the interface [Record]: a value that knows its kind and
// can say what is wrong with it. [Encode] turns one into bytes, always the
// same bytes for the same value, signed when a key is given; [Decode] is the
// way back and returns either a valid record or an error, never half of one.
// A record of a newer format, or one that needs a feature this program does
// not know, is [ErrNewerFormat]: it is refused, not guessed at.
//
// The bytes are meant to be read without Keepset: line 1 is one JSON object,
// line 2, when there is one, is the signature of line 1.
package record

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// SetID names a set: a StatefulSet, or a list of servers outside Kubernetes,
// where the namespace is [NoNamespace].
type SetID struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// NoNamespace stands for the namespace of a set that is not in Kubernetes.
const NoNamespace = "_"

// String returns namespace/name.
func (s SetID) String() string { return s.Namespace + "/" + s.Name }

// Validate says whether both parts can stand in an object's key.
func (s SetID) Validate() error {
	if s.Namespace != NoNamespace && !validName(s.Namespace) {
		return fmt.Errorf("%w: namespace %q: use letters, digits, '.', '-' and '_', beginning with a letter or digit", ErrInvalid, s.Namespace)
	}
	if !validName(s.Name) {
		return fmt.Errorf("%w: set name %q: use letters, digits, '.', '-' and '_', beginning with a letter or digit", ErrInvalid, s.Name)
	}
	return nil
}

// ParseSetID reads namespace/name; a name alone has no namespace.
func ParseSetID(s string) (SetID, error) {
	namespace, name, found := strings.Cut(s, "/")
	if !found {
		namespace, name = NoNamespace, s
	}
	id := SetID{Namespace: namespace, Name: name}
	return id, id.Validate()
}

// maxName is the longest name of a Kubernetes object.
const maxName = 253

func validName(s string) bool {
	if s == "" || len(s) > maxName || !isAlphanumeric(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func isLowerAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}

// BackupID names a backup within its set: UTC seconds, a dash, and eight
// lower-case letters or digits, for example "20261120T131730Z-1a2b3c4d".
// IDs sort by time.
type BackupID string

const (
	backupTime   = "20060102T150405Z"
	suffixLength = 8
)

// NewBackupID makes the ID of a backup that starts at t. The suffix is the
// beginning of uid, the Job's UID, so that a retried pod arrives at the same
// ID; it is random when uid is empty or too short.
func NewBackupID(t time.Time, uid string) BackupID {
	suffix := make([]byte, 0, suffixLength)
	for _, c := range []byte(strings.ToLower(uid)) {
		if len(suffix) < suffixLength && isLowerAlphanumeric(c) {
			suffix = append(suffix, c)
		}
	}
	if len(suffix) < suffixLength {
		suffix = []byte(randomHex(suffixLength / 2))
	}
	return BackupID(t.UTC().Format(backupTime) + "-" + string(suffix))
}

// ParseBackupID checks the form of s.
func ParseBackupID(s string) (BackupID, error) {
	id := BackupID(s)
	return id, id.Validate()
}

// Validate checks the form of the ID.
func (id BackupID) Validate() error {
	if _, err := id.parse(); err != nil {
		return fmt.Errorf("%w: backup ID %q is not of the form 20261120T131730Z-1a2b3c4d", ErrInvalid, string(id))
	}
	return nil
}

// Time is the time in the ID, which is what the writer's clock said; the
// zero time when the ID is not valid.
func (id BackupID) Time() time.Time {
	t, err := id.parse()
	if err != nil {
		return time.Time{}
	}
	return t
}

func (id BackupID) parse() (time.Time, error) {
	stamp, suffix, found := strings.Cut(string(id), "-")
	if !found || len(suffix) != suffixLength || len(stamp) != len(backupTime) {
		return time.Time{}, ErrInvalid
	}
	for i := range len(suffix) {
		if !isLowerAlphanumeric(suffix[i]) {
			return time.Time{}, ErrInvalid
		}
	}
	return time.Parse(backupTime, stamp)
}

// AttemptID names one try at a backup: the pod's UID, or something random.
type AttemptID string

// NewAttemptID returns a random attempt ID.
func NewAttemptID() AttemptID { return AttemptID(randomHex(8)) }

const maxAttempt = 64

// Validate says whether the ID can stand in an object's key, where a dot ends it.
func (a AttemptID) Validate() error {
	ok := a != "" && len(a) <= maxAttempt
	for i := 0; ok && i < len(a); i++ {
		ok = isLowerAlphanumeric(a[i]) || (a[i] == '-' && i > 0)
	}
	if !ok {
		return fmt.Errorf("%w: attempt ID %q: use 1 to %d lower-case letters, digits and dashes", ErrInvalid, string(a), maxAttempt)
	}
	return nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}
