// Package control is how a test, or a driver that mounts the volumes, talks to
// the fake EC2 of package ebstest beside AWS's own protocols: it makes
// instances and empty volumes, attaches them, asks for the file that a volume's
// bytes are in, sets faults and reads the log of calls.
//
// Its central type is [Client]. The package imports nothing but the standard
// library, and every call of it is one HTTP request with JSON both ways, so that
// who cannot import it (the driver in test/cluster, a module of its own) speaks
// the same with net/http. The requests are documented at package ebstest.
//
// A call that fails returns an [Error], which says AWS's code and message where
// the fake has one. Nothing is retried.
package control

import (
	"net/url"
	"slices"
	"time"
)

// Place is where a resource lives. An empty field means the fake's default.
type Place struct {
	// Account is an account's ID of twelve digits.
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`
}

// Instance is a machine that volumes are attached to.
type Instance struct {
	Place
	ID   string `json:"id"`
	Zone string `json:"zone"`
	// RootGiB is the size of the boot volume that it is made with; 0: none.
	RootGiB int64 `json:"rootGiB,omitempty"`
	// Root is the boot volume's ID.
	Root string `json:"root,omitempty"`
}

// Volume is a volume, and the file that its bytes are in.
type Volume struct {
	Place
	ID   string `json:"id"`
	Zone string `json:"zone"`
	// SizeGiB is its size in GiB.
	SizeGiB int64 `json:"sizeGiB"`
	// Type as AWS names it; empty in a request: gp2.
	Type string `json:"type,omitempty"`
	// IOPS and Throughput (MiB/s); 0 in a request: the type's default.
	IOPS       int64             `json:"iops,omitempty"`
	Throughput int64             `json:"throughput,omitempty"`
	Encrypted  bool              `json:"encrypted,omitempty"`
	KMSKey     string            `json:"kmsKey,omitempty"`
	Snapshot   string            `json:"snapshot,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	// ClientToken makes the creation idempotent; see CreateVolume.
	ClientToken string `json:"clientToken,omitempty"`
	// State is creating, available, in-use or error.
	State string `json:"state,omitempty"`
	// Instance and Device that it is attached to.
	Instance string `json:"instance,omitempty"`
	Device   string `json:"device,omitempty"`
	// Path of the image file, sparse and SizeGiB long.
	Path string `json:"path,omitempty"`
}

// Snapshot is a snapshot as the fake sees it, for assertions.
type Snapshot struct {
	Place
	ID      string `json:"id"`
	Volume  string `json:"volume"`
	SizeGiB int64  `json:"sizeGiB"`
	// State is pending, completed or error; Progress is in percent.
	State     string            `json:"state"`
	Progress  int               `json:"progress"`
	Message   string            `json:"message,omitempty"`
	Encrypted bool              `json:"encrypted,omitempty"`
	KMSKey    string            `json:"kmsKey,omitempty"`
	Tags      map[string]string `json:"tags,omitempty"`
	Started   time.Time         `json:"started"`
	// Path of the image file.
	Path string `json:"path"`
}

// Call is one request of AWS's protocols, in the order in which they came.
type Call struct {
	// Sequence counts all calls of the fake from 1.
	Sequence int       `json:"sequence"`
	Time     time.Time `json:"time"`
	// Action as AWS names it, for example "CreateVolume" or "PutSnapshotBlock".
	Action string `json:"action"`
	Place
	AccessKey string `json:"accessKey"`
	// Parameters of the request by AWS's names.
	Parameters url.Values `json:"parameters,omitempty"`
	// Tags that the request bears: those that it gives or asks for, and those
	// of the volumes and snapshots that it names.
	Tags url.Values `json:"tags,omitempty"`
	// Error is the code that was answered; empty: the call did its work.
	Error string `json:"error,omitempty"`
	// Lost: the work was done and the reply was not sent.
	Lost bool `json:"lost,omitempty"`
}

// Scope chooses calls. Every field that is set must match; the zero Scope
// matches all calls. Tests that share one fake scope their faults and their
// view of the log by an access key of their own, or by a tag.
type Scope struct {
	Place
	AccessKey string `json:"accessKey,omitempty"`
	// Tags by key and value, all of which the call must bear.
	Tags map[string]string `json:"tags,omitempty"`
}

