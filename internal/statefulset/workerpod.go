package statefulset

import (
	"context"
	"maps"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WorkerPath is where a worker finds the claim. Nothing else is in there.
const WorkerPath = "/keepset-files"

// workerVolume is the name of the claim in a worker's pod.
const workerVolume = "keepset-files"

// What root has to be able to do beside what root may do with files of its own:
// to read everything, or to make everything what it was. Reading takes a
// capability that the baseline of pod security refuses; writing does not.
var (
	readerCapabilities = []corev1.Capability{"DAC_READ_SEARCH"}
	writerCapabilities = []corev1.Capability{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"}
)

// ownJob reads the run's own Job, whose template workers are made of: their
// image, account, environment and volumes are the run's, so that no Secret has to
// be read or made. The template, not the pod: what was put into that on its way,
// a service mesh's proxy for example, will be put into the worker's as well.
func (c *Client) ownJob(ctx context.Context, run Run) (*batchv1.Job, error) {
	job, err := c.kube.BatchV1().Jobs(c.namespace).Get(ctx, run.JobName, metav1.GetOptions{})
	return job, explain(err, "read our own "+c.ref("job", run.JobName))
}

// workerPod makes the pod that reads or fills a claim out of the template of a
// run's own Job. Only its first container is kept, as whom it runs is the
// claim's, and it has no more rights than the restricted pod security standard
// allows, unless it is root on demand.
func workerPod(own corev1.PodTemplateSpec, who identity, claim string, writes bool) corev1.PodTemplateSpec {
	pod := *own.DeepCopy()
	pod.Labels = maps.Clone(pod.Labels)
	maps.DeleteFunc(pod.Labels, func(k, _ string) bool { // the Job controller's, of the run's own Job
		return strings.HasPrefix(k, "batch.kubernetes.io/") || k == "controller-uid" || k == "job-name"
	})
	s := &pod.Spec
	s.Containers = slices.Clone(s.Containers[:1])
	s.RestartPolicy = corev1.RestartPolicyNever
	s.NodeName, s.Hostname, s.Subdomain, s.ActiveDeadlineSeconds = "", "", "", nil
	groups := who.groups
	if g := deref(s.SecurityContext).FSGroup; g != nil && !slices.Contains(groups, *g) {
		groups = append(slices.Clone(groups), *g) // the repository's, where that is on a claim
	}
	root := who.uid == 0
	nonRoot, no, yes := !root, false, true
	s.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser: &who.uid, RunAsGroup: &who.gid, RunAsNonRoot: &nonRoot, SupplementalGroups: groups,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	capabilities := &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	switch {
	case root && writes:
		capabilities.Add = writerCapabilities
	case root:
		capabilities.Add = readerCapabilities
	}
	if writes {
		s.SecurityContext.FSGroup = who.fsGroup
		readOnly(s.Volumes)
	}
	c := &s.Containers[0]
	c.SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: capabilities}
	s.Volumes = append(s.Volumes, corev1.Volume{Name: workerVolume, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim, ReadOnly: !writes},
	}})
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: workerVolume, MountPath: WorkerPath, ReadOnly: !writes})
	return pod
}

// readOnly has the run's own claims, such as one with the repository, only read: the
// kubelet would give them to the group of the pod, which is another's here.
func readOnly(volumes []corev1.Volume) {
	for i := range volumes {
		if claim := volumes[i].PersistentVolumeClaim; claim != nil {
			claim.ReadOnly = true
		}
	}
}

// pin has a pod run on one node, by the scheduler, which knows whether there is
// room.
func pin(pod *corev1.PodSpec, node string) {
	pod.NodeSelector, pod.TopologySpreadConstraints = nil, nil
	pod.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}},
	}}
}

// Filler fills the claims of ordinals with files in their seed pods: it is a
// worker that writes.
type Filler struct {
	template string
	own      corev1.PodTemplateSpec
	who      identity
	anchor   string // the node where its pod has to run beside us, if any
}

// NewFiller makes a Filler of the run's own Job. The seed pods run args and have
// env besides. Outside of a Job it serves for plans only.
func (c *Client) NewFiller(ctx context.Context, set Set, spec WorkerSpec, run Run) (*Filler, error) {
	t, err := set.ClaimTemplate(spec.Template)
	if err != nil {
		return nil, err
	}
	f := &Filler{template: t.Name, own: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: product}}}}}
	if f.who, err = spec.identity(set.object, t.Name); err != nil || run.Local {
		return f, err
	}
	job, err := c.ownJob(ctx, run)
	if err != nil {
		return nil, err
	}
	f.own = job.Spec.Template
	f.anchor, err = c.anchor(ctx, run, f.own.Spec)
	return f, err
}

// With is the Filler for one ordinal: its pod runs these arguments, and has
// variables that take precedence over those of the run.
func (f *Filler) With(args []string, env map[string]string) *Filler {
	filler := *f
	filler.own = *f.own.DeepCopy()
	c := &filler.own.Spec.Containers[0]
	c.Command, c.Args = []string{"restore"}, literal(args)
	setEnv(c, env)
	return &filler
}

// literal are arguments in which the kubelet finds no variables: the names of
// directories are what a backup says.
func literal(args []string) []string {
	all := slices.Clone(args)
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], "$", "$$")
	}
	return all
}

// filled is the seed pod of a Filler: where it runs is what the set says of its
// pods, since the claim may get its volume there.
func (b *builder) filled() *corev1.Pod {
	f := b.spec.Filler
	template := workerPod(f.own, f.who, claimName(f.template, b.set.Name, b.spec.Ordinal), true)
	theirs := b.set.Spec.Template.Spec.DeepCopy()
	s := &template.Spec
	s.NodeSelector, s.Affinity, s.Tolerations, s.TopologySpreadConstraints = theirs.NodeSelector, theirs.Affinity, theirs.Tolerations, theirs.TopologySpreadConstraints
	// It reads the repository and asks nothing of the cluster.
	no := false
	s.AutomountServiceAccountToken = &no
	b.spread(s)
	b.besideUs(s, f)
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Annotations: maps.Clone(template.Annotations)},
		Spec:       *s,
	}
}
