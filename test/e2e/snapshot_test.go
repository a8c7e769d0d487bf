package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest/control"
	"keepset/internal/statefulset"
)

// ec2URL is where the test cluster has its fake of EC2 and of the EBS direct
// API; its volumes are what the driver ebs.csi.aws.com mounts.
const ec2URL = "http://10.245.0.1:4566"

// ec2Config has the pods take the fake for AWS.
const ec2Config = `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset}
data: {AWS_ENDPOINT_URL_EC2: "` + ec2URL + `", AWS_ENDPOINT_URL_EBS: "` + ec2URL + `"}
`

// clusterWide are the overlays with rights outside of the namespace. That of files
// has a component with them, which is commented out.
var clusterWide = map[string]bool{"mysql-ebs": true, "csi": true}

// bindingsOf gives an overlay's ClusterRoleBindings the names of this
// namespace, as docs/ebs.md asks of whoever wraps the overlay.
func bindingsOf(shipped string) string {
	if !clusterWide[shipped] && shipped != "files" {
		return ""
	}
	return `replacements:
  - source: {kind: ServiceAccount, name: keepset-restore, fieldPath: metadata.namespace}
    targets:
      - select: {kind: ClusterRoleBinding}
        fieldPaths: [metadata.name]
        options: {delimiter: ":", index: 1}
`
}

// ec2Port lets Keepset's pods reach the fake, where AWS itself is at port 443.
func ec2Port(shipped string) string {
	if shipped != "mysql-ebs" {
		return ""
	}
	return strings.Replace(storePort, "7070", "4566", 1)
}

// onEBS are the options of a set whose volumes are the fake's, with the overlay
// mysql-ebs as it is shipped.
func onEBS(o shopOptions) shopOptions {
	o.shipped, o.patches = "mysql-ebs", append([]string{ec2Config}, o.patches...)
	if o.class == "" {
		o.class = "mysql-gp2"
	}
	return o
}

// forgetCluster removes, when the test ends, what the namespace does not take along.
func (s *shopSet) forgetCluster() {
	s.t.Helper()
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		bindings, err := s.kube.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
		if !assert.NoError(s.t, err) {
			return
		}
		for _, b := range bindings.Items {
			if strings.HasPrefix(b.Name, "keepset-") && strings.HasSuffix(b.Name, ":"+s.ns) {
				assert.NoError(s.t, s.kube.RbacV1().ClusterRoleBindings().Delete(ctx, b.Name, metav1.DeleteOptions{}))
			}
		}
	})
}

// ec2 is the fake, as who runs it sees it.
func (c *cluster) ec2() *control.Client { return control.New(ec2URL) }

// ebs is a snapshotter of this process, with an account of its own.
func (c *cluster) ebs(account string) *ebs.Snapshotter {
	c.t.Helper()
	s, err := ebs.New(c.t.Context(), ebs.Options{
		Kube: c.kube, Region: "us-east-1", EC2Endpoint: ec2URL, EBSEndpoint: ec2URL,
		Credentials: ebs.Credentials{AccessKeyID: account, SecretAccessKey: "secret"},
		Patience:    snapshot.Patience{Call: time.Minute, Poll: 200 * time.Millisecond},
	})
	require.NoError(c.t, err)
	c.t.Cleanup(s.Close)
	return s
}

// allowed makes an account of the fake that may do what a policy of the overlay
// mysql-ebs says, as far as names of actions go: the fake knows no conditions.
func (c *cluster) allowed(account, policy string) string {
	c.t.Helper()
	var p struct {
		Statement []struct{ Action any }
	}
	require.NoError(c.t, json.Unmarshal([]byte(readFile(c.t, "../../deploy/iam/"+policy+".json")), &p))
	var actions []string
	for _, s := range p.Statement {
		switch a := s.Action.(type) {
		case string:
			actions = append(actions, a)
		case []any:
			for _, name := range a {
				actions = append(actions, fmt.Sprint(name))
			}
		}
	}
	require.NotEmpty(c.t, actions)
	require.NoError(c.t, c.ec2().Allow(c.t.Context(), account, actions...))
	return account
}

// owner stands on the snapshots of a set of this namespace.
func (c *cluster) owner(set string) snapshot.Owner {
	c.t.Helper()
	client, err := statefulset.Connect(statefulset.Options{Kubeconfig: c.kubeconfig, Namespace: c.ns})
	require.NoError(c.t, err)
	origin, err := client.Origin()
	require.NoError(c.t, err)
	return snapshot.Owner{Cluster: origin, Set: record.SetID{Namespace: c.ns, Name: set}}
}

// forgetSnapshots deletes a set's EBS snapshots when the test ends: they would
// outlive it as they outlive their sets.
func (c *cluster) forgetSnapshots(set string) {
	c.t.Helper()
	s, owner := c.ebs("cleaner"), c.owner(set)
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for r, err := range s.List(ctx, owner) {
			if assert.NoError(c.t, err) {
				assert.NoError(c.t, s.Delete(ctx, owner, r))
			}
		}
	})
}

