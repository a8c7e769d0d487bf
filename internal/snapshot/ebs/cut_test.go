package ebs_test

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

// calls are the parameters of an action's calls by the Snapshotter.
func (w *world) calls(action string) []url.Values {
	var all []url.Values
	for _, c := range w.aws.Calls(ebstest.Scope{AccessKey: accessKey}) {
		if c.Action == action {
			all = append(all, c.Parameters)
		}
	}
	return all
}

// list reads a list parameter of EC2's query protocol.
func list(v url.Values, name string) []string {
	var all []string
	for i := 1; v.Has(name + "." + strconv.Itoa(i)); i++ {
		all = append(all, v.Get(name+"."+strconv.Itoa(i)))
	}
	return all
}

// requireCut checks that exactly the volumes were cut.
func (w *world) requireCut(t *testing.T, volumes []snapshot.Volume) {
	t.Helper()
	var cut, want []string
	for _, s := range w.aws.Snapshots() {
		cut = append(cut, s.Volume)
	}
	for _, v := range volumes {
		want = append(want, v.Handle)
	}
	require.ElementsMatch(t, want, cut)
}

func TestCutTogetherLeavesTheOthersOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0", "log-mysql-0")
	stranger := w.attach(t, w.instanceOf(t, "data-mysql-0"), nil)
	w.cut(t, volumes)
	w.requireCut(t, volumes)
	require.Empty(t, w.calls("CreateSnapshot"))
	made := w.calls("CreateSnapshots")
	require.Len(t, made, 1)
	require.Equal(t, "true", made[0].Get("InstanceSpecification.ExcludeBootVolume"))
	excluded := list(made[0], "InstanceSpecification.ExcludeDataVolumeId")
	require.Len(t, excluded, 2)
	require.Contains(t, excluded, stranger.ID)
}

func TestCutWithTooManyOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0", "log-mysql-0")
	for range 40 { // and the one that is there
		w.attach(t, w.instanceOf(t, "data-mysql-0"), nil)
	}
	w.cut(t, volumes)
	w.requireCut(t, volumes)
	require.Len(t, w.calls("CreateSnapshot"), 2)
	require.Empty(t, w.calls("CreateSnapshots"))
}

func TestCutOneAfterTheOther(t *testing.T) {
	for name, apart := range map[string]func(t *testing.T, w *world, volumes []snapshot.Volume){
		"on two instances": func(t *testing.T, w *world, volumes []snapshot.Volume) {
			require.NoError(t, w.aws.Detach(volumes[1].Handle))
			_, err := w.aws.Attach(volumes[1].Handle, w.instanceOf(t, "x-1"), "")
			require.NoError(t, err)
		},
		"one of them attached": func(t *testing.T, w *world, volumes []snapshot.Volume) {
			require.NoError(t, w.aws.Detach(volumes[0].Handle))
		},
		"none attached": func(t *testing.T, w *world, volumes []snapshot.Volume) {
			for _, v := range volumes {
				require.NoError(t, w.aws.Detach(v.Handle))
			}
		},
		"one detached meanwhile": func(_ *testing.T, w *world, volumes []snapshot.Volume) {
			w.aws.Inject(ebstest.Rule{Action: "CreateSnapshots", Before: func(ebstest.Call) { _ = w.aws.Detach(volumes[1].Handle) }})
		},
		"the instance terminated meanwhile": func(t *testing.T, w *world, _ []snapshot.Volume) {
			id := w.instanceOf(t, "data-mysql-0")
			w.aws.Inject(ebstest.Rule{Action: "CreateSnapshots", Before: func(ebstest.Call) { _ = w.aws.DeleteInstance(id) }})
		},
		"not supported": func(_ *testing.T, w *world, _ []snapshot.Volume) {
			w.aws.Inject(ebstest.Rule{Action: "CreateSnapshots", Fail: &ebstest.Error{Code: "UnsupportedOperation"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			volumes := w.located(t, "data-mysql-0", "log-mysql-0")
			apart(t, w, volumes)
			w.cut(t, volumes)
			w.requireCut(t, volumes)
			require.Len(t, w.calls("CreateSnapshot"), 2)
		})
	}
}

// TestCutStray attaches a volume between the look at the instance and the cut.
func TestCutStray(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0", "log-mysql-0")
	stray, err := w.aws.CreateVolume(control.Volume{Zone: zoneA, SizeGiB: 1})
	require.NoError(t, err)
	instance := w.instanceOf(t, "data-mysql-0")
	w.aws.Inject(ebstest.Rule{Action: "CreateSnapshots", Before: func(ebstest.Call) { _, _ = w.aws.Attach(stray.ID, instance, "") }})
	w.cut(t, volumes)
	w.requireCut(t, volumes)
	require.Len(t, w.calls("DeleteSnapshot"), 1)
}

// TestCutAgainAfterFailure: a cut of which a snapshot has failed is none.
func TestCutAgainAfterFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0", "log-mysql-0")
	first, err := w.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	require.NoError(t, w.aws.Set(first[1].ID, control.Change{Outcome: control.Failing, Message: "no luck"}))
	err = w.snap.WaitReady(t.Context(), first[1])
	require.ErrorIs(t, err, snapshot.ErrFailed)
	require.ErrorContains(t, err, "no luck")
	second := w.cut(t, volumes)
	require.NotEqual(t, first[0].ID, second[0].ID)
	require.NotEqual(t, first[1].ID, second[1].ID)
	require.Len(t, w.aws.Snapshots(), 2)
}

func TestCutTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.Tags = map[string]string{"cost-center": "42"} })
	for ordinal, claims := range [][]string{{"data-mysql-0", "log-mysql-0"}, {"data-mysql-1"}} {
		volumes := w.located(t, claims...)
		for i := range volumes {
			volumes[i].Ordinal = ordinal
		}
		w.cut(t, volumes) // of the same name, and yet of another member
	}
	require.Len(t, w.aws.Snapshots(), 3)
	for _, s := range w.aws.Snapshots() {
		require.NotEmpty(t, s.Tags["keepset/attempt"])
		claim := s.Tags["keepset/claim"]
		delete(s.Tags, "keepset/attempt")
		require.Equal(t, strings.HasSuffix(claim, "-0"), s.Tags["keepset/together"] == "true")
		delete(s.Tags, "keepset/together")
		require.Equal(t, map[string]string{
			"keepset/cluster": "c0ffee", "keepset/namespace": "shop", "keepset/set": "mysql", "keepset/ordinal": claim[len(claim)-1:], "keepset/name": cutName,
			"keepset/claim": claim, "kubernetes.io/created-for/pvc/name": claim, "team": "shop", "ebs.csi.aws.com/cluster": "true", "cost-center": "42",
		}, s.Tags)
	}
}

