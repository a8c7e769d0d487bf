package ebs

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keepset/internal/snapshot"
)

// The opt-in ClusterRoles that hold the rights on what is in no namespace.
const (
	roleBackup  = "keepset-snapshot-backup"
	roleRestore = "keepset-volume-restore"
)

// errNoCluster: claims were named, and there is nobody to ask for them.
var errNoCluster = errors.New("no Kubernetes cluster is connected")

// explain wraps an error of the API server. A denial names the ClusterRole
// that would allow it.
func explain(ctx context.Context, err error, doing, role string) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case apierrors.IsForbidden(err) && role != "":
		return fmt.Errorf("%s: %w: bind the opt-in ClusterRole %s to the pod's ServiceAccount (%w)", doing, snapshot.ErrDenied, role, err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: %w (%w)", doing, snapshot.ErrDenied, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w (%w)", doing, snapshot.ErrNotFound, err)
	case apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsServiceUnavailable(err), apierrors.IsTooManyRequests(err), apierrors.IsInternalError(err):
		return fmt.Errorf("%s: %w: the Kubernetes API server does not answer (%w)", doing, snapshot.ErrUnreachable, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}
