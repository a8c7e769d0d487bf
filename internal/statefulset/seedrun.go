package statefulset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// imageGrace is how long an image may fail to be pulled, or a container to be
// made, before that is an error and not a hiccup.
const imageGrace = 90 * time.Second

// logTail is how many lines of a failed container an error quotes.
const logTail = 15

// WaitRunning waits until the seed's database container runs, and returns its
// "ip:port". That it accepts connections is for the engine to find out.
// ErrSeedFailed says why it does not run, with the last lines of its log.
func (s *Seed) WaitRunning(ctx context.Context) (address string, err error) {
	if s.spec.Fill != nil {
		if err := s.waitPrepared(ctx); err != nil {
			return "", err
		}
	}
	err = s.waitStart(ctx, func(pod *corev1.Pod, waited time.Duration) (bool, error) {
		if err := s.startFailure(ctx, pod, waited); err != nil {
			return false, err
		}
		if !containerRuns(pod, s.at.container) || pod.Status.PodIP == "" {
			return false, nil
		}
		address = net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(s.at.port))
		return true, nil
	})
	return address, err
}

// waitStart waits for our seed pod to start, in the sense of started, which is
// also told how long that takes by now.
func (s *Seed) waitStart(ctx context.Context, started func(*corev1.Pod, time.Duration) (bool, error)) error {
	why := "is not there yet"
	begun := s.client.clock.Now()
	err := s.client.until(ctx, s.spec.StartTimeout, func(ctx context.Context) (bool, error) {
		pod, err := s.own(ctx)
		if err != nil {
			return false, err
		}
		why = withReason("is "+string(pod.Status.Phase), podReason(pod))
		return started(pod, s.client.clock.Since(begun))
	})
	if errors.Is(err, errLate) {
		return fmt.Errorf("%s: %w: not running after %s: %s", s.client.ref("seed pod", s.pod.Name), ErrSeedFailed, s.spec.StartTimeout, why)
	}
	return describeTimeout(err, s.spec.StartTimeout, s.client.ref("seed pod", s.pod.Name)+" "+why)
}

// Alive says why the seed's database can no longer be reached, if its pod is
// the reason: it crashed, was deleted or evicted. Ask it when a connection
// fails; nil means that the pod is as it should be.
func (s *Seed) Alive(ctx context.Context) error {
	pod, err := s.own(ctx)
	if err != nil {
		return err
	}
	return s.startFailure(ctx, pod, 0)
}

// own reads our seed pod. Anything else under its name, or its deletion by
// somebody, is a failure.
func (s *Seed) own(ctx context.Context) (*corev1.Pod, error) {
	pod, err := s.client.getPod(ctx, s.pod.Name)
	switch {
	case err != nil:
		return nil, err
	case pod == nil || !isOurs(pod, s.pod.Labels[labelComponent]) || pod.Labels[LabelRun] != s.run.ID:
		return nil, fmt.Errorf("%s: %w: it is no longer ours", s.client.ref("seed pod", s.pod.Name), ErrSeedFailed)
	case pod.DeletionTimestamp != nil:
		return nil, fmt.Errorf("%s: %w: somebody deleted it (its name stays held)", s.client.ref("seed pod", s.pod.Name), ErrSeedFailed)
	default:
		return pod, nil
	}
}

// startFailure recognises what will not get better by waiting.
func (s *Seed) startFailure(ctx context.Context, pod *corev1.Pod, waited time.Duration) error {
	for _, c := range append(append([]corev1.ContainerStatus{}, pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil && hopeless(w.Reason, waited) {
			return fmt.Errorf("%s: %w: container %s, image %s: %s: %s", s.client.ref("seed pod", pod.Name), ErrSeedFailed, c.Name, c.Image, w.Reason, w.Message)
		}
		ended := c.State.Terminated
		if ended == nil {
			ended = c.LastTerminationState.Terminated
		}
		if ended != nil && (ended.ExitCode != 0 || c.Name == s.at.container) {
			return s.crash(ctx, c.Name, ended)
		}
	}
	if pod.Status.Phase == corev1.PodFailed {
		return fmt.Errorf("%s: %w: %s: %s", s.client.ref("seed pod", pod.Name), ErrSeedFailed, pod.Status.Reason, pod.Status.Message)
	}
	return nil
}

// hopeless says whether a container that waits for this reason, for so long,
// will go on waiting.
func hopeless(reason string, waited time.Duration) bool {
	switch reason {
	case "InvalidImageName", "ErrImageNeverPull":
		return true
	case "ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
		return waited > imageGrace
	default:
		return false
	}
}

// crash describes the end of a container that should not have ended so.
func (s *Seed) crash(ctx context.Context, container string, ended *corev1.ContainerStateTerminated) error {
	text := fmt.Sprintf("container %s ended with exit code %d", container, ended.ExitCode)
	if ended.Reason != "" && ended.Reason != "Error" && ended.Reason != "Completed" {
		text += " (" + ended.Reason + ")"
	}
	if ended.Message != "" {
		text += ": " + strings.TrimSpace(ended.Message)
	}
	if tail := s.client.logTail(ctx, s.pod.Name, container); tail != "" {
		text += "; its last lines:\n" + tail
	}
	return fmt.Errorf("%s: %w: %s", s.client.ref("seed pod", s.pod.Name), ErrSeedFailed, text)
}

// logTail reads the end of a container's log; empty when it cannot be read,
// since it only adds to an error that is told anyway.
func (c *Client) logTail(ctx context.Context, pod, container string) string {
	lines, limit := int64(logTail), int64(8<<10)
	body, err := c.kube.CoreV1().Pods(c.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container, TailLines: &lines, LimitBytes: &limit}).Stream(ctx)
	if err != nil {
		c.log.Debug("log of the seed pod not read", "pod", pod, "container", container, "error", err)
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(body, limit))
	if err := errors.Join(err, body.Close()); err != nil {
		c.log.Debug("log of the seed pod not read", "pod", pod, "container", container, "error", err)
	}
	return strings.TrimSpace(tellsPassword.ReplaceAllString(string(text), "(a line with a password)"))
}