// TestCutRefuses: nothing is asked of AWS for what cannot be one member's cut.
func TestCutRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0", "log-mysql-0")
	change := func(f func(v []snapshot.Volume)) []snapshot.Volume {
		c := slices.Clone(volumes)
		f(c)
		return c
	}
	for _, test := range []struct {
		volumes []snapshot.Volume
		says    string
	}{
		{nil, "at least one volume"},
		{change(func(v []snapshot.Volume) { v[1].Handle = "" }), "log-mysql-0 was not located"},
		{change(func(v []snapshot.Volume) { v[1].Ordinal = 1 }), "different members"},
		{change(func(v []snapshot.Volume) { v[1].Zone = "eu-west-1a" }), "different regions"},
		{change(func(v []snapshot.Volume) { v[1].Handle = v[0].Handle }), "same volume"},
	} {
		_, err := w.snap.Cut(t.Context(), cutName, test.volumes)
		require.ErrorContains(t, err, test.says)
	}
	require.Empty(t, w.aws.Snapshots())
}

// TestErrors: an error says the action, the object and the remedy, and is what callers decide on.
func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		action, code string
		message      string
		want         error
		says         []string
	}{
		"right": {"CreateSnapshot", "UnauthorizedOperation", "", snapshot.ErrDenied, []string{"ec2:CreateSnapshot of volume vol-", "deploy/iam", "data-mysql-0"}},
		"other right": {
			"CreateSnapshot", "UnauthorizedOperation", "User: arn:aws:iam::1:role/x is not authorized to perform: ec2:CreateTags on resource: y. Encoded authorization failure message: abcdef",
			snapshot.ErrDenied,
			[]string{"allow ec2:CreateTags too"},
		},
		"key":      {"CreateSnapshot", "AuthFailure", "", snapshot.ErrDenied, []string{"check the credentials"}},
		"clock":    {"CreateSnapshot", "RequestExpired", "", snapshot.ErrDenied, []string{"NTP"}},
		"rate":     {"CreateSnapshot", "RequestLimitExceeded", "", snapshot.ErrLimit, []string{"rate limits"}},
		"volume's": {"CreateSnapshot", "SnapshotCreationPerVolumeRateExceeded", "", snapshot.ErrLimit, []string{"rate limits"}},
		"quota":    {"CreateSnapshot", "SnapshotLimitExceeded", "", snapshot.ErrLimit, []string{"ask AWS to raise"}},
		"volume":   {"CreateSnapshot", "InvalidVolume.NotFound", "", snapshot.ErrNotFound, []string{"vol-"}},
		"down":     {"DescribeSnapshots", "InternalError", "", snapshot.ErrUnreachable, []string{"snapshots named " + cutName}},
		"unknown":  {"CreateSnapshot", "SomethingNew", "what nobody foresaw", snapshot.ErrFailed, []string{"SomethingNew: what nobody foresaw"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.Patience.Call = 50 * time.Millisecond })
			volumes := w.located(t, "data-mysql-0")
			w.aws.Inject(ebstest.Rule{Action: test.action, Times: -1, Fail: &ebstest.Error{Code: test.code, Message: test.message}})
			_, err := w.snap.Cut(t.Context(), cutName, volumes)
			require.ErrorIs(t, err, test.want)
			for _, says := range test.says {
				require.ErrorContains(t, err, says)
			}
			require.NotContains(t, err.Error(), "Encoded")
			require.Empty(t, w.aws.Snapshots())
		})
	}
}

