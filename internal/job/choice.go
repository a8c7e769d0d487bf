package job

import (
	"context"
	"fmt"
	"strings"

	"keepset/internal/record"
	"keepset/internal/repository"
)

// Choice says which backup is restored. Only complete ones are chosen by time
// or as the latest; others need their ID and a flag that names the doubt.
type Choice struct {
	Selector                      repository.Selector
	AllowIncomplete, AllowSuspect bool
	// Whole: members are to be restored whole, so that a backup of single
	// databases is passed over, and refused by its ID. AllowFiltered takes
	// one by its ID all the same, and one from which only some databases were
	// left out by time and as the latest, too.
	Whole, AllowFiltered bool
	// Ordinals are those whose own members are needed: by time and as the
	// latest, a backup from which they were left out on purpose is passed over.
	Ordinals []int
}

// resolve finds the backup.
func (c Choice) resolve(ctx context.Context, r *repository.Repository, set record.SetID) (repository.BackupInfo, error) {
	selector := c.Selector
	selector.Allow = c.AllowIncomplete || c.AllowSuspect
	selector.Unfit = c.unfit
	info, err := r.Resolve(ctx, set, selector)
	if err != nil {
		return info, err
	}
	partial := filtered(&info.Plan)
	switch {
	case info.Status == repository.StatusIncomplete && !c.AllowIncomplete:
		return info, fmt.Errorf("%w: %s of %s is incomplete; --allow-incomplete restores what it has", repository.ErrNoEligible, info.ID, set)
	case suspect(info) && !c.AllowSuspect:
		return info, fmt.Errorf("%w: %s of %s is suspect; --allow-suspect restores it nevertheless", repository.ErrNoEligible, info.ID, set)
	case c.Whole && partial != "" && !c.AllowFiltered:
		return info, fmt.Errorf("%w: %s of %s %s; --allow-filtered restores a server that has nothing else", repository.ErrNoEligible, info.ID, set, partial)
	}
	return info, nil
}

// unfit says why a good backup is not chosen by time or as the latest.
func (c Choice) unfit(info repository.BackupInfo) string {
	if include, _ := info.Plan.Filter(); c.Whole && (len(include) > 0 || !c.AllowFiltered) {
		if why := filtered(&info.Plan); why != "" {
			return why
		}
	}
	for _, ordinal := range c.Ordinals {
		if _, planned := info.Plan.Member(ordinal); !planned && info.Plan.Narrowed() {
			return fmt.Sprintf("was taken without ordinal %d (restore run loads another member with --base)", ordinal)
		}
	}
	return ""
}

// filtered says what the members of a backup do not hold, empty when they are whole.
func filtered(p *record.Plan) string {
	include, exclude := p.Filter()
	var why []string
	if len(include) > 0 {
		why = append(why, "holds only "+strings.Join(include, ", ")+" and no accounts")
	}
	if len(exclude) > 0 {
		why = append(why, "was taken without "+strings.Join(exclude, ", "))
	}
	return strings.Join(why, " and ")
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
