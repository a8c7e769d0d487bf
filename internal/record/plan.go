package record

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Plan is what a backup declares before it reads a byte. It is plain, and
// signed by the writer.
type Plan struct {
	Header
	Repository string    `json:"repository"`
	ID         BackupID  `json:"id"`
	Set        SetID     `json:"set"`
	Origin     string    `json:"origin,omitempty"`
	CreatedAt  time.Time `json:"createdAt"`
	// Method is "dump", "physical", "snapshot" or "files".
	Method string `json:"method"`
	// Engine is "mysql", "postgres" or "command"; empty for methods without one.
	Engine string `json:"engine,omitempty"`
	// Members are all that the backup must contain, by ordinal.
	Members []PlannedMember `json:"members"`
	// Replicas and Start are spec.replicas and spec.ordinals.start as seen.
	Replicas int `json:"replicas"`
	Start    int `json:"start,omitempty"`
	// Databases that were asked for, and with a "!" those that were left out;
	// empty means all. See Filter.
	Databases []string `json:"databases,omitempty"`
	// Paths of directories that were asked for, and with a "!" those that were
	// left out; empty means all.
	Paths []string `json:"paths,omitempty"`
	// Ordinals is the choice of members that was asked for, such as "0,2-4";
	// empty means all.
	Ordinals string `json:"ordinals,omitempty"`
	// FollowersOnly: members that follow nobody were left out.
	FollowersOnly bool `json:"followersOnly,omitempty"`
	// Labels that the user has given.
	Labels Labels `json:"labels,omitempty"`
	// Epoch of the keys that the backup is written with; absent means 1, or that
	// nothing is encrypted. See [Plan.KeyEpoch].
	Epoch int `json:"epoch,omitempty"`
	// Tool is the version of the program.
	Tool string `json:"tool,omitempty"`
}

// KeyEpoch is the epoch of the keys that the backup is written with, 1 where
// nothing is encrypted.
func (p *Plan) KeyEpoch() int { return max(p.Epoch, 1) }

// PlannedMember is one ordinal as it was found.
type PlannedMember struct {
	Ordinal int `json:"ordinal"`
	// Name of the pod, or host:port outside Kubernetes.
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
	Node    string `json:"node,omitempty"`
	// Role is "primary", "follower" or empty when it was not looked at.
	Role   string  `json:"role,omitempty"`
	Claims []Claim `json:"claims,omitempty"`
}

// Claim is a PersistentVolumeClaim as it was found.
type Claim struct {
	Name         string   `json:"name"`
	Template     string   `json:"template,omitempty"`
	Volume       string   `json:"volume,omitempty"`
	StorageClass string   `json:"storageClass,omitempty"`
	AccessModes  []string `json:"accessModes,omitempty"`
	// Size is a Kubernetes quantity, for example "10Gi".
	Size string `json:"size,omitempty"`
}

// The methods.
const (
	MethodDump     = "dump"
	MethodPhysical = "physical"
	MethodSnapshot = "snapshot"
	MethodFiles    = "files"
)

// RecordKind is KindPlan.
func (p *Plan) RecordKind() Kind { return KindPlan }

// Validate checks that the plan names at least one member, each once, in
// order.
func (p *Plan) Validate() error {
	if err := p.ID.Validate(); err != nil {
		return err
	}
	if err := p.Set.Validate(); err != nil {
		return err
	}
	switch p.Method {
	case MethodDump, MethodPhysical, MethodSnapshot, MethodFiles:
	default:
		return fmt.Errorf("%w: plan with method %q", ErrInvalid, p.Method)
	}
	switch {
	case p.Repository == "":
		return fmt.Errorf("%w: plan without a repository name", ErrInvalid)
	case p.CreatedAt.IsZero():
		return fmt.Errorf("%w: plan without a time", ErrInvalid)
	case len(p.Members) == 0:
		return fmt.Errorf("%w: plan without members", ErrInvalid)
	case p.Epoch < 0:
		return fmt.Errorf("%w: plan of epoch %d", ErrInvalid, p.Epoch)
	case p.Replicas < 0 || p.Start < 0:
		return fmt.Errorf("%w: plan with %d replicas from ordinal %d", ErrInvalid, p.Replicas, p.Start)
	}
	if err := p.Labels.validate(); err != nil {
		return err
	}
	last := -1
	for _, m := range p.Members {
		if m.Ordinal <= last {
			return fmt.Errorf("%w: plan lists ordinal %d after %d", ErrInvalid, m.Ordinal, last)
		}
		last = m.Ordinal
	}
	return nil
}

// Member returns the planned member of an ordinal.
func (p *Plan) Member(ordinal int) (PlannedMember, bool) {
	for _, m := range p.Members {
		if m.Ordinal == ordinal {
			return m, true
		}
	}
	return PlannedMember{}, false
}

// Filter parts Databases into what was asked for and what was left out, as
// patterns. Both are empty when the members are whole.
func (p *Plan) Filter() (include, exclude []string) {
	for _, d := range p.Databases {
		if left, ok := strings.CutPrefix(d, "!"); ok {
			exclude = append(exclude, left)
		} else {
			include = append(include, d)
		}
	}
	return include, exclude
}

// OnlyPaths are the paths that were asked for; none when directories are whole,
// but for what was left out of them, as it mostly is of every backup.
func (p *Plan) OnlyPaths() []string {
	return slices.DeleteFunc(slices.Clone(p.Paths), func(path string) bool { return strings.HasPrefix(path, "!") })
}

// Narrowed tells whether members of the set were left out on purpose.
func (p *Plan) Narrowed() bool { return p.Ordinals != "" || p.FollowersOnly }