// TestThrottledForAWhile: what AWS lets through in the end is cut once.
func TestThrottledForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0")
	w.aws.Inject(ebstest.Rule{Times: 5, Fail: &ebstest.Error{Code: "RequestLimitExceeded"}})
	w.cut(t, volumes)
	w.requireCut(t, volumes)
}

// TestNobodyAnswers: an endpoint that is not there is reported within the patience, not waited for.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.Patience.Call = 50 * time.Millisecond })
	volumes := w.located(t, "data-mysql-0")
	w.aws.Close()
	_, err := w.snap.Locate(t.Context(), volumes)
	require.ErrorIs(t, err, snapshot.ErrUnreachable)
	require.ErrorContains(t, err, "AWS_ENDPOINT_URL_EC2")
}

func TestLocateNeedsTheClusterRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0")
	bound, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), "data-mysql-0", metav1.GetOptions{})
	require.NoError(t, err)
	// A cluster of its own: the world's has a binder, which reads it all the time.
	kube := fake.NewClientset(bound)
	kube.PrependReactor("get", "persistentvolumes", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "persistentvolumes"}, "pv", nil)
	})
	o := w.options()
	o.Kube = kube
	_, err = w.open(t, o).Locate(t.Context(), volumes)
	require.ErrorIs(t, err, snapshot.ErrDenied)
	require.ErrorContains(t, err, "ClusterRole keepset-snapshot-backup")
}

// TestInTree cuts a volume that the plugin of long ago has made.
func TestInTree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.attach(t, w.instanceOf(t, "data-mysql-0"), nil)
	w.bindTo(t, claim("data-mysql-0"), corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{
		VolumeID: "aws://" + zoneA + "/" + v.ID, FSType: "xfs",
	}})
	located, err := w.snap.Locate(t.Context(), []snapshot.Volume{{Owner: owner, Namespace: namespace, Claim: "data-mysql-0"}})
	require.NoError(t, err)
	ref := w.cut(t, located)[0]
	require.Equal(t, v.ID, ref.Volume)
	require.Equal(t, driver, ref.Driver)
	require.Equal(t, "xfs", ref.FSType)
	require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
	require.Equal(t, "xfs", w.pv(t, namespace, "data-mysql-2").Spec.CSI.FSType, "the content's, not the class's")
}

// TestRegion: it comes from the volume's zone where nothing is configured; and the instance is never asked.
func TestRegion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.Region = "" })
	for _, err := range w.snap.List(t.Context(), owner) {
		require.ErrorContains(t, err, "AWS_REGION")
		require.ErrorIs(t, err, snapshot.ErrNotFound)
	}
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	require.Equal(t, region, ref.Region)
	for r, err := range w.snap.List(t.Context(), owner) {
		require.NoError(t, err, "it was learned")
		require.Equal(t, ref.ID, r.ID)
	}
}

// TestNoCredentials: without any the error says what to do, and soon.
func TestNoCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.Patience.Call = 50 * time.Millisecond })
	volumes := w.located(t, "data-mysql-0")
	o := w.options()
	o.Credentials = ebs.Credentials{}
	s := w.open(t, o)
	start := time.Now()
	_, err := s.Locate(t.Context(), volumes)
	require.ErrorIs(t, err, snapshot.ErrDenied)
	require.ErrorContains(t, err, "ServiceAccount a role")
	require.Less(t, time.Since(start), 20*time.Second)
}

// TestCutThatFailsLeavesNothingUnseen: EC2 may not show for a while what it has made, and what is deleted then is what it said it made.
func TestCutThatFailsLeavesNothingUnseen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0", "log-mysql-0")
	w.aws.Inject(ebstest.Rule{Action: "CreateSnapshots", Times: -1, Fail: &ebstest.Error{Code: "UnsupportedOperation"}})
	w.aws.Inject(ebstest.Rule{Action: "CreateSnapshot", Hide: 100})
	w.aws.Inject(ebstest.Rule{Action: "CreateSnapshot", Skip: 1, Times: -1, Fail: &ebstest.Error{Code: "UnauthorizedOperation"}})
	_, err := w.snap.Cut(t.Context(), cutName, volumes)
	require.ErrorIs(t, err, snapshot.ErrDenied)
	require.Empty(t, w.aws.Snapshots())
}

// TestDeleteOfWhatIsNotSeenYet: what is given up right after it was cut does not stay because EC2 does not show it.
func TestDeleteOfWhatIsNotSeenYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.aws.Inject(ebstest.Rule{Action: "CreateSnapshot", Hide: 2})
	refs, err := w.snap.Cut(t.Context(), cutName, w.located(t, "data-mysql-0"))
	require.NoError(t, err)
	require.NoError(t, w.snap.Delete(t.Context(), owner, refs[0]))
	require.Empty(t, w.aws.Snapshots())
}
