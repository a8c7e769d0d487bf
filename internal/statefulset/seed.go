package statefulset

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Seed fills one ordinal. The order of its steps is Place, WaitRunning, the
// load, WaitExit, MarkLoaded, Release. Each may be repeated after a crash, and
// from the first to the last the ordinal's name is held: between them the
// controller cannot start the real pod.
type Seed struct {
	client *Client
	set    Set
	spec   SeedSpec
	run    Run
	fence  func(context.Context) error
	at     endpoint
	pod    *corev1.Pod
	notes  []string
}

// NewSeed builds the seed pod from the set's template and checks it, without
// changing anything. Fence is called before each step that destroys something
// and stops it by its error: [Hold.Check].
func (c *Client) NewSeed(set Set, spec SeedSpec, run Run, fence func(context.Context) error) (*Seed, error) {
	if spec.StartTimeout == 0 {
		spec.StartTimeout = defaultStartTimeout
	}
	if spec.Ordinal < set.Start {
		return nil, fmt.Errorf("ordinal %d: %w: %s starts at ordinal %d", spec.Ordinal, ErrNotFound, c.ref("statefulset", set.Name), set.Start)
	}
	object := set.object
	at, err := spec.find(object.Spec.Template.Spec, templateNames(object))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.ref("statefulset", set.Name), err)
	}
	if spec.Filler != nil {
		at = endpoint{container: ownContainer(spec.Filler.own.Spec.Containers)}
		spec.ClaimTemplates = []string{spec.Filler.template}
	}
	if spec.ClaimTemplates, err = seedTemplates(set, spec, at); err != nil {
		return nil, err
	}
	if spec.Fill != nil && !slices.Contains(spec.ClaimTemplates, spec.Fill.template) {
		return nil, fmt.Errorf("claim template %q: %w among those that are replaced (%s), and the files go there", spec.Fill.template, ErrNotFound, strings.Join(spec.ClaimTemplates, ", "))
	}
	b := builder{set: object, spec: spec, at: at, run: run}
	pod, err := b.pod()
	if err != nil {
		return nil, err
	}
	return &Seed{client: c, set: set, spec: spec, run: run, fence: fence, at: at, pod: pod, notes: b.notes}, nil
}

// seedTemplates are the claims that a seed replaces.
func seedTemplates(set Set, spec SeedSpec, at endpoint) ([]string, error) {
	all := templateNames(set.object)
	if len(spec.ClaimTemplates) == 0 {
		i := slices.IndexFunc(set.object.Spec.Template.Spec.Containers, func(c corev1.Container) bool { return c.Name == at.container })
		used := mounted(set.object.Spec.Template.Spec.Containers[i], all)
		if len(used) == 0 {
			return nil, fmt.Errorf("container %s of statefulset %s/%s mounts no claim of the set's templates: there is nothing of its own to restore it onto; %w",
				at.container, set.Namespace, set.Name, ErrNotFound)
		}
		return used, nil
	}
	for _, t := range spec.ClaimTemplates {
		if !slices.Contains(all, t) {
			return nil, fmt.Errorf("claim template %q: %w; the set has %s", t, ErrNotFound, strings.Join(all, ", "))
		}
	}
	return spec.ClaimTemplates, nil
}

// Notes are what a log should tell about the seed pod: how it differs from the
// pod that the controller would make.
func (s *Seed) Notes() []string { return s.notes }

// Inspect tells how far the ordinal has come. It changes nothing.
func (s *Seed) Inspect(ctx context.Context) (SeedStatus, error) {
	now, err := s.look(ctx)
	if err != nil {
		return SeedStatus{}, err
	}
	return s.judge(now), nil
}

// look reads the ordinal's pod and the claims that the seed fills.
func (s *Seed) look(ctx context.Context) (seen, error) {
	var now seen
	var err error
	if now.pod, err = s.client.getPod(ctx, s.pod.Name); err != nil {
		return now, err
	}
	now.claims, err = s.client.claimsNamed(ctx, s.claimNames())
	return now, err
}

