package csi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// denial matches what the API server's authorizer says. Admission refuses with
// the same status code but other words.
var denial = regexp.MustCompile(`User "([^"]+)" cannot (\S+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]*)")?`)

// explain wraps an error of the API server in one of the contract's sentinels.
// doing says on which object what was tried.
func explain(err error, doing string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, err)
	case apierrors.IsForbidden(err):
		return forbidden(err, doing)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: %w: the cluster does not accept our token or certificate: %w", doing, snapshot.ErrDenied, err)
	case noSuchKind(err):
		return fmt.Errorf("%s: %w: the cluster has no VolumeSnapshots; its administrator installs the CRDs and the snapshot-controller of kubernetes-csi/external-snapshotter",
			doing, snapshot.ErrUnsupported)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w: %w", doing, snapshot.ErrNotFound, err)
	case apierrors.IsTooManyRequests(err):
		return fmt.Errorf("%s: %w: %w", doing, snapshot.ErrLimit, err)
	case unreachable(err):
		return fmt.Errorf("%s: %w: %w", doing, snapshot.ErrUnreachable, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// forbidden tells a missing rule from a quota and from a policy.
func forbidden(err error, doing string) error {
	m := denial.FindStringSubmatch(err.Error())
	switch {
	case m != nil:
		user, verb, resource, group, namespace := m[1], m[2], m[3], m[4], m[5]
		return fmt.Errorf("%s: %w: %s may not %s %s%s; %s", doing, snapshot.ErrDenied,
			account(user), verb, qualified(resource, group), inNamespace(namespace), remedy(resource, verb))
	case strings.Contains(err.Error(), "exceeded quota"):
		return fmt.Errorf("%s: %w: %w; raise the namespace's ResourceQuota", doing, snapshot.ErrLimit, err)
	default:
		return fmt.Errorf("%s: %w: refused by the cluster's policy: %w", doing, snapshot.ErrDenied, err)
	}
}

// account shortens the user name of a service account.
func account(user string) string {
	if rest, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		return "service account " + strings.Replace(rest, ":", "/", 1)
	}
	return "user " + user
}

func qualified(resource, group string) string {
	if group == "" {
		return resource
	}
	return resource + "." + group
}

func inNamespace(namespace string) string {
	if namespace == "" {
		return " in the cluster"
	}
	return " in namespace " + namespace
}

// remedy names the file of this project that holds the rule.
func remedy(resource, verb string) string {
	reads := verb == "get" || verb == "list"
	switch {
	case resource == "volumesnapshotcontents" && !(verb == "get"):
		return "the opt-in ClusterRole keepset-snapshot-restore of deploy/cronjob/components/csi-volume-restore allows it"
	case resource == "volumesnapshots" || resource == "persistentvolumeclaims":
		return "the rule is in deploy/cronjob/base or deploy/cronjob/components/csi-snapshots or, for files, deploy/cronjob/components/files-snapshots"
	case reads:
		return "the ClusterRole keepset-snapshot-look of deploy/cronjob/components/csi-snapshots allows it"
	default:
		return "docs/csi.md says which rule allows it"
	}
}

// noSuchKind says that it is not an object that is missing but the API: the
// API server answers for an unknown path in words of its own, not as the
// registry of a resource does.
func noSuchKind(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// unreachable says that the same request may succeed in a moment.
func unreachable(err error) bool {
	var network net.Error
	return errors.As(err, &network) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// denied says whether err is a right that we do not have.
func denied(err error) bool { return errors.Is(err, snapshot.ErrDenied) }

// missing says whether err is about an object that does not exist.
func missing(err error) bool { return errors.Is(err, snapshot.ErrNotFound) }
