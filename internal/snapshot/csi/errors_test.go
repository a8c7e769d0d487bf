package csi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keepset/internal/snapshot"
)

var claimsKind = schema.GroupResource{Resource: "persistentvolumeclaims"}

func TestExplain(t *testing.T) {
	rbac := func(verb, resource, group, where string) error {
		return apierrors.NewForbidden(schema.GroupResource{Group: group, Resource: resource}, "x",
			fmt.Errorf(`User "system:serviceaccount:shop:keepset-backup" cannot %s resource %q in API group %q %s`, verb, resource, group, where))
	}
	const group = "snapshot.storage.k8s.io"
	for name, test := range map[string]struct {
		err      error
		sentinel error
		says     []string
	}{
		"a role lacks a rule": {
			rbac("create", "volumesnapshots", group, `in the namespace "shop"`), snapshot.ErrDenied,
			[]string{"service account shop/keepset-backup may not create volumesnapshots.snapshot.storage.k8s.io in namespace shop", "components/csi-snapshots"},
		},
		"a claim may not be read": {
			rbac("get", "persistentvolumeclaims", "", `in the namespace "shop"`), snapshot.ErrDenied,
			[]string{"may not get persistentvolumeclaims in namespace shop", "deploy/cronjob/base"},
		},
		"contents may not be made": {
			rbac("create", "volumesnapshotcontents", group, "at the cluster scope"), snapshot.ErrDenied,
			[]string{"may not create volumesnapshotcontents.snapshot.storage.k8s.io in the cluster", "ClusterRole keepset-snapshot-restore"},
		},
		"volumes may not be read": {
			rbac("get", "persistentvolumes", "", "at the cluster scope"), snapshot.ErrDenied,
			[]string{"ClusterRole keepset-snapshot-look"},
		},
		"quota": {
			apierrors.NewForbidden(claimsKind, "x", errors.New("exceeded quota: small, requested: requests.storage=1Gi")), snapshot.ErrLimit,
			[]string{"ResourceQuota"},
		},
		"admission": {
			apierrors.NewForbidden(claimsKind, "x", errors.New("denied the request: not on Fridays")), snapshot.ErrDenied,
			[]string{"refused by the cluster's policy", "not on Fridays"},
		},
		"token":        {apierrors.NewUnauthorized("token expired"), snapshot.ErrDenied, []string{"token expired"}},
		"missing":      {apierrors.NewNotFound(claimsKind, "data-mysql-0"), snapshot.ErrNotFound, []string{"data-mysql-0"}},
		"no CRDs":      {apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{}, "x", "404 page not found", 0, true), snapshot.ErrUnsupported, []string{"external-snapshotter"}},
		"busy":         {apierrors.NewTooManyRequests("slow down", 1), snapshot.ErrLimit, nil},
		"down":         {apierrors.NewServiceUnavailable("not yet"), snapshot.ErrUnreachable, nil},
		"no answer":    {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, snapshot.ErrUnreachable, []string{"connection refused"}},
		"told to stop": {fmt.Errorf("get: %w", context.DeadlineExceeded), context.DeadlineExceeded, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := explain(test.err, "read claim shop/data-mysql-0")
			require.ErrorIs(t, err, test.sentinel)
			require.ErrorContains(t, err, "read claim shop/data-mysql-0: ")
			for _, text := range test.says {
				assert.ErrorContains(t, err, text)
			}
		})
	}
	require.NoError(t, explain(nil, "read"))
	require.ErrorContains(t, explain(errors.New("odd"), "read"), "read: odd")
}
