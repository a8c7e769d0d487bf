package statefulset

import (
	"context"
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/record"
)

// Objects reads the set and what it needs of its namespace; Secrets only where
// they are asked for. What we may not read, or is not there, is among the
// Omitted, with the right that is missing: a backup of the data is worth having
// without. Any other error is returned. It needs to list services and
// poddisruptionbudgets, and to get configmaps, serviceaccounts, and secrets.
func (c *Client) Objects(ctx context.Context, name string, secrets bool) (Objects, error) {
	set, err := c.getSet(ctx, name)
	if err != nil {
		return Objects{}, err
	}
	r := objectReader{c: c, of: relationsOf(set), found: Objects{Set: record.SetID{Namespace: c.namespace, Name: name}}}
	r.add(kindSet, set)
	err = errors.Join(r.account(ctx), r.configMaps(ctx), r.secrets(ctx, secrets), r.services(ctx), r.budgets(ctx), r.claims(ctx))
	r.found.sort()
	return r.found, err
}

// objectReader gathers what belongs to a set.
type objectReader struct {
	c     *Client
	of    *relations
	found Objects
}

func (r *objectReader) add(kind string, o kubeObject) {
	r.found.Items = append(r.found.Items, newObject(kind, o))
}

func (r *objectReader) omit(kind, name, why string, byChoice bool) {
	r.found.Omitted = append(r.found.Omitted, OmittedObject{Kind: kind, Name: name, Why: why, ByChoice: byChoice})
}

// forgive keeps an error that only means that an object stays out of the backup
// from failing it.
func (r *objectReader) forgive(err error, kind, name, doing string) error {
	switch explained := explain(err, doing); {
	case err == nil:
		return nil
	case errors.Is(explained, ErrForbidden):
		r.omit(kind, name, explained.Error(), false)
		return nil
	case apierrors.IsNotFound(err):
		r.omit(kind, name, "is named by the set and not there", false)
		return nil
	default:
		return explained
	}
}

func (r *objectReader) account(ctx context.Context) error {
	name := r.of.account
	if name == "" {
		return nil
	}
	account, err := r.c.kube.CoreV1().ServiceAccounts(r.c.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return r.forgive(err, kindServiceAccount, name, "read "+r.c.ref("serviceaccount", name))
	}
	r.of.addPullSecrets(account.ImagePullSecrets)
	r.add(kindServiceAccount, account)
	return nil
}

func (r *objectReader) configMaps(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(r.of.configMaps)) {
		o, err := r.c.kube.CoreV1().ConfigMaps(r.c.namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil:
			r.add(kindConfigMap, o)
		case apierrors.IsNotFound(err) && r.of.configMaps[name]:
		default:
			if err := r.forgive(err, kindConfigMap, name, "read "+r.c.ref("configmap", name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *objectReader) secrets(ctx context.Context, wanted bool) error {
	for _, name := range slices.Sorted(maps.Keys(r.of.secrets)) {
		if !wanted {
			r.omit(kindSecret, name, "Secrets were not asked for (backup run --with-secrets, into an encrypted repository)", true)
			continue
		}
		o, err := r.c.kube.CoreV1().Secrets(r.c.namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil && !travels(o):
			r.omit(kindSecret, name, "is of the type "+string(o.Type)+", which a cluster makes for itself", true)
		case err == nil:
			r.add(kindSecret, o)
		case apierrors.IsNotFound(err) && r.of.secrets[name]:
		default:
			if err := r.forgive(err, kindSecret, name, "read "+r.c.ref("secret", name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *objectReader) services(ctx context.Context) error {
	list, err := r.c.kube.CoreV1().Services(r.c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return r.forgive(err, kindService, "", "list the services of namespace "+r.c.namespace)
	}
	for i := range list.Items {
		if o := &list.Items[i]; r.of.has(o) {
			r.add(kindService, o)
		}
	}
	if name := r.of.set.Spec.ServiceName; name != "" && !slices.ContainsFunc(list.Items, func(s corev1.Service) bool { return s.Name == name }) {
		r.omit(kindService, name, "is named by the set and not there", false)
	}
	return nil
}

func (r *objectReader) budgets(ctx context.Context) error {
	list, err := r.c.kube.PolicyV1().PodDisruptionBudgets(r.c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return r.forgive(err, kindBudget, "", "list the poddisruptionbudgets of namespace "+r.c.namespace)
	}
	for i := range list.Items {
		if o := &list.Items[i]; r.of.has(o) {
			r.add(kindBudget, o)
		}
	}
	return nil
}

// claims are kept for what they say of sizes and classes. That one is missing
// is said by the backup itself.
func (r *objectReader) claims(ctx context.Context) error {
	claims, err := r.c.claims(ctx)
	if err != nil {
		return err
	}
	for name := range r.of.claims {
		if claim := claims[name]; claim != nil {
			r.add(kindClaim, claim)
		}
	}
	return nil
}
