package job

import (
	"context"
	"fmt"
	"strings"
	"time"

	"keepset/internal/record"
	"keepset/internal/repository"
)

// Choice says which backup is restored. Only complete ones are chosen by time
// or as the latest; others need their ID and a flag that names the doubt.
type Choice struct {
	Selector                      repository.Selector
	AllowIncomplete, AllowSuspect bool
	// Whole: members are to be restored whole. A backup of single databases is
	// passed over for an older one, and refused by its ID; one from which
	// databases were left out is refused. AllowFiltered takes the one by its ID
	// all the same, the other by time and as the latest, too.
	Whole, AllowFiltered bool
	// Ordinals are those whose own members are needed: by time and as the
	// latest, a backup from which they were left out on purpose is passed over.
	Ordinals []int
}

// resolve finds the backup. passed, if not empty, says which good and newer
// ones were passed over for it, and why.
func (c Choice) resolve(ctx context.Context, r *repository.Repository, set record.SetID) (info repository.BackupInfo, passed string, err error) {
	var newer []repository.BackupInfo
	selector := c.Selector
	selector.Allow = c.AllowIncomplete || c.AllowSuspect
	selector.Unfit = func(info repository.BackupInfo) string {
		why := c.unfit(info)
		if why != "" {
			newer = append(newer, info)
		}
		return why
	}
	if info, err = r.Resolve(ctx, set, selector); err != nil {
		return info, "", err
	}
	partial := filtered(&info.Plan)
	switch {
	case info.Status == repository.StatusIncomplete && !c.AllowIncomplete:
		return info, "", fmt.Errorf("%w: %s of %s is incomplete; --allow-incomplete restores what it has", repository.ErrNoEligible, info.ID, set)
	case suspect(info) && !c.AllowSuspect:
		return info, "", fmt.Errorf("%w: %s of %s is suspect; --allow-suspect restores it nevertheless", repository.ErrNoEligible, info.ID, set)
	case c.Whole && partial != "" && !c.AllowFiltered:
		return info, "", fmt.Errorf("%w: %s of %s %s; --allow-filtered restores a server that has nothing else", repository.ErrNoEligible, info.ID, set, partial)
	}
	passed, err = c.passedOver(newer, info)
	return info, passed, err
}

// unfit says why a good backup is not chosen by time or as the latest, and what
// takes it all the same.
func (c Choice) unfit(info repository.BackupInfo) string {
	include, exclude := info.Plan.Filter()
	switch {
	case c.Whole && len(info.Plan.OnlyPaths()) > 0:
		return filtered(&info.Plan) + " (by its ID with --allow-filtered, or restore load --include-path)"
	case c.Whole && len(include) > 0:
		return filtered(&info.Plan) + " (by its ID with --allow-filtered, or restore load --database)"
	case c.Whole && len(exclude) > 0 && !c.AllowFiltered:
		return filtered(&info.Plan) + " (--allow-filtered takes it)"
	}
	for _, ordinal := range c.Ordinals {
		if leftOut(&info.Plan, ordinal) {
			return fmt.Sprintf("was taken without ordinal %d (restore run loads another member with --base)", ordinal)
		}
	}
	return ""
}

// passedOver says why the chosen backup is not the newest good one. Somebody's
// backup of one database does not stand in the way of the nightly ones. But
// who leaves a database out usually does so every night: then the chosen one
// may be months old, and which is meant is for the user to say.
func (c Choice) passedOver(newer []repository.BackupInfo, chosen repository.BackupInfo) (string, error) {
	const most = 3
	var passed []string
	for _, info := range newer {
		why := c.unfit(info)
		consent := c
		consent.AllowFiltered = true
		if consent.unfit(info) == "" {
			return "", fmt.Errorf("%w without a choice: %s, captured %s, %s; the newest that is whole is %s, captured %s (--backup %s takes it)", repository.ErrNoEligible,
				info.ID, captured(&info), why, chosen.ID, captured(&chosen), chosen.ID)
		}
		passed = append(passed, fmt.Sprintf("%s %s", info.ID, why))
	}
	if len(passed) == 0 {
		return "", nil
	}
	more := ""
	if len(passed) > most {
		more = fmt.Sprintf("; and %d more", len(passed)-most)
		passed = passed[:most]
	}
	return fmt.Sprintf("newer backups were passed over for %s, captured %s: %s%s", chosen.ID, captured(&chosen), strings.Join(passed, "; "), more), nil
}

func captured(info *repository.BackupInfo) string {
	return info.CapturedAt().UTC().Format(time.RFC3339)
}

// leftOut tells whether the backup was taken without the ordinal on purpose.
// Plans of earlier versions do not say so: then the ordinal was one of the
// set's, and is not among the members.
func leftOut(p *record.Plan, ordinal int) bool {
	_, planned := p.Member(ordinal)
	return !planned && (p.Narrowed() || p.Start <= ordinal && ordinal < p.Start+p.Replicas)
}

// filtered says what the members of a backup do not hold, empty when they are whole.
func filtered(p *record.Plan) string {
	include, exclude := p.Filter()
	var why []string
	if paths := p.OnlyPaths(); len(paths) > 0 {
		why = append(why, "holds only files of "+strings.Join(paths, ", "))
	}
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
		if m.Valid && m.Suspect() {
			return true
		}
	}
	return false
}
