package statefulset

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

// builder makes the seed pod of one ordinal out of the set's template.
type builder struct {
	set   *appsv1.StatefulSet
	spec  SeedSpec
	at    endpoint
	run   Run
	notes []string
}

// pod is the ordinal's pod as the controller would make it, less everything
// that would make it the controller's, a Service's, or restart it:
//
//   - its labels are ours alone, and what refers to a label by the downward API
//     is resolved to what the label would be;
//   - it runs the database's container, the init containers that mount no claim,
//     and what the user names;
//   - it has no probes, hooks or restarts: its end is the end of the load.
//
// The user's patch comes last, but cannot undo what keeps the ordinal safe.
func (b *builder) pod() (*corev1.Pod, error) {
	if b.spec.Filler != nil {
		pod, err := applyPatch(b.filled(), b.spec.Patch)
		if err != nil {
			return nil, err
		}
		b.identity(pod)
		return pod, b.checkSelector(pod)
	}
	labels := b.memberLabels()
	template := b.set.Spec.Template.DeepCopy()
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Annotations: template.Annotations},
		Spec:       template.Spec,
	}
	if err := b.chooseContainers(&pod.Spec); err != nil {
		return nil, err
	}
	b.volumes(&pod.Spec)
	b.resolveLabels(pod, labels)
	b.spread(&pod.Spec)
	pod, err := applyPatch(pod, b.spec.Patch)
	if err != nil {
		return nil, err
	}
	// Found out when the API server refuses such a pod, it would be too late: the claims are gone by then.
	if !slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == b.at.container }) {
		return nil, fmt.Errorf("apply the seed patch: %w: it leaves out the database's container %s", ErrNotFound, b.at.container)
	}
	if b.spec.Fill != nil {
		b.fill(&pod.Spec)
	}
	if b.spec.Adopt != nil {
		if err := b.adopt(&pod.Spec); err != nil {
			return nil, err
		}
	}
	b.identity(pod)
	for i := range pod.Spec.Containers {
		quiet(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		quietInit(&pod.Spec.InitContainers[i])
	}
	return pod, b.checkSelector(pod)
}

// identity gives the pod the ordinal's name and everything that holds it.
func (b *builder) identity(pod *corev1.Pod) {
	pod.Name = podName(b.set.Name, b.spec.Ordinal)
	pod.Namespace = b.set.Namespace
	pod.GenerateName = ""
	pod.Labels = labelsOf(b.set.Name, componentSeed)
	pod.Labels[LabelOrdinal] = strconv.Itoa(b.spec.Ordinal)
	pod.Labels[LabelRun] = b.run.ID
	pod.Finalizers = []string{Finalizer}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	claims := make([]string, len(b.spec.ClaimTemplates))
	for i, t := range b.spec.ClaimTemplates {
		claims[i] = claimName(t, b.set.Name, b.spec.Ordinal)
	}
	pod.Annotations[annotationClaims] = strings.Join(claims, " ")
	pod.OwnerReferences = b.run.owner()
	pod.Spec.Hostname = pod.Name
	pod.Spec.Subdomain = b.set.Spec.ServiceName
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.ReadinessGates = nil
	pod.Spec.NodeName = ""
	if b.spec.MakeClaim != nil {
		// Before the claims are right, no scheduler may have a volume made for the
		// empty one that the controller may put in their place.
		pod.Spec.SchedulingGates = append(pod.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: schedulingGate})
	}
}

// memberLabels are the labels that the controller would give the real pod.
func (b *builder) memberLabels() map[string]string {
	all := maps.Clone(b.set.Spec.Template.Labels)
	if all == nil {
		all = map[string]string{}
	}
	all[appsv1.StatefulSetPodNameLabel] = podName(b.set.Name, b.spec.Ordinal)
	all[appsv1.PodIndexLabel] = strconv.Itoa(b.spec.Ordinal)
	all[appsv1.StatefulSetRevisionLabel] = b.set.Status.UpdateRevision
	return all
}

