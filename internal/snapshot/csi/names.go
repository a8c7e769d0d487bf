package csi

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"keepset/internal/snapshot"
)

// Labels of what a Snapshotter makes, by which it is found again. What may be
// longer than a label's 63 characters stands in the annotations.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	managedBy      = "keepset"
	// labelOwner is a hash of cluster, namespace and set; the annotations below
	// say which.
	labelOwner = "keepset/owner"
	// labelPurpose is purposeBackup, purposeRestore for what stands in for a
	// snapshot while a claim is made from it, or purposeTemporary for what one run
	// needs.
	labelPurpose = "keepset/purpose"
	// labelSet and labelOrdinal are for people with kubectl.
	labelSet     = "keepset/set"
	labelOrdinal = "keepset/ordinal"

	purposeBackup    = "backup"
	purposeRestore   = "restore"
	purposeTemporary = "temporary"
)

// Annotations of what a Snapshotter makes.
const (
	// annotationCluster and annotationOwnerSet are the Owner, the latter as
	// namespace/name.
	annotationCluster  = "keepset/owner-cluster"
	annotationOwnerSet = "keepset/owner-set"
	// annotationClaim is the claim that was cut, or that is made.
	annotationClaim = "keepset/claim"
	// annotationBackup is the name that Cut was given.
	annotationBackup = "keepset/backup"
	// annotationPolicy is the deletion policy of the class at the time of the
	// cut, where it was known.
	annotationPolicy = "keepset/deletion-policy"
	// annotationRecord is the Ref in JSON. It has an ID only once all claims of
	// the member were cut; see the package's comment.
	annotationRecord = "keepset/volume-snapshot"
	// annotationRun and annotationSource on a claim or a stand-in: the restore
	// that made it, and the ID of the snapshot that it was made from.
	annotationRun    = "keepset/provision-run"
	annotationSource = "keepset/provision-from"
	// annotationRaised on a claim: the size that its template asked for, where
	// the snapshot needs more.
	annotationRaised = "keepset/requested-size"
)

// maxName is the longest name of a Kubernetes object, in characters.
const maxName = validation.DNS1123SubdomainMaxLength

// hash is a short digest of parts. No two lists of parts have the same text.
func hash(length int, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(strconv.Itoa(len(p)) + ":" + p))
	}
	return hex.EncodeToString(h.Sum(nil))[:length]
}

// clean makes text a part of an object's name: lower-case letters, digits and
// dashes. Different texts may become the same, so a hash goes with it.
func clean(text string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-")
}

// objectName joins prefix, the readable text as far as there is room for it,
// and the hash of what it stands for.
func objectName(prefix, text string, parts ...string) string {
	suffix := "-" + hash(12, parts...)
	room := maxName - len(prefix) - len(suffix)
	text = clean(text)
	if len(text) > room {
		text = strings.Trim(text[:room], "-")
	}
	return prefix + text + suffix
}

// ownerHash stands for the owner where a label or a name has to.
func ownerHash(o snapshot.Owner) string {
	return hash(16, o.Cluster, o.Set.Namespace, o.Set.Name)
}

// ownerPrefix begins the names of all VolumeSnapshots of an owner. It is how a
// content is recognised that has outlived its VolumeSnapshot and its labels.
func ownerPrefix(o snapshot.Owner) string { return "keepset-" + ownerHash(o) + "-" }

// snapshotName is the VolumeSnapshot of one claim in the cut of that name.
func snapshotName(o snapshot.Owner, cut, claim string) string {
	return objectName(ownerPrefix(o), cut+"-"+claim, cut, claim)
}

// standInName is the VolumeSnapshot and the VolumeSnapshotContent that stand in
// for a snapshot while a claim is made from it. It follows from the claim
// alone, so that whatever run made them, they are found.
func standInName(namespace, claim string) string {
	return objectName("keepset-restore-", claim, namespace, claim)
}

// mark puts the owner's labels and annotations on an object.
func mark(m *metav1.ObjectMeta, o snapshot.Owner, purpose string, ordinal int) {
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	maps.Copy(m.Labels, map[string]string{
		labelManagedBy: managedBy, labelOwner: ownerHash(o), labelPurpose: purpose, labelOrdinal: strconv.Itoa(ordinal),
	})
	if len(validation.IsValidLabelValue(o.Set.Name)) == 0 {
		m.Labels[labelSet] = o.Set.Name
	}
	m.Annotations[annotationCluster] = o.Cluster
	m.Annotations[annotationOwnerSet] = o.Set.String()
}

// bears says whether an object has the marks of the owner and the purpose.
func bears(m metav1.Object, o snapshot.Owner, purpose string) bool {
	l, a := m.GetLabels(), m.GetAnnotations()
	return l[labelManagedBy] == managedBy && l[labelOwner] == ownerHash(o) && l[labelPurpose] == purpose &&
		a[annotationCluster] == o.Cluster && a[annotationOwnerSet] == o.Set.String()
}

// bearsPurpose says whether an object is one of ours, of whatever owner.
func bearsPurpose(m metav1.Object, purpose string) bool {
	return m.GetLabels()[labelManagedBy] == managedBy && m.GetLabels()[labelPurpose] == purpose
}

// selector finds the VolumeSnapshots that were cut for an owner and a purpose.
func selector(o snapshot.Owner, purpose string) string {
	return labelManagedBy + "=" + managedBy + "," + labelOwner + "=" + ownerHash(o) + "," + labelPurpose + "=" + purpose
}
