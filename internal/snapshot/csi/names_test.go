package csi

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

var testOwner = snapshot.Owner{Cluster: "c0ffee", Set: record.SetID{Namespace: "shop", Name: "mysql"}}

func TestSnapshotNameIsReadable(t *testing.T) {
	got := snapshotName(testOwner, "20261120T131730Z-1a2b3c4d-0", "data-mysql-0")
	require.Regexp(t, regexp.MustCompile(`^keepset-[0-9a-f]{16}-20261120t131730z-1a2b3c4d-0-data-mysql-0-[0-9a-f]{12}$`), got)
	require.Equal(t, got, snapshotName(testOwner, "20261120T131730Z-1a2b3c4d-0", "data-mysql-0"), "found again by its name")
}

// Names that become the same text, or are too long to be told apart by it,
// stay different.
func TestSnapshotNamesDiffer(t *testing.T) {
	long := strings.Repeat("x", 253)
	other := testOwner
	other.Cluster = "decade"
	seen := map[string]string{}
	for what, name := range map[string]string{
		"plain":               snapshotName(testOwner, "a", "b"),
		"upper case":          snapshotName(testOwner, "A", "b"),
		"dot":                 snapshotName(testOwner, "a", "b.c"),
		"dash":                snapshotName(testOwner, "a", "b-c"),
		"border moved":        snapshotName(testOwner, "a-b", "c"),
		"long claim":          snapshotName(testOwner, "a", long),
		"long claim, other":   snapshotName(testOwner, "a", long[1:]+"y"),
		"long name":           snapshotName(testOwner, long, "b"),
		"another owner":       snapshotName(other, "a", "b"),
		"nothing readable":    snapshotName(testOwner, "...", "..."),
		"a stand-in":          standInName("shop", "b"),
		"stand-in, elsewhere": standInName("staging", "b"),
		"stand-in, long":      standInName("staging", long),
	} {
		assert.Empty(t, validation.IsDNS1123Subdomain(name), what)
		assert.NotContains(t, seen, name, what)
		seen[name] = what
	}
}

func TestMarksAreFoundAgain(t *testing.T) {
	m := metav1.ObjectMeta{}
	owner := testOwner
	owner.Set.Name = strings.Repeat("m", 70) // longer than a label may be
	mark(&m, owner, purposeBackup, 3)
	for key, value := range m.Labels {
		assert.Empty(t, validation.IsValidLabelValue(value), key)
	}
	assert.NotContains(t, m.Labels, labelSet)
	assert.True(t, bears(&m, owner, purposeBackup))
	assert.False(t, bears(&m, owner, purposeRestore))
	assert.False(t, bears(&m, testOwner, purposeBackup))
	m.Annotations[annotationCluster] = "another"
	assert.False(t, bears(&m, owner, purposeBackup), "a label's hash alone proves nothing")
}

func FuzzObjectName(f *testing.F) {
	f.Add("20261120T131730Z-1a2b3c4d-0", "data-mysql-0")
	f.Add("", "")
	f.Add("é", strings.Repeat(".", 300))
	f.Fuzz(func(t *testing.T, cut, claim string) {
		for _, name := range []string{snapshotName(testOwner, cut, claim), standInName(cut, claim)} {
			if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
				t.Fatalf("%q: %v", name, problems)
			}
		}
		if cut != claim && snapshotName(testOwner, cut, claim) == snapshotName(testOwner, claim, cut) {
			t.Fatal("two cuts have one name")
		}
	})
}