// chooseContainers keeps the database's container, those that the user names,
// and the init containers that can do no harm to a claim.
func (b *builder) chooseContainers(pod *corev1.PodSpec) error {
	claims := claimVolumes(b.set)
	known := map[string]bool{}
	pod.Containers = slices.DeleteFunc(pod.Containers, func(c corev1.Container) bool {
		known[c.Name] = true
		out := c.Name != b.at.container && !slices.Contains(b.spec.Containers, c.Name)
		b.noteIf(out, "container %s is left out", c.Name)
		return out
	})
	pod.InitContainers = slices.DeleteFunc(pod.InitContainers, func(c corev1.Container) bool {
		known[c.Name] = true
		if slices.Contains(b.spec.InitContainers, c.Name) || slices.Contains(b.spec.Containers, c.Name) {
			return false
		}
		sidecar := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		fills := mountsAny(c, claims)
		b.noteIf(sidecar, "sidecar %s is left out", c.Name)
		b.noteIf(fills && !sidecar, "init container %s is left out because it mounts a claim; name it with --init-container to run it", c.Name)
		return sidecar || fills
	})
	for _, name := range slices.Concat(b.spec.Containers, b.spec.InitContainers) {
		if !known[name] {
			return fmt.Errorf("container %q: %w in the template of statefulset %s/%s", name, ErrNotFound, b.set.Namespace, b.set.Name)
		}
	}
	return nil
}

// claimVolumes names the volumes of the template that are claims: the set's
// own, claims that are named directly, and those that a pod brings along.
func claimVolumes(set *appsv1.StatefulSet) []string {
	names := templateNames(set)
	for _, v := range set.Spec.Template.Spec.Volumes {
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			names = append(names, v.Name)
		}
	}
	return names
}

// adopt makes the database's container start on files that it did not make. The
// init container comes last, when those that write configuration have run, and
// is made after the user's patch, which may have changed the image or user.
func (b *builder) adopt(pod *corev1.PodSpec) error {
	i := slices.IndexFunc(pod.Containers, func(c corev1.Container) bool { return c.Name == b.at.container })
	database := &pod.Containers[i]
	image := database
	if name := b.spec.Adopt.Container; name != "" && name != database.Name {
		template := b.set.Spec.Template.Spec
		if image = containerOf(&template, name); image == nil {
			return fmt.Errorf("container %q, whose image is to prepare the files: %w in the template of statefulset %s/%s", name, ErrNotFound, b.set.Namespace, b.set.Name)
		}
		b.noteIf(true, "the files are prepared in the image of container %s", name)
	}
	init := corev1.Container{
		Name: adoptContainer, Image: image.Image, ImagePullPolicy: image.ImagePullPolicy,
		SecurityContext: database.SecurityContext.DeepCopy(), Resources: *database.Resources.DeepCopy(),
		Command: []string{"/bin/sh", "-ec", b.spec.Adopt.Script, product},
	}
	claims := claimVolumes(b.set)
	for _, m := range database.VolumeMounts {
		if slices.Contains(claims, m.Name) {
			init.VolumeMounts = append(init.VolumeMounts, m)
			init.Command = append(init.Command, m.MountPath)
		}
	}
	pod.InitContainers = append(pod.InitContainers, init)
	database.Args = slices.Concat(database.Args, b.spec.Adopt.Arguments)
	b.noteIf(len(database.Command) > 0 && len(b.spec.Adopt.Arguments) > 0,
		"container %s has a command of its own, which must pass on its arguments %s; if it does not, give them in the seed patch", database.Name, strings.Join(b.spec.Adopt.Arguments, " "))
	return nil
}

// volumes are the controller's: a template's claim takes the place of a volume
// of the same name.
func (b *builder) volumes(pod *corev1.PodSpec) {
	claims := templateNames(b.set)
	kept := slices.DeleteFunc(pod.Volumes, func(v corev1.Volume) bool { return slices.Contains(claims, v.Name) })
	for _, t := range claims {
		kept = append(kept, corev1.Volume{Name: t, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(t, b.set.Name, b.spec.Ordinal)},
		}})
	}
	pod.Volumes = kept
}

