package statefulset

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Set is a StatefulSet as it was found: its members by ordinal, and what is
// missing or wrong.
type Set struct {
	Namespace, Name, UID string
	// Replicas is what the set asks for, Start its first ordinal.
	Replicas, Start int
	ServiceName     string
	// Parallel is false when the controller starts and stops one ordinal after
	// the other (OrderedReady).
	Parallel bool
	// WhenScaledDelete and WhenDeletedDelete tell what becomes of the claims of
	// a member that is scaled away, and of those of a deleted set.
	WhenScaledDelete, WhenDeletedDelete bool
	Templates                           []ClaimTemplate
	// Members are the ordinals that the set asks for, in order, whether or not
	// their pods exist.
	Members []Member
	// Beyond are other ordinals that still have a pod or a claim, in order.
	Beyond []Member
	// Problems are those of the set and of its Members.
	Problems []Problem

	object *appsv1.StatefulSet
}

// ClaimTemplate is one of the set's volumeClaimTemplates.
type ClaimTemplate struct {
	Name, Class, Size string
	AccessModes       []string
	Block             bool
}

// Makes tells whether the claim is what the template would make today. One that
// was enlarged, or moved to another class, is not.
func (t ClaimTemplate) Makes(c Claim) bool {
	want, errWant := resource.ParseQuantity(t.Size)
	has, errHas := resource.ParseQuantity(c.Request)
	sized := errWant != nil || errHas != nil || want.Cmp(has) == 0
	return sized && (t.Class == "" || t.Class == c.Class)
}

// Room is how many bytes a new claim of the template will have, as far as is known:
// what it asks for, or more if claims that it has made got more.
func (s Set) Room(t ClaimTemplate) (bytes int64, known bool) {
	asked, err := resource.ParseQuantity(t.Size)
	if err != nil {
		return 0, false
	}
	bytes = asked.Value()
	for _, c := range s.ClaimsOf(t) {
		if has, err := resource.ParseQuantity(c.Capacity); err == nil && t.Makes(c) {
			bytes = max(bytes, has.Value())
		}
	}
	return bytes, true
}

// Member is one ordinal of a set.
type Member struct {
	Ordinal   int
	Pod       PodInfo
	Container string
	// Port of the database in the pod.
	Port     int
	Claims   []Claim
	Problems []Problem
}

// PodInfo is what is known of a member's pod. Without Exists only Name is set.
type PodInfo struct {
	Name, UID, Phase, Node, IP string
	Exists, Ready, Terminating bool
	// Seed: the name is taken by a seed pod, not by the set's own.
	Seed bool
	// Reason says in words why the pod is not running or not ready.
	Reason string
}

// Claim is one PersistentVolumeClaim of a member.
type Claim struct {
	// Template is empty for a claim that the pod template names directly and
	// that all members share.
	Template, Name, UID, Volume, Phase, Class, Capacity string
	// Request is the size that the claim asks for.
	Request                     string
	AccessModes                 []string
	Exists, Terminating, Shared bool
	// Held: our finalizer is on it.
	Held bool
	// Seeding is the run that is filling the claim: its content is not whole.
	// Seeded is the backup that filled it.
	Seeding, Seeded string
}

// Problem is something expected that is missing, or something found that
// should not be. Ordinal is -1 for the set itself.
type Problem struct {
	Ordinal int
	Object  string
	What    string
	// Fatal: the member cannot be captured.
	Fatal bool
	// OfContent: what the member's claims hold is missing or not whole, not just
	// its server away.
	OfContent bool
}

// String is one line for a log or an error.
func (p Problem) String() string { return p.Object + ": " + p.What }

// Address is "ip:port" of the member's database, empty when it has none now.
func (m Member) Address() string {
	if m.Pod.IP == "" || m.Pod.Seed {
		return ""
	}
	return net.JoinHostPort(m.Pod.IP, strconv.Itoa(m.Port))
}

// Member returns an ordinal that the set asks for.
func (s Set) Member(ordinal int) (Member, bool) {
	i := slices.IndexFunc(s.Members, func(m Member) bool { return m.Ordinal == ordinal })
	if i < 0 {
		return Member{}, false
	}
	return s.Members[i], true
}

// ClaimsOf are the claims that were made from a template, by ordinal.
func (s Set) ClaimsOf(t ClaimTemplate) []Claim {
	var claims []Claim
	for _, m := range slices.Concat(s.Members, s.Beyond) {
		for _, c := range m.Claims {
			if c.Exists && c.Template == t.Name {
				claims = append(claims, c)
			}
		}
	}
	return claims
}

// Host is the name under which an ordinal's pod will be found by its peers
// once it is ready. Empty when the set has no governing Service.
func (s Set) Host(ordinal int) string {
	if s.ServiceName == "" {
		return ""
	}
	return fmt.Sprintf("%s.%s.%s.svc", podName(s.Name, ordinal), s.ServiceName, s.Namespace)
}

// Wanted reports whether the set asks for the ordinal now.
func (s Set) Wanted(ordinal int) bool {
	return ordinal >= s.Start && ordinal < s.Start+s.Replicas
}

// RecoveryOrder is the order in which ordinals have to be recovered: under
// OrderedReady the controller does not go past a broken lower one.
func (s Set) RecoveryOrder(ordinals []int) []int {
	return slices.Sorted(slices.Values(ordinals))
}

// Blocking lists the members below the highest of ordinals that are broken,
// not among ordinals, and would keep the controller from starting those.
func (s Set) Blocking(ordinals []int) []Problem {
	if s.Parallel || len(ordinals) == 0 {
		return nil
	}
	var found []Problem
	for _, m := range s.Members {
		if m.Ordinal >= slices.Max(ordinals) || slices.Contains(ordinals, m.Ordinal) {
			continue
		}
		if !m.Pod.Ready || m.Pod.Seed || m.Pod.Terminating {
			found = append(found, Problem{
				Ordinal: m.Ordinal, Object: "pod " + s.Namespace + "/" + m.Pod.Name, Fatal: true,
				What: "is not ready, and the set starts its pods in order: recover ordinal " + strconv.Itoa(m.Ordinal) + " first",
			})
		}
	}
	return found
}
