package statefulset

import "fmt"

// Labels of the objects that Keepset creates. Users put LabelSet on the
// CronJob that backs up a set.
const (
	LabelSet       = "keepset/set"
	LabelOrdinal   = "keepset/ordinal"
	LabelRun       = "keepset/run"
	labelNamespace = "keepset/namespace"
	labelName      = "app.kubernetes.io/name"
	labelComponent = "app.kubernetes.io/component"
	labelManagedBy = "app.kubernetes.io/managed-by"
	// labelWorker is on the Jobs and pods that read a set's files, and on the claims
	// that were made for them.
	labelWorker   = "keepset/worker"
	workerOfFiles = "files"

	componentSeed    = "seed"
	componentBackup  = "backup"
	componentRestore = "restore"
	componentPrune   = "prune"
	componentVerify  = "verify"
	componentStatus  = "status"
	// componentDrillJob is on a drill's CronJob, Jobs and pods; componentDrill on the
	// drill's database and its claims, which alone a drill deletes.
	componentDrillJob = "drill"
	componentDrill    = "drill-server"
	product           = "keepset"
)

// notBackups are the components whose CronJobs are about a set and do not back it
// up: no restore suspends them or waits for them.
var notBackups = []string{componentRestore, componentPrune, componentDrillJob, componentVerify, componentStatus}

// Finalizer keeps a seed pod's name taken, and a deleted claim Terminating,
// until Keepset itself lets go.
const Finalizer = "keepset/hold"

// Annotations are the memory of a restore that may be killed at any moment.
const (
	// AnnotationSeeding on a claim: the ID of the run that is filling it. While
	// it is there the content is not whole.
	AnnotationSeeding = "keepset/seeding"
	// AnnotationSeeded on a claim: the ID of the backup that filled it, and
	// AnnotationSeededRun the run that did.
	AnnotationSeeded    = "keepset/seeded"
	AnnotationSeededRun = "keepset/seeded-run"
	// AnnotationLoaded on a seed pod: the backup whose load is complete and
	// checked. From here on only the release is left.
	AnnotationLoaded = "keepset/loaded"
	// AnnotationReleased on the set: when an ordinal was last released. Its
	// purpose is that a changed set is looked at by its controller at once.
	AnnotationReleased = "keepset/released-at"
	// AnnotationSuspendedByRestore and AnnotationSuspendedByUser on a CronJob:
	// who suspended it, so that exactly those are resumed.
	AnnotationSuspendedByRestore = "keepset/suspended-by-restore"
	AnnotationSuspendedByUser    = "keepset/suspended-by-user"

	// annotationClaims on a seed pod: the claims that it fills.
	annotationClaims = "keepset/claims"
	// annotationReclaim on a volume: the reclaim policy that it had before it
	// was kept.
	annotationReclaim     = "keepset/reclaim-policy"
	annotationPlan        = "keepset/plan"
	annotationLabelPrefix = "keepset-label/"
	annotationScheduled   = "batch.kubernetes.io/cronjob-scheduled-timestamp"
	annotationInstantiate = "cronjob.kubernetes.io/instantiate"

	fieldManager = "keepset"
)

// schedulingGate keeps a seed pod from being scheduled until its claims are
// those that it shall have.
const schedulingGate = "keepset/claims"

// adoptContainer is the init container that makes files ready to be adopted.
const adoptContainer = "keepset-adopt"

// LeaseName is the Lease by which runs over one set exclude each other.
func LeaseName(set string) string { return "keepset-" + set }

// planName is the Lease object that holds a run's frozen plan.
func planName(runID string) string { return "keepset-restore-" + runID }

// podName is the name the controller gives to an ordinal's pod.
func podName(set string, ordinal int) string { return fmt.Sprintf("%s-%d", set, ordinal) }

// ClaimName is the name the controller gives to an ordinal's claim.
func ClaimName(template, set string, ordinal int) string { return claimName(template, set, ordinal) }

// claimName is the name the controller gives to an ordinal's claim.
func claimName(template, set string, ordinal int) string {
	return fmt.Sprintf("%s-%s-%d", template, set, ordinal)
}