// Matches says whether the scope includes the call.
func (s Scope) Matches(c Call) bool {
	if s.Account != "" && s.Account != c.Account || s.Region != "" && s.Region != c.Region ||
		s.AccessKey != "" && s.AccessKey != c.AccessKey {
		return false
	}
	for key, value := range s.Tags {
		if !slices.Contains(c.Tags[key], value) {
			return false
		}
	}
	return true
}

// Outcome is what becomes of a snapshot or volume after the call that made it
// has succeeded.
type Outcome string

// The outcomes.
const (
	// Usual: completed or available after the time that the fake was given.
	Usual Outcome = ""
	// Held: pending or creating until Finish or Fail.
	Held Outcome = "held"
	// Failing: in state error as soon as it is looked at, with the rule's Message.
	Failing Outcome = "failing"
	// Vanishing: a volume that is gone as soon as it is looked at, as when
	// rights on the KMS key are missing.
	Vanishing Outcome = "vanishing"
)

// Rule is a fault: what goes wrong in which calls. Without Fail the call does
// its work; what happens then is given by the other fields.
type Rule struct {
	// Action that it concerns; empty: every one.
	Action string `json:"action,omitempty"`
	Scope  Scope  `json:"scope"`
	// Skip lets that many matching calls pass first.
	Skip int `json:"skip,omitempty"`
	// Times is in how many calls it happens then; 0: one, -1: all.
	Times int `json:"times,omitempty"`

	// Delay passes before anything else, unless the client goes away.
	Delay time.Duration `json:"delay,omitempty"`
	// Before is called before the work. Only within the fake's process.
	Before func(Call) `json:"-"`
	// Fail answers with this error, and no work is done.
	Fail *Error `json:"fail,omitempty"`
	// Outcome and Message of what the call makes.
	Outcome Outcome `json:"outcome,omitempty"`
	Message string  `json:"message,omitempty"`
	// Hide keeps what the call makes from that many Describe calls that would
	// have shown it: EC2 is eventually consistent.
	Hide int `json:"hide,omitempty"`
	// After is called when the work is done, before the reply is sent. Only
	// within the fake's process.
	After func(Call) `json:"-"`
	// Hold keeps the reply back, the work being done, until the rule is
	// removed or the client goes away.
	Hold bool `json:"hold,omitempty"`
	// Damage changes one byte of the reply's body, and no header.
	Damage bool `json:"damage,omitempty"`
	// Drop closes the connection instead of sending the reply.
	Drop bool `json:"drop,omitempty"`
}

// Error is an error of AWS's protocols.
type Error struct {
	// Code as AWS names it.
	Code string `json:"code"`
	// Message; empty in a rule: the code's usual one.
	Message string `json:"message,omitempty"`
	// Status of HTTP; 0 in a rule: the code's usual one.
	Status int `json:"status,omitempty"`
	// Reason of the EBS direct API's exceptions.
	Reason string `json:"reason,omitempty"`
}

// Error is "code: message".
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Change is what becomes of a snapshot or volume, on command.
type Change struct {
	Outcome Outcome `json:"outcome"`
	// Message of a snapshot that is Failing.
	Message string `json:"message,omitempty"`
	// Progress of a snapshot that is Held, in percent.
	Progress int `json:"progress,omitempty"`
	// Image: an AMI is registered of the snapshot, so that it cannot be deleted.
	Image bool `json:"image,omitempty"`
}

// Freezing is what the fake posts to the freezer before a cut and after it.
type Freezing struct {
	// Operation is "freeze" or "thaw".
	Operation string `json:"operation"`
	// Volumes by their IDs; those that the freezer has not mounted it ignores.
	Volumes []string `json:"volumes"`
}

// Injected is a rule at work.
type Injected struct {
	ID string `json:"id"`
	// Fired is in how many calls it has happened.
	Fired int `json:"fired"`
}

// Key says whether anybody has rights on a KMS key.
type Key struct {
	Key    string `json:"key"`
	Denied bool   `json:"denied"`
}

// Rights are what an access key may do, by names of IAM.
type Rights struct {
	AccessKey string   `json:"accessKey"`
	Rights    []string `json:"rights"`
}

// Freezer is where Freezing is posted to.
type Freezer struct {
	URL string `json:"url"`
}
