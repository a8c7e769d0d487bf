package job

import (
	"context"
	"fmt"

	"keepset/internal/record"
	"keepset/internal/repository"
)

// Choice says which backup is restored. Only complete ones are chosen by time
// or as the latest; others need their ID and a flag that names the doubt.
type Choice struct {
	Selector                      repository.Selector
	AllowIncomplete, AllowSuspect bool
}

// resolve finds the backup.
func (c Choice) resolve(ctx context.Context, r *repository.Repository, set record.SetID) (repository.BackupInfo, error) {
	selector := c.Selector
	selector.Allow = c.AllowIncomplete || c.AllowSuspect
	info, err := r.Resolve(ctx, set, selector)
	if err != nil {
		return info, err
	}
	switch {
	case info.Status == repository.StatusIncomplete && !c.AllowIncomplete:
		return info, fmt.Errorf("%w: %s of %s is incomplete; --allow-incomplete restores what it has", repository.ErrNoEligible, info.ID, set)
	case suspect(info) && !c.AllowSuspect:
		return info, fmt.Errorf("%w: %s of %s is suspect; --allow-suspect restores it nevertheless", repository.ErrNoEligible, info.ID, set)
	}
	return info, nil
}

// suspect also finds the suspect members of an incomplete backup.
func suspect(info repository.BackupInfo) bool {
	for _, m := range info.Members {
		if m.Valid && m.Commit.Status == record.StatusSuspect {
			return true
		}
	}
	return false
}
