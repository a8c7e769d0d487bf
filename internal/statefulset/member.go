package statefulset

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// found is what a discovery read, from which members are made.
type found struct {
	set    Set
	at     endpoint
	pods   map[string]*corev1.Pod
	claims map[string]*corev1.PersistentVolumeClaim
	shared []string
}

func (f found) member(ordinal int) Member {
	name := podName(f.set.Name, ordinal)
	m := Member{Ordinal: ordinal, Container: f.at.container, Port: f.at.port, Pod: PodInfo{Name: name}}
	if pod := f.pods[name]; pod != nil {
		m.Pod = newPodInfo(pod)
	}
	for _, t := range f.set.Templates {
		claim := claimName(t.Name, f.set.Name, ordinal)
		m.Claims = append(m.Claims, newClaim(t.Name, claim, f.claims[claim]))
	}
	for _, claim := range f.shared {
		c := newClaim("", claim, f.claims[claim])
		c.Shared = true
		m.Claims = append(m.Claims, c)
	}
	m.Problems = f.problems(m)
	return m
}

func newPodInfo(pod *corev1.Pod) PodInfo {
	return PodInfo{
		Name: pod.Name, UID: string(pod.UID), Phase: string(pod.Status.Phase), Node: pod.Spec.NodeName, IP: pod.Status.PodIP,
		Exists: true, Ready: conditionTrue(pod, corev1.PodReady), Terminating: pod.DeletionTimestamp != nil,
		Seed: isSeed(pod), Reason: podReason(pod),
	}
}

func newClaim(template, name string, pvc *corev1.PersistentVolumeClaim) Claim {
	if pvc == nil {
		return Claim{Template: template, Name: name}
	}
	c := Claim{
		Template: template, Name: name, UID: string(pvc.UID), Volume: pvc.Spec.VolumeName, Phase: string(pvc.Status.Phase),
		AccessModes: accessModes(pvc.Spec.AccessModes), Exists: true, Terminating: pvc.DeletionTimestamp != nil,
		Held: hasFinalizer(pvc), Seeding: pvc.Annotations[AnnotationSeeding], Seeded: pvc.Annotations[AnnotationSeeded],
	}
	if pvc.Spec.StorageClassName != nil {
		c.Class = *pvc.Spec.StorageClassName
	}
	if size, ok := pvc.Status.Capacity[corev1.ResourceStorage]; ok {
		c.Capacity = size.String()
	}
	if size, ok := pvc.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
		c.Request = size.String()
	}
	return c
}

// problems lists what keeps the member from being captured (Fatal), and what
// an operator should know anyway.
func (f found) problems(m Member) []Problem {
	var list []Problem
	add := func(object, what string, fatal bool) {
		list = append(list, Problem{Ordinal: m.Ordinal, Object: object, What: what, Fatal: fatal, OfContent: m.Pod.Seed})
	}
	pod := "pod " + f.set.Namespace + "/" + m.Pod.Name
	switch object := f.pods[m.Pod.Name]; {
	case object == nil:
		add(pod, "is missing", true)
	case m.Pod.Seed:
		add(pod, "is a seed pod: a restore is filling this ordinal, or was killed doing so", true)
	case m.Pod.Terminating:
		add(pod, terminating(object), true)
	case m.Pod.Phase != string(corev1.PodRunning):
		add(pod, withReason("is "+m.Pod.Phase, m.Pod.Reason), true)
	case m.Container != "" && !containerRuns(object, m.Container):
		add(pod, withReason("container "+m.Container+" is not running", m.Pod.Reason), true)
	case m.Pod.IP == "":
		add(pod, "has no IP address yet", true)
	case !m.Pod.Ready:
		add(pod, withReason("is not Ready", m.Pod.Reason), false)
	}
	for _, c := range m.Claims {
		if what, fatal := c.problem(m.Pod.Seed); what != "" {
			list = append(list, Problem{Ordinal: m.Ordinal, Object: "claim " + f.set.Namespace + "/" + c.Name, What: what, Fatal: fatal, OfContent: true})
		}
	}
	return list
}

// problem says what is wrong with a claim; empty when nothing is.
func (c Claim) problem(seed bool) (what string, fatal bool) {
	switch {
	case !c.Exists:
		return "is missing", true
	case c.Seeding != "" && !seed:
		return "was being filled by restore run " + c.Seeding + ", which did not finish", true
	case c.Terminating:
		return "is being deleted", false
	case c.Phase == string(corev1.ClaimLost):
		return "has lost its volume " + c.Volume, false
	default:
		return "", false
	}
}

// terminating tells a pod that is going from one whose node does not answer.
func terminating(pod *corev1.Pod) string {
	since := pod.DeletionTimestamp.UTC().Format(time.RFC3339)
	if pod.Status.Phase == corev1.PodUnknown || pod.Status.Reason == "NodeLost" || conditionReason(pod, corev1.DisruptionTarget) == "DeletionByTaintManager" {
		return fmt.Sprintf("is terminating since %s on node %s, which does not answer", since, pod.Spec.NodeName)
	}
	return "is terminating since " + since
}

func withReason(what, reason string) string {
	if reason == "" {
		return what
	}
	return what + ": " + reason
}

// podReason says in words why a pod does not run or is not ready: the first
// container that waits, then what the scheduler or the kubelet says.
func podReason(pod *corev1.Pod) string {
	statuses := append(append([]corev1.ContainerStatus{}, pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...)
	for _, s := range statuses {
		if w := s.State.Waiting; w != nil && w.Reason != "" && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating" {
			return strings.TrimSuffix(fmt.Sprintf("container %s: %s: %s", s.Name, w.Reason, w.Message), ": ")
		}
		if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
			return fmt.Sprintf("container %s: %s, exit code %d", s.Name, t.Reason, t.ExitCode)
		}
	}
	for _, t := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodReady} {
		for _, cond := range pod.Status.Conditions {
			if cond.Type == t && cond.Status == corev1.ConditionFalse && cond.Message != "" {
				return cond.Message
			}
		}
	}
	return pod.Status.Message
}

func conditionTrue(pod *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func conditionReason(pod *corev1.Pod, t corev1.PodConditionType) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == t {
			return c.Reason
		}
	}
	return ""
}

// containerStatus finds a container's status, of whatever sort it is.
func containerStatus(pod *corev1.Pod, name string) (corev1.ContainerStatus, bool) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for _, s := range list {
			if s.Name == name {
				return s, true
			}
		}
	}
	return corev1.ContainerStatus{}, false
}

func containerRuns(pod *corev1.Pod, name string) bool {
	s, ok := containerStatus(pod, name)
	return ok && s.State.Running != nil
}

// isSeed recognises a pod of ours that holds an ordinal's name.
func isSeed(pod *corev1.Pod) bool { return isOurs(pod, componentSeed) }

// isOurs tells whether Keepset made the pod, for this purpose.
func isOurs(pod *corev1.Pod, component string) bool {
	return pod.Labels[labelComponent] == component && pod.Labels[labelManagedBy] == product
}

func hasFinalizer(o metav1.Object) bool {
	return slices.Contains(o.GetFinalizers(), Finalizer)
}
