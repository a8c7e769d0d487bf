package statefulset

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Sentinels that callers decide on. They arrive wrapped in a text that says
// which object, and what the user can do.
var (
	// ErrNoCluster: there is neither a pod's service account nor a kubeconfig.
	ErrNoCluster = errors.New("no Kubernetes cluster configured")
	// ErrNotFound: the set or the CronJob does not exist.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous: the set does not say which container or port to use.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrForbidden: a Role lacks a rule.
	ErrForbidden = errors.New("not allowed")
	// ErrBusy: another run holds the set's Lease.
	ErrBusy = errors.New("lease is held")
	// ErrLeaseLost: the Lease is no longer ours; nothing may be touched.
	ErrLeaseLost = errors.New("lease lost")
	// ErrClaimInUse: a claim that exists would have to be replaced.
	ErrClaimInUse = errors.New("claim exists already")
	// ErrExclusive: a claim would have to be mounted by more pods than it allows.
	ErrExclusive = errors.New("claim is for one pod alone")
	// ErrSeedFailed: the seed pod did not start, or ended the wrong way.
	ErrSeedFailed = errors.New("seed pod failed")
	// ErrHeld: an ordinal cannot be released without starting an empty replica.
	ErrHeld = errors.New("ordinal stays held")
	// ErrTimeout: a condition did not come about in time.
	ErrTimeout = errors.New("timed out")
)

// denial matches what the API server's authorizer says. Admission refuses with
// the same status code but other words.
var denial = regexp.MustCompile(`User "([^"]+)" cannot (\S+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]*)")?`)

// explain wraps an error of the API server. A denial by RBAC becomes
// ErrForbidden and names the rule that is missing.
func explain(err error, doing string) error {
	if err == nil {
		return nil
	}
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		return fmt.Errorf("%s: %w; the API server did not answer: check the network policies, which have to let its address and port pass", doing, err)
	}
	if !apierrors.IsForbidden(err) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	m := denial.FindStringSubmatch(err.Error())
	if m == nil {
		return fmt.Errorf("%s: refused by the cluster's policy: %w", doing, err)
	}
	user, verb, resource, group, namespace := m[1], m[2], m[3], m[4], m[5]
	return fmt.Errorf("%s: %w: %s may not %s %s%s; %s", doing, ErrForbidden,
		account(user), verb, qualified(resource, group), inNamespace(namespace), remedy(user, resource))
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
	resource, sub, found := strings.Cut(resource, "/")
	if found {
		sub = "/" + sub
	}
	return resource + "." + group + sub
}

func inNamespace(namespace string) string {
	if namespace == "" {
		return " in the cluster"
	}
	return " in namespace " + namespace
}

// remedy names the file of this project that holds the rule.
func remedy(user, resource string) string {
	switch {
	case strings.HasSuffix(user, ":keepset-backup") && resource == "secrets":
		return "the rule is in deploy/cronjob/components/secrets"
	case strings.HasSuffix(user, ":keepset-backup"):
		return "the rule is in deploy/cronjob/base/rbac-backup.yaml"
	case strings.HasSuffix(user, ":keepset-restore"):
		return "the rule is in deploy/cronjob/base/rbac-restore.yaml"
	default:
		return "the rules are in deploy/cronjob/base/rbac-backup.yaml and rbac-restore.yaml"
	}
}