// tellsPassword matches the lines in which a database or its image gives away
// the password that it has made up. Errors go to Events and termination
// messages, which more people read than the log.
var tellsPassword = regexp.MustCompile(`(?im)^.*(generated (root )?password|temporary password).*$`)

// WaitFilled waits until the Filler in the seed pod has ended, and insists on
// exit code 0. How long it may take, only the run's own deadline says.
func (s *Seed) WaitFilled(ctx context.Context) error {
	err := s.waitStart(ctx, func(pod *corev1.Pod, waited time.Duration) (bool, error) {
		if pod.Status.Phase != corev1.PodPending {
			return true, nil // and may have ended well by now
		}
		return false, s.startFailure(ctx, pod, waited)
	})
	if err != nil {
		return err
	}
	for {
		pod, err := s.own(ctx)
		if err != nil {
			return err
		}
		status, _ := containerStatus(pod, s.at.container)
		if ended := status.State.Terminated; ended != nil && ended.ExitCode == 0 {
			return nil
		}
		if err := s.startFailure(ctx, pod, 0); err != nil {
			return err
		}
		if err := s.client.sleep(ctx, s.client.poll); err != nil {
			return err
		}
	}
}

// exitTimeout is how long a database may write out what it holds in memory when
// it is shut down: to give up costs the whole load.
const exitTimeout = time.Hour

// WaitExit waits, after the database was told to shut down, until its
// container has ended, and insists on exit code 0: anything else may have left
// files that are not whole.
func (s *Seed) WaitExit(ctx context.Context) error {
	timeout := max(s.spec.StartTimeout, exitTimeout)
	err := s.client.until(ctx, timeout, func(ctx context.Context) (bool, error) {
		pod, err := s.own(ctx)
		if err != nil {
			return false, err
		}
		status, _ := containerStatus(pod, s.at.container)
		ended := status.State.Terminated
		if ended == nil {
			return false, nil
		}
		if ended.ExitCode != 0 {
			return false, s.crash(ctx, s.at.container, ended)
		}
		return true, nil
	})
	return describeTimeout(err, timeout, s.client.ref("seed pod", s.pod.Name)+": container "+s.at.container+" was told to shut down and still runs")
}

// MarkLoaded records, on the claims and then on the seed pod, that the content
// is whole. A retry that finds the mark only has to release.
func (s *Seed) MarkLoaded(ctx context.Context, backup string) error {
	if err := s.fence(ctx); err != nil {
		return err
	}
	if _, err := s.own(ctx); err != nil {
		return err
	}
	if err := s.sameClaims(ctx); err != nil {
		return err
	}
	err := s.annotateClaims(ctx, map[string]any{AnnotationSeeding: nil, AnnotationSeeded: backup, AnnotationSeededRun: s.run.ID})
	if err != nil {
		return err
	}
	return s.client.patchPod(ctx, s.pod.Name, map[string]any{"metadata": map[string]any{"annotations": map[string]any{AnnotationLoaded: backup}}})
}

// sameClaims makes sure that the claims are those that the seed filled: one
// that somebody has deleted and made anew since is empty, and bears no mark.
func (s *Seed) sameClaims(ctx context.Context) error {
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	for _, t := range s.spec.ClaimTemplates {
		name := claimName(t, s.set.Name, s.spec.Ordinal)
		claim := now.claims[name]
		if claim == nil || claim.DeletionTimestamp != nil || claim.Annotations[AnnotationSeeding] != s.run.ID && claim.Annotations[AnnotationSeededRun] != s.run.ID {
			return fmt.Errorf("%s: %w: it is not the one that the seed filled, somebody has deleted it; run the restore again", s.client.ref("claim", name), ErrSeedFailed)
		}
	}
	return nil
}

// Release lets the ordinal's name go, and wakes the set's controller, which
// then starts the real pod on the filled claims. It refuses an ordinal that is
// not marked as loaded. Repeating it does no harm.
func (s *Seed) Release(ctx context.Context) error {
	status, err := s.Inspect(ctx)
	if err != nil {
		return err
	}
	if status.State == SeedReleased {
		return s.client.enqueue(ctx, s.set.Name)
	}
	if status.State != SeedLoaded {
		return fmt.Errorf("ordinal %d of %s is not loaded (%s): its name stays held", s.spec.Ordinal, s.client.ref("statefulset", s.set.Name), status.Text)
	}
	if err := s.fence(ctx); err != nil {
		return err
	}
	return s.client.release(ctx, s.set.Name, s.pod.Name, s.spec.StartTimeout)
}

// release removes a loaded seed pod. One that has gone by now was let go by an
// attempt that did not live to see it.
func (c *Client) release(ctx context.Context, set, name string, timeout time.Duration) error {
	pod, err := c.getPod(ctx, name)
	if err != nil {
		return err
	}
	if pod != nil && isSeed(pod) {
		if err := c.removePod(ctx, pod, false, timeout); err != nil {
			return err
		}
	}
	return c.enqueue(ctx, set)
}
