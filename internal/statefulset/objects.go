package statefulset

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"keepset/internal/record"
)

// ErrObjects says that what should be a set's objects is something else.
var ErrObjects = errors.New("these are not the objects of a set")

// Objects are what a set needs of its namespace: itself, and what its pod
// template names or is selected by. They travel with its data, as a List that
// kubectl apply takes. They belong to no cluster and no namespace any more.
type Objects struct {
	Set record.SetID
	// Items are in the order in which they are created, the set last.
	Items []Object
	// Omitted are those that are not here.
	Omitted []OmittedObject
}

// Object is one of them.
type Object struct {
	Kind, Name string
	object     kubeObject
}

// OmittedObject is one that the set has, or names, and that is not here.
type OmittedObject struct {
	Kind string `json:"kind"`
	// Name is empty for a whole kind that could not be listed.
	Name string `json:"name,omitempty"`
	Why  string `json:"why"`
	// ByChoice: nobody asked for it.
	ByChoice bool `json:"byChoice,omitempty"`
}

// String is one line for a log.
func (o OmittedObject) String() string {
	return strings.TrimSpace(o.Kind+" "+o.Name) + ": " + o.Why
}

type kubeObject interface {
	runtime.Object
	metav1.Object
}

// objectKind is one of the kinds that travel.
type objectKind struct {
	kind, apiVersion string
	make             func() kubeObject
}

// objectKinds are all of them, in the order in which they are created. What is
// not here is not taken out of a backup either, whoever wrote it.
var objectKinds = []objectKind{
	{kindServiceAccount, "v1", func() kubeObject { return &corev1.ServiceAccount{} }},
	{kindSecret, "v1", func() kubeObject { return &corev1.Secret{} }},
	{kindConfigMap, "v1", func() kubeObject { return &corev1.ConfigMap{} }},
	{kindService, "v1", func() kubeObject { return &corev1.Service{} }},
	{kindBudget, "policy/v1", func() kubeObject { return &policyv1.PodDisruptionBudget{} }},
	{kindClaim, "v1", func() kubeObject { return &corev1.PersistentVolumeClaim{} }},
	{kindSet, "apps/v1", func() kubeObject { return &appsv1.StatefulSet{} }},
}

const (
	kindServiceAccount = "ServiceAccount"
	kindSecret         = "Secret"
	kindConfigMap      = "ConfigMap"
	kindService        = "Service"
	kindBudget         = "PodDisruptionBudget"
	kindClaim          = "PersistentVolumeClaim"
	kindSet            = "StatefulSet"
)

func indexOfKind(kind string) int {
	return slices.IndexFunc(objectKinds, func(k objectKind) bool { return k.kind == kind })
}

// newObject strips o and makes an Object of it.
func newObject(kind string, o kubeObject) Object {
	strip(o)
	return Object{Kind: kind, Name: o.GetName(), object: o}
}

// sort brings the objects into the order in which they are created.
func (o *Objects) sort() {
	slices.SortStableFunc(o.Items, func(a, b Object) int {
		if d := indexOfKind(a.Kind) - indexOfKind(b.Kind); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// StatefulSet is the set itself.
func (o *Objects) set() *appsv1.StatefulSet {
	for _, item := range o.Items {
		if set, ok := item.object.(*appsv1.StatefulSet); ok {
			return set
		}
	}
	return nil
}

const objectsFormat = 1

// objectList is how Objects are stored. What is not a List's is below keepset,
// where kubectl does not look.
type objectList struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
	Keepset    objectListHead    `json:"keepset"`
}

type objectListHead struct {
	Format  int             `json:"format"`
	Set     record.SetID    `json:"set"`
	Omitted []OmittedObject `json:"omitted,omitempty"`
}

// Encode makes the List.
func (o *Objects) Encode() ([]byte, error) {
	list := objectList{APIVersion: "v1", Kind: "List", Items: []json.RawMessage{}, Keepset: objectListHead{Format: objectsFormat, Set: o.Set, Omitted: o.Omitted}}
	for _, item := range o.Items {
		fields, err := item.Manifest("")
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(fields)
		if err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", item.Kind, item.Name, err)
		}
		list.Items = append(list.Items, data)
	}
	data, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode the objects of %s: %w", o.Set, err)
	}
	return append(data, '\n'), nil
}