// claimNames are the claims that the seed fills.
func (s *Seed) claimNames() []string {
	names := make([]string, 0, len(s.spec.ClaimTemplates))
	for _, t := range s.spec.ClaimTemplates {
		names = append(names, claimName(t, s.set.Name, s.spec.Ordinal))
	}
	return names
}

// lostClaim is the first of the named claims that a loaded seed pod has filled and that
// was deleted since, or made anew; empty when none was. A pod that starts on it would be
// empty.
func lostClaim(pod *corev1.Pod, names []string, claims map[string]*corev1.PersistentVolumeClaim) string {
	for name := range strings.FieldsSeq(pod.Annotations[annotationClaims]) {
		if !slices.Contains(names, name) {
			continue
		}
		claim := claims[name]
		if claim == nil || claim.DeletionTimestamp != nil || claim.Annotations[AnnotationSeededRun] != pod.Labels[LabelRun] {
			return name
		}
	}
	return ""
}

func (s *Seed) judge(now seen) SeedStatus {
	if now.pod != nil && isSeed(now.pod) {
		run := now.pod.Labels[LabelRun]
		if backup := now.pod.Annotations[AnnotationLoaded]; backup != "" {
			if lost := lostClaim(now.pod, s.claimNames(), now.claims); lost != "" {
				return SeedStatus{State: SeedHalf, Run: run, Text: "seed pod " + now.pod.Name + " is loaded with backup " + backup + ", and claim " + lost + " is no longer the one that it filled"}
			}
			return SeedStatus{State: SeedLoaded, Backup: backup, Run: run, Text: "seed pod " + now.pod.Name + " is loaded with backup " + backup + " and waits for its release"}
		}
		return SeedStatus{State: SeedHalf, Run: run, Text: "seed pod " + now.pod.Name + " of run " + run + " did not finish"}
	}
	var inUse []string
	released := 0
	for name, claim := range now.claims {
		run := claim.Annotations[AnnotationSeeding]
		switch {
		case run != "" || hasFinalizer(claim) && claim.DeletionTimestamp != nil:
			return SeedStatus{State: SeedHalf, Run: run, Text: "claim " + name + " was being filled by run " + run}
		case claim.Annotations[AnnotationSeededRun] == s.run.ID && claim.DeletionTimestamp == nil:
			released++
		case !neverBound(claim) || now.pod != nil:
			inUse = append(inUse, name)
		}
	}
	switch {
	case released > 0 && released == len(s.spec.ClaimTemplates):
		backup := now.claims[claimName(s.spec.ClaimTemplates[0], s.set.Name, s.spec.Ordinal)].Annotations[AnnotationSeeded]
		return SeedStatus{State: SeedReleased, Backup: backup, Run: s.run.ID, Text: "the ordinal was filled with backup " + backup + " by this run"}
	case len(inUse) > 0 || released > 0:
		slices.Sort(inUse)
		return SeedStatus{State: SeedClaimsExist, Text: "claims exist: " + strings.Join(inUse, ", ")}
	case now.pod != nil:
		return SeedStatus{State: SeedClaimsExist, Text: "pod " + now.pod.Name + " exists"}
	default:
		return SeedStatus{State: SeedFresh, Text: "nothing exists yet"}
	}
}

// neverBound: no volume was ever behind the claim, so that it can hold nothing.
func neverBound(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName == "" && (claim.Status.Phase == corev1.ClaimPending || claim.Status.Phase == "") && claim.DeletionTimestamp == nil
}

// consent refuses to touch claims that the user has not given up.
func (s *Seed) consent(status SeedStatus) error {
	if status.State != SeedClaimsExist || s.spec.Replace {
		return nil
	}
	return fmt.Errorf("ordinal %d of %s: %w (%s); --replace deletes what is there and fills it anew (a volume goes by its reclaim policy), --keep lets the pod come up on it as it is",
		s.spec.Ordinal, s.client.ref("statefulset", s.set.Name), ErrClaimInUse, status.Text)
}

