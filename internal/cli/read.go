package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// BackupSummary is one backup as `list` shows it and --json prints it.
type BackupSummary struct {
	Set       string          `json:"set"`
	Backup    record.BackupID `json:"backup"`
	Status    string          `json:"status"`
	CreatedAt time.Time       `json:"createdAt"`
	// FinishedAt is when the last member was committed.
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	Method     string    `json:"method"`
	Engine     string    `json:"engine,omitempty"`
	Databases  []string  `json:"databases,omitempty"`
	// Paths that were asked for, and with a "!" those that were left out.
	Paths []string `json:"paths,omitempty"`
	// Narrowed says by which flags members were left out.
	Narrowed string `json:"narrowed,omitempty"`
	// Labels that the user has given.
	Labels record.Labels `json:"labels,omitempty"`
	// Pinned: no prune removes it.
	Pinned    bool  `json:"pinned,omitempty"`
	Planned   int   `json:"planned"`
	Committed int   `json:"committed"`
	Rows      int64 `json:"rows"`
	Bytes     int64 `json:"bytes"`
	Stored    int64 `json:"stored"`
	// Accepted says which doubts the user has set aside, when and why.
	Accepted []string `json:"accepted,omitempty"`
	Members  []Member `json:"members"`
	Problems []string `json:"problems,omitempty"`
}

// Member is one member of a BackupSummary. Status is complete, suspect,
// unchecked (there was no key to check its signature with), invalid (there is
// a commit that does not count) or missing.
type Member struct {
	Ordinal    int       `json:"ordinal"`
	Name       string    `json:"name"`
	Node       string    `json:"node,omitempty"`
	Role       string    `json:"role,omitempty"`
	Status     string    `json:"status"`
	Reasons    []string  `json:"reasons,omitempty"`
	Rows       int64     `json:"rows"`
	Bytes      int64     `json:"bytes"`
	Stored     int64     `json:"stored"`
	Objects    int64     `json:"objects"`
	CapturedAt time.Time `json:"capturedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	Claims     []string  `json:"claims,omitempty"`
}

// Summaries lists the backups of one set, or of all sets when none is named.
func Summaries(ctx context.Context, a *App, r *repository.Repository, set *SetFlags) ([]BackupSummary, error) {
	sets, err := r.Sets(ctx)
	if err != nil {
		return nil, err
	}
	if set.Name != "" {
		id, err := set.Find(ctx, a, r)
		if err != nil {
			return nil, err
		}
		sets = []record.SetID{id}
	}
	all := []BackupSummary{}
	for _, id := range sets {
		infos, err := r.Backups(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("list the backups of %s: %w", id, err)
		}
		for _, info := range infos {
			all = append(all, Summarize(info))
		}
	}
	return all, nil
}

// Summarize makes the summary of one backup.
func Summarize(info repository.BackupInfo) BackupSummary {
	s := BackupSummary{
		Set: info.Set.String(), Backup: info.ID, Status: string(info.Status), CreatedAt: info.Plan.CreatedAt,
		Method: info.Plan.Method, Engine: info.Plan.Engine, Databases: info.Plan.Databases, Paths: info.Plan.Paths,
		Narrowed: narrowed(&info.Plan), Labels: info.Plan.Labels, Pinned: info.Pinned,
		Planned: len(info.Plan.Members), Problems: info.Problems, Members: []Member{},
	}
	for _, a := range info.Accepted {
		s.Accepted = append(s.Accepted, accepted(&a))
	}
	for _, planned := range info.Plan.Members {
		m := Member{Ordinal: planned.Ordinal, Name: planned.Name, Node: planned.Node, Role: planned.Role, Status: "missing"}
		for _, c := range planned.Claims {
			m.Claims = append(m.Claims, c.Name)
		}
		if found, ok := info.Members[planned.Ordinal]; ok {
			m.fill(found, info.Unchecked)
		}
		if info.Members[planned.Ordinal].Valid {
			s.Committed++
			s.Rows, s.Bytes, s.Stored = s.Rows+m.Rows, s.Bytes+m.Bytes, s.Stored+m.Stored
			if m.FinishedAt.After(s.FinishedAt) {
				s.FinishedAt = m.FinishedAt
			}
		}
		s.Members = append(s.Members, m)
	}
	return s
}

func accepted(a *record.Accept) string {
	text := fmt.Sprintf("%s accepted %s", a.Doubt, Time(a.CreatedAt))
	if a.Reason != "" {
		text += ": " + a.Reason
	}
	return text
}

func narrowed(p *record.Plan) string {
	var by []string
	if p.Ordinals != "" {
		by = append(by, "--ordinals "+p.Ordinals)
	}
	if p.FollowersOnly {
		by = append(by, "--role "+job.RoleFollower)
	}
	return strings.Join(by, ", ")
}

func (m *Member) fill(found repository.MemberInfo, unchecked bool) {
	c := found.Commit
	m.Status, m.Reasons = c.Status, c.Reasons
	m.Rows, m.Bytes, m.Stored, m.Objects = c.Rows, c.Bytes, c.Stored, c.Objects
	m.CapturedAt, m.FinishedAt = c.CapturedAt, c.FinishedAt
	switch {
	case found.Accepted:
		m.Status = record.StatusComplete
	case !found.Valid:
		m.Status, m.Reasons = "invalid", []string{found.Why}
	case unchecked:
		m.Status = string(repository.StatusUnchecked)
	}
}
