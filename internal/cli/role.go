package cli

import (
	"context"
	"errors"

	"keepset/internal/job"
)

// roleOf asks a server whether it replicates from another.
func roleOf(ctx context.Context, e Engine) (role string, err error) {
	defer func() { err = errors.Join(err, e.Close()) }()
	replicates, err := e.Replicates(ctx)
	if err != nil {
		return "", err
	}
	if replicates {
		return job.RoleFollower, nil
	}
	return job.RolePrimary, nil
}