// Plan says in words what Place and Release are going to do. ErrClaimInUse
// when they would refuse.
func (s *Seed) Plan(ctx context.Context) ([]string, error) {
	now, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	status := s.judge(now)
	if err := s.consent(status); err != nil {
		return nil, err
	}
	if err := s.checkServices(ctx); err != nil {
		return nil, err
	}
	var steps []string
	add := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	if status.State == SeedReleased {
		return []string{status.Text}, nil
	}
	if status.State != SeedLoaded {
		for _, t := range s.spec.ClaimTemplates {
			name := claimName(t, s.set.Name, s.spec.Ordinal)
			if claim := now.claims[name]; claim != nil {
				fate := "goes by its reclaim policy"
				if s.spec.MakeClaim != nil {
					fate = "is kept until the replica is ready, if we may change volumes, and then goes by its reclaim policy"
				}
				add("delete claim %s (volume %s %s)", name, claim.Spec.VolumeName, fate)
			}
		}
		if now.pod != nil {
			add("delete pod %s", now.pod.Name)
		}
		add("create seed pod %s with container %s under the ordinal's own name, which the controller then cannot take", s.pod.Name, s.at.container)
		for _, t := range s.spec.ClaimTemplates {
			content := ""
			if s.spec.MakeClaim != nil {
				content = ", on a volume made of the backup's volume snapshot"
			}
			add("create claim %s from template %s%s", claimName(t, s.set.Name, s.spec.Ordinal), t, content)
		}
		switch {
		case s.spec.Filler != nil:
			add("bring the backup's files back into the claim within the seed pod, and check their number")
		case s.spec.Fill != nil:
			add("bring the backup's files into the claim within the seed pod, make them ready, start the database on them, take the other server's identity off it, shut it down cleanly")
		case s.spec.Adopt != nil:
			add("start the database on the files in the seed pod, take the other server's identity off it, shut it down cleanly")
		default:
			add("load the backup into the seed pod, check it, shut the database down cleanly")
		}
	}
	add("delete seed pod %s and let its name go; the controller starts the real pod on the filled claim", s.pod.Name)
	return steps, nil
}

// checkServices refuses a seed that some Service would send traffic to.
func (s *Seed) checkServices(ctx context.Context) error {
	list, err := s.client.kube.CoreV1().Services(s.client.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return explain(err, "list the services of namespace "+s.client.namespace)
	}
	for _, svc := range list.Items {
		if len(svc.Spec.Selector) > 0 && labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(s.pod.Labels)) {
			return fmt.Errorf("%s selects seed pods by %v: clients would reach a half-loaded database; narrow its selector", s.client.ref("service", svc.Name), svc.Spec.Selector)
		}
	}
	return nil
}

// getPod reads a pod; nil when there is none.
func (c *Client) getPod(ctx context.Context, name string) (*corev1.Pod, error) {
	pod, err := c.kube.CoreV1().Pods(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // absence is a normal answer here
	}
	return pod, explain(err, "read "+c.ref("pod", name))
}

// claimsNamed reads those of the claims that there are.
func (c *Client) claimsNamed(ctx context.Context, names []string) (map[string]*corev1.PersistentVolumeClaim, error) {
	claims := map[string]*corev1.PersistentVolumeClaim{}
	for _, name := range names {
		claim, err := c.getClaim(ctx, name)
		if err != nil {
			return nil, err
		}
		if claim != nil {
			claims[name] = claim
		}
	}
	return claims, nil
}

// getClaim reads a claim; nil when there is none.
func (c *Client) getClaim(ctx context.Context, name string) (*corev1.PersistentVolumeClaim, error) {
	claim, err := c.kube.CoreV1().PersistentVolumeClaims(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // absence is a normal answer here
	}
	return claim, explain(err, "read "+c.ref("claim", name))
}