// Manifest is the object as kubectl takes it, for a namespace if one is given.
func (o Object) Manifest(namespace string) (map[string]any, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o.object)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", o.Kind, o.Name, err)
	}
	fields["apiVersion"], fields["kind"] = objectKinds[indexOfKind(o.Kind)].apiVersion, o.Kind
	delete(fields, "status")
	prune(fields)
	if meta, ok := fields["metadata"].(map[string]any); ok && namespace != "" {
		meta["namespace"] = namespace
	}
	return fields, nil
}

// prune takes away what typed objects say without having been told: times that
// are null, and the empty status of claim templates.
func prune(fields map[string]any) {
	for key, value := range fields {
		switch v := value.(type) {
		case nil:
			if key == "creationTimestamp" {
				delete(fields, key)
			}
		case map[string]any:
			if prune(v); key == "status" && len(v) == 0 {
				delete(fields, key)
			}
		case []any:
			for _, e := range v {
				if m, ok := e.(map[string]any); ok {
					prune(m)
				}
			}
		}
	}
}

// ParseObjects reads what Encode wrote. It comes out of a store, so nothing in
// it is taken at its word: kinds that do not travel are refused, and so is what
// the set itself has nothing to do with; namespaces, owners, finalizers and all
// else that belonged to a cluster is taken away once more.
func ParseObjects(data []byte) (Objects, error) {
	var list objectList
	if err := json.Unmarshal(data, &list); err != nil {
		return Objects{}, fmt.Errorf("%w: %w", ErrObjects, err)
	}
	head := list.Keepset
	switch {
	case list.Kind != "List" || head.Format < 1:
		return Objects{}, fmt.Errorf("%w: kind %q, format %d", ErrObjects, list.Kind, head.Format)
	case head.Format > objectsFormat:
		return Objects{}, fmt.Errorf("%w: they have format %d, and this version of Keepset knows up to %d", ErrObjects, head.Format, objectsFormat)
	}
	if err := head.Set.Validate(); err != nil {
		return Objects{}, fmt.Errorf("%w: %w", ErrObjects, err)
	}
	objects := Objects{Set: head.Set, Omitted: head.Omitted}
	for _, raw := range list.Items {
		item, err := parseObject(raw)
		if err != nil {
			return Objects{}, err
		}
		objects.Items = append(objects.Items, item)
	}
	objects.sort()
	return objects, objects.validate()
}

func parseObject(raw json.RawMessage) (Object, error) {
	var head metav1.TypeMeta
	if err := json.Unmarshal(raw, &head); err != nil {
		return Object{}, fmt.Errorf("%w: %w", ErrObjects, err)
	}
	i := indexOfKind(head.Kind)
	if i < 0 || objectKinds[i].apiVersion != head.APIVersion {
		return Object{}, fmt.Errorf("%w: %q of %q is no kind that travels with a set", ErrObjects, head.Kind, head.APIVersion)
	}
	object := objectKinds[i].make()
	if err := json.Unmarshal(raw, object); err != nil {
		return Object{}, fmt.Errorf("%w: %s: %w", ErrObjects, head.Kind, err)
	}
	if wrong := validation.IsDNS1123Subdomain(object.GetName()); len(wrong) > 0 {
		return Object{}, fmt.Errorf("%w: %s %q: %s", ErrObjects, head.Kind, object.GetName(), strings.Join(wrong, "; "))
	}
	return newObject(head.Kind, object), nil
}

// validate holds every object against the set: one that it neither names nor is
// selected by did not come from a backup of it.
func (o *Objects) validate() error {
	set := o.set()
	if set == nil || set.Name != o.Set.Name {
		return fmt.Errorf("%w: StatefulSet %s is not among them", ErrObjects, o.Set.Name)
	}
	seen := map[string]bool{}
	of := relationsOf(set)
	for _, item := range o.Items { // ServiceAccounts come before the Secrets that they name
		if account, ok := item.object.(*corev1.ServiceAccount); ok {
			of.addPullSecrets(account.ImagePullSecrets)
		}
	}
	for _, item := range o.Items {
		key := item.Kind + " " + item.Name
		if seen[key] {
			return fmt.Errorf("%w: there are two of %s", ErrObjects, key)
		}
		seen[key] = true
		if !of.has(item.object) {
			return fmt.Errorf("%w: StatefulSet %s has nothing to do with %s", ErrObjects, set.Name, key)
		}
	}
	return nil
}
