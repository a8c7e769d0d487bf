package statefulset

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What became of an object.
const (
	ObjectCreated = "created"
	ObjectSame    = "exists"
	ObjectDiffers = "exists and differs"
	// ObjectLeft: a claim is made with its content, or by the user.
	ObjectLeft = "left out"
)

// CreatedObject is what became of one object.
type CreatedObject struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action"`
	Note   string `json:"note,omitempty"`
}

// ForRestore makes the objects ready to be created: the set has no replicas, so
// that no pod starts on an empty claim, and its templates make claims as large
// as the largest that the backup knows, since one of the others was enlarged.
func (o *Objects) ForRestore() {
	set := o.set()
	none := int32(0)
	set.Spec.Replicas = &none
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		for _, item := range o.Items {
			claim, ok := item.object.(*corev1.PersistentVolumeClaim)
			if !ok || !hasClaim(set, t.Name, claim.Name) {
				continue
			}
			size, had := claim.Spec.Resources.Requests[corev1.ResourceStorage], t.Spec.Resources.Requests[corev1.ResourceStorage]
			if size.Cmp(had) > 0 {
				if t.Spec.Resources.Requests == nil {
					t.Spec.Resources.Requests = corev1.ResourceList{}
				}
				t.Spec.Resources.Requests[corev1.ResourceStorage] = size
			}
		}
	}
}

func hasClaim(set *appsv1.StatefulSet, template, claim string) bool {
	_, ok := suffixOrdinal(claim, template+"-"+set.Name+"-")
	return ok
}

// Creatable are the objects that CreateObjects makes, which claims are not.
func (o *Objects) Creatable() []Object {
	var items []Object
	for _, item := range o.Items {
		if item.Kind != kindClaim {
			items = append(items, item)
		}
	}
	return items
}

// CreateObjects makes in the Client's namespace what is not there yet, and the
// namespace itself, if it may. What exists is never changed. With dryRun nothing
// is made. It may be repeated.
func (c *Client) CreateObjects(ctx context.Context, o Objects, dryRun bool) ([]CreatedObject, error) {
	var done []CreatedObject
	there, err := c.namespaceThere(ctx)
	if err != nil {
		return nil, err
	}
	if !there {
		done = append(done, CreatedObject{Kind: "Namespace", Name: c.namespace, Action: ObjectCreated})
		if !dryRun {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}
			_, err := c.kube.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{FieldManager: fieldManager})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return nil, explain(err, "create namespace "+c.namespace+" (or create it yourself)")
			}
		}
	}
	for _, item := range o.Items {
		result := CreatedObject{Kind: item.Kind, Name: item.Name, Action: ObjectLeft}
		switch {
		case item.Kind != kindClaim:
			if result.Action, err = c.createObject(ctx, item, there, dryRun); err != nil {
				return done, err
			}
		case o.shared(item.Name):
			result.Note = "all pods mount it, and the backup does not hold what is in it: make and fill it yourself"
		default:
			result.Note = "is made with its content"
		}
		done = append(done, result)
	}
	return done, nil
}

// shared says whether the pod template names the claim.
func (o *Objects) shared(claim string) bool {
	return slices.Contains(sharedClaims(o.set().Spec.Template.Spec), claim)
}

// namespaceThere is true for a namespace that we may not look at, too: whoever
// has rights in a namespace alone has them in one that exists.
func (c *Client) namespaceThere(ctx context.Context) (bool, error) {
	_, err := c.kube.CoreV1().Namespaces().Get(ctx, c.namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err == nil, apierrors.IsForbidden(err):
		return true, nil
	}
	return false, explain(err, "look for namespace "+c.namespace)
}

// createObject makes one object, if there is none of its name.
func (c *Client) createObject(ctx context.Context, item Object, there, dryRun bool) (string, error) {
	if there {
		action, err := c.compareObject(ctx, item)
		if action != "" || err != nil {
			return action, err
		}
	}
	if dryRun {
		return ObjectCreated, nil
	}
	err := c.kindOf(item).create(ctx)
	if apierrors.IsAlreadyExists(err) { // somebody was quicker, or our request was repeated
		return c.compareObject(ctx, item)
	}
	if err != nil {
		return "", explain(err, "create "+c.ref(item.Kind, item.Name))
	}
	return ObjectCreated, nil
}

// compareObject says whether there is one of that name, and whether it is the same.
func (c *Client) compareObject(ctx context.Context, item Object) (string, error) {
	live, err := c.kindOf(item).get(ctx)
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", explain(err, "read "+c.ref(item.Kind, item.Name))
	}
	now, err := fieldsOf(newObject(item.Kind, live))
	if err != nil {
		return "", err
	}
	then, err := fieldsOf(item)
	if err != nil {
		return "", err
	}
	if equality.Semantic.DeepEqual(now, then) {
		return ObjectSame, nil
	}
	return ObjectDiffers, nil
}

// fieldsOf is an object without what a restore itself, or the day, changes.
func fieldsOf(o Object) (map[string]any, error) {
	fields, err := o.Manifest("")
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	if spec, ok := fields["spec"].(map[string]any); ok && o.Kind == kindSet {
		delete(spec, "replicas")
	}
	return fields, nil
}

// objectCalls are the calls of an object's own kind.
type objectCalls struct {
	get    func(context.Context) (kubeObject, error)
	create func(context.Context) error
}

// objectInterface is what client-go has for each kind.
type objectInterface[T kubeObject] interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (T, error)
	Create(ctx context.Context, object T, o metav1.CreateOptions) (T, error)
}

func callsOf[T kubeObject](api objectInterface[T], object T) objectCalls {
	return objectCalls{
		get: func(ctx context.Context) (kubeObject, error) {
			return api.Get(ctx, object.GetName(), metav1.GetOptions{})
		},
		create: func(ctx context.Context) error {
			_, err := api.Create(ctx, object, metav1.CreateOptions{FieldManager: fieldManager})
			return err
		},
	}
}

// kindOf finds the calls for an object. There are no others: see objectKinds.
func (c *Client) kindOf(item Object) objectCalls {
	core := c.kube.CoreV1()
	switch o := item.object.(type) {
	case *corev1.ServiceAccount:
		return callsOf(core.ServiceAccounts(c.namespace), o)
	case *corev1.Secret:
		return callsOf(core.Secrets(c.namespace), o)
	case *corev1.ConfigMap:
		return callsOf(core.ConfigMaps(c.namespace), o)
	case *corev1.Service:
		return callsOf(core.Services(c.namespace), o)
	case *policyv1.PodDisruptionBudget:
		return callsOf(c.kube.PolicyV1().PodDisruptionBudgets(c.namespace), o)
	case *appsv1.StatefulSet:
		return callsOf(c.kube.AppsV1().StatefulSets(c.namespace), o)
	}
	failed := fmt.Errorf("%w: %s is not made by a restore", ErrObjects, item.Kind)
	return objectCalls{
		get:    func(context.Context) (kubeObject, error) { return nil, failed },
		create: func(context.Context) error { return failed },
	}
}

// SecretValue reads one key of a Secret of the namespace.
func (c *Client) SecretValue(ctx context.Context, name, key string) (string, error) {
	secret, err := c.kube.CoreV1().Secrets(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", explain(err, "read "+c.ref("secret", name))
	}
	value, ok := secret.Data[key]
	if !ok || len(value) == 0 {
		return "", fmt.Errorf("%s: %w: it has no key %q", c.ref("secret", name), ErrNotFound, key)
	}
	return string(value), nil
}
