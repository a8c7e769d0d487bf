package statefulset

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// eventLimit is the API server's bound on a message.
const eventLimit = 1024

// Event records something on the set, for `kubectl describe statefulset`.
// Reason is one CamelCase word.
func (c *Client) Event(ctx context.Context, set Set, warning bool, reason, message string) error {
	if len(message) > eventLimit {
		message = strings.ToValidUTF8(message[:eventLimit-3], "") + "..." // no letter cut in half
	}
	kind := corev1.EventTypeNormal
	if warning {
		kind = corev1.EventTypeWarning
	}
	now := metav1.NewTime(c.clock.Now())
	_, err := c.kube.CoreV1().Events(c.namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", set.Name, now.UnixNano()), Namespace: c.namespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: set.Namespace, Name: set.Name, UID: types.UID(set.UID),
		},
		Type: kind, Reason: reason, Message: message, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Source: corev1.EventSource{Component: product}, ReportingController: product,
	}, metav1.CreateOptions{FieldManager: fieldManager})
	return explain(err, "record an event on "+c.ref("statefulset", set.Name))
}