// spread keeps the seed where the real pod can follow its volume. The seed
// does not bear the labels that topology constraints count, so it does not
// count itself: one less skew makes up for that.
func (b *builder) spread(pod *corev1.PodSpec) {
	var extra []corev1.TopologySpreadConstraint
	for i := range pod.TopologySpreadConstraints {
		t := &pod.TopologySpreadConstraints[i]
		if t.WhenUnsatisfiable != corev1.DoNotSchedule {
			continue
		}
		if t.MaxSkew > 1 {
			t.MaxSkew--
			continue
		}
		soft := *t.DeepCopy()
		soft.WhenUnsatisfiable, soft.MinDomains = corev1.ScheduleAnyway, nil
		if !slices.ContainsFunc(pod.TopologySpreadConstraints, func(o corev1.TopologySpreadConstraint) bool {
			return o.TopologyKey == soft.TopologyKey && o.WhenUnsatisfiable == soft.WhenUnsatisfiable
		}) {
			extra = append(extra, soft)
		}
		b.noteIf(true, "topology constraint on %s does not count the seed itself; the scheduler is asked, not forced, to even it out", t.TopologyKey)
	}
	pod.TopologySpreadConstraints = append(pod.TopologySpreadConstraints, extra...)
}

// quiet removes what would restart, probe or hook into a container.
func quiet(c *corev1.Container) {
	c.LivenessProbe, c.ReadinessProbe, c.StartupProbe, c.Lifecycle = nil, nil, nil, nil
	c.RestartPolicy, c.RestartPolicyRules = nil, nil
}

// quietInit does the same, but leaves a native sidecar what makes it one.
func quietInit(c *corev1.Container) {
	policy := c.RestartPolicy
	quiet(c)
	if policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
		c.RestartPolicy = policy
	}
}

func (b *builder) noteIf(yes bool, format string, args ...any) {
	if yes {
		b.notes = append(b.notes, fmt.Sprintf(format, args...))
	}
}

// checkSelector refuses a set that would adopt the seed by our own labels.
func (b *builder) checkSelector(pod *corev1.Pod) error {
	selector, err := metav1.LabelSelectorAsSelector(b.set.Spec.Selector)
	if err != nil {
		return fmt.Errorf("statefulset %s/%s: read the selector: %w", b.set.Namespace, b.set.Name, err)
	}
	if selector.Matches(labels.Set(pod.Labels)) {
		return fmt.Errorf("statefulset %s/%s selects pods by %q, which would adopt a seed pod; a set must not be selected by Keepset's own labels alone",
			b.set.Namespace, b.set.Name, selector)
	}
	return nil
}

// applyPatch applies a strategic merge patch in YAML. A field that a pod does
// not have is an error, because a misspelt one would be lost silently.
func applyPatch(pod *corev1.Pod, patch []byte) (*corev1.Pod, error) {
	if strings.TrimSpace(string(patch)) == "" {
		return pod, nil
	}
	change, err := yaml.YAMLToJSON(patch)
	if err != nil {
		return nil, fmt.Errorf("read the seed patch: %w", err)
	}
	original, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encode the seed pod: %w", err)
	}
	merged, err := mergePatch(original, change)
	if err != nil {
		return nil, fmt.Errorf("apply the seed patch: %w", err)
	}
	out := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(merged, out); err != nil {
		return nil, fmt.Errorf("apply the seed patch: %w", err)
	}
	return out, nil
}

// mergePatch is a strategic merge, as a pod has it. The library panics where a patch
// has an object in the place of the name that it would find a list's element by.
func mergePatch(original, change []byte) (merged []byte, err error) {
	defer func() {
		if why := recover(); why != nil {
			err = fmt.Errorf("its values are not of a pod's kinds: %v", why)
		}
	}()
	return strategicpatch.StrategicMergePatch(original, change, corev1.Pod{})
}