// snapshotsOf are the fake's snapshots that bear the namespace's name.
func (c *cluster) snapshotsOf() []control.Snapshot {
	c.t.Helper()
	all, err := c.ec2().Snapshots(c.t.Context())
	require.NoError(c.t, err)
	return slices.DeleteFunc(all, func(s control.Snapshot) bool { return s.Tags["keepset/namespace"] != c.ns })
}

// volumesOf are the fake's volumes that were made for claims of the namespace, by ID.
func (c *cluster) volumesOf() map[string]control.Volume {
	c.t.Helper()
	all, err := c.ec2().Volumes(c.t.Context())
	require.NoError(c.t, err)
	found := map[string]control.Volume{}
	for _, v := range all {
		if v.Tags["kubernetes.io/created-for/pvc/namespace"] == c.ns {
			found[v.ID] = v
		}
	}
	return found
}

// persistentVolumes are those that are, or were, for claims of the namespace.
func (c *cluster) persistentVolumes() []corev1.PersistentVolume {
	c.t.Helper()
	all, err := c.kube.CoreV1().PersistentVolumes().List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	return slices.DeleteFunc(all.Items, func(v corev1.PersistentVolume) bool {
		return v.Spec.ClaimRef == nil || v.Spec.ClaimRef.Namespace != c.ns
	})
}

// persistentVolume reads one.
func (c *cluster) persistentVolume(name string) *corev1.PersistentVolume {
	c.t.Helper()
	pv, err := c.kube.CoreV1().PersistentVolumes().Get(c.t.Context(), name, metav1.GetOptions{})
	require.NoError(c.t, err)
	return pv
}

// nothingLost: each volume of the fake that was made for a claim of the
// namespace is behind one that is bound, and the other way round; no volume is
// kept, and none has marks of a restore that is not at its end.
func (c *cluster) nothingLost() {
	c.t.Helper()
	var why string
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Log("volumes and claims:", why)
		}
	})
	c.until(time.Minute, "every volume is behind a claim", func() bool {
		left := c.volumesOf()
		for _, pv := range c.persistentVolumes() {
			id := ""
			if pv.Spec.CSI != nil {
				id = pv.Spec.CSI.VolumeHandle
			}
			if _, ok := left[id]; !ok || pv.Status.Phase != corev1.VolumeBound {
				why = fmt.Sprintf("%s of %q is %s", pv.Name, id, pv.Status.Phase)
				return false
			}
			if mark := left[id].Tags["keepset/unbound"] + pv.Annotations["keepset/reclaim-policy"]; mark != "" {
				why = fmt.Sprintf("%s of %s bears the mark %q", pv.Name, id, mark)
				return false
			}
			delete(left, id)
		}
		why = fmt.Sprintf("without a claim: %v", slices.Collect(maps.Keys(left)))
		return len(left) == 0
	})
}

// cutsOf are the snapshots of a backup by ordinal and claim.
func (c *cluster) cutsOf(id record.BackupID) map[string]control.Snapshot {
	c.t.Helper()
	found := map[string]control.Snapshot{}
	for _, s := range c.snapshotsOf() {
		if strings.HasPrefix(s.Tags["keepset/name"], string(id)+".") {
			found[s.Tags["keepset/claim"]] = s
		}
	}
	return found
}

// noOrphans compares the set's snapshots with what its backups need.
func (s *shopSet) noOrphans(snapshotter string) {
	s.t.Helper()
	out := s.keepset("backup", "verify", "--set", "mysql", "--repository", s.repository, "--orphans", "--snapshotter", snapshotter, "--json")
	var verified struct{ VolumeSnapshots job.OrphansReport }
	require.NoError(s.t, json.Unmarshal([]byte(out), &verified), "%s", out)
	found := verified.VolumeSnapshots
	assert.Positive(s.t, found.Needed)
	assert.Empty(s.t, found.Missing)
	assert.Empty(s.t, found.Orphans)
	assert.Empty(s.t, found.Young, "all of this test are young; nothing runs any more that would commit them")
}

var lockSeconds = regexp.MustCompile(`lockSeconds=([0-9.e+-]+)`)

// longestLock is how long a backup's Job held a server still, at the longest.
func (s *shopSet) longestLock(job string) time.Duration {
	s.t.Helper()
	log, longest := s.logs(job), 0.0
	for _, m := range lockSeconds.FindAllStringSubmatch(log, -1) {
		seconds, err := strconv.ParseFloat(m[1], 64)
		require.NoError(s.t, err)
		longest = max(longest, seconds)
	}
	require.Positive(s.t, longest, "job %s says how long its locks were held:\n%s", job, log)
	return time.Duration(longest * float64(time.Second))
}
