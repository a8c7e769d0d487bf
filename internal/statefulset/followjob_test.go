package statefulset

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// A service mesh puts a container of its own into every pod: its log is not
// the Job's, and an API server refuses to choose one; its end says nothing.
func TestFollowJobMindsItsOwnContainer(t *testing.T) {
	ended := func(name string, code int32, message string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Message: message}}}
	}
	kube := fake.NewClientset(
		&batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: "mysql", Name: "r", UID: "u"},
			Spec:       batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "restore"}}}}},
			Status:     batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}},
		},
		&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "mysql", Name: "r-1", Labels: map[string]string{batchv1.ControllerUidLabel: "u"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "istio-proxy"}, {Name: "restore"}}},
			Status: corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{
				ended("restore", 64, "no such claim"), ended("istio-proxy", 0, ""),
			}},
		})
	var asked []string
	kube.PrependReactor("get", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if g, ok := a.(clienttesting.GenericAction); ok && a.GetSubresource() == "log" {
			o, ok := g.GetValue().(*corev1.PodLogOptions)
			require.True(t, ok)
			asked = append(asked, o.Container)
		}
		return false, nil, nil
	})
	var out bytes.Buffer
	r, err := New(kube, "mysql", nil).FollowJob(t.Context(), JobRef{Name: "r", UID: "u"}, &out)
	require.NoError(t, err)
	require.Equal(t, []string{"restore"}, asked)
	require.Equal(t, JobResult{ExitCode: 64, Message: "no such claim"}, r)
}
