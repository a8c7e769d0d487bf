package job

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// This file holds what a drill asks the user's questions with, and what it knows
// of replication.

// coordinates looks whether replication could continue from the backup: in a set
// with followers each of them needs its position in its upstream, and the one
// that they follow its own.
func (r *drilling) coordinates() {
	var followers, lost []string
	for _, m := range r.members {
		up := m.report.Coordinates.Upstream
		if up == nil && m.Role != RoleFollower && !r.info.Plan.FollowersOnly {
			continue
		}
		followers = append(followers, strconv.Itoa(m.Ordinal))
		if up == nil || up.GTID == "" && up.File == "" {
			lost = append(lost, fmt.Sprintf("ordinal %d follows another server, and its position there was not recorded", m.Ordinal))
		}
	}
	if len(followers) == 0 {
		r.say(DrillCoordinates, record.ProofSkipped, "no member follows another server")
		return
	}
	alone := r.members.alone()
	for _, m := range alone {
		c := m.report.Coordinates
		if m.Role != RoleFollower && c.GTID == "" && c.File == "" {
			lost = append(lost, fmt.Sprintf("ordinal %d has followers (%s), and its own position was not recorded", m.Ordinal, strings.Join(followers, ", ")))
		}
	}
	if len(alone) > 1 {
		lost = append(lost, fmt.Sprintf("ordinals %s followed nobody, where others (%s) follow: one of them may be a follower that has lost its upstream", alone.ordinals(), strings.Join(followers, ", ")))
	}
	if len(lost) > 0 && r.AllowNoCoordinates {
		r.say(DrillCoordinates, record.ProofSkipped, strings.Join(lost, "; ")+", which is allowed")
		return
	}
	r.verdict(DrillCoordinates, lost, "the positions of followers "+strings.Join(followers, ", ")+" are recorded")
}

// ask puts the user's queries. One that cannot be answered has failed: a table
// that is not there is just what it is meant to find.
func (r *drilling) ask(ctx context.Context, address string) error {
	if len(r.Queries) == 0 {
		r.say(DrillQueries, record.ProofSkipped, "none was given")
		return nil
	}
	engine, err := r.Open(address)
	if err != nil {
		return err
	}
	defer closeEngine(engine)
	asker, ok := engine.(dbdump.Asker)
	if !ok {
		return fmt.Errorf("%w: this engine's servers cannot be asked", ErrConfig)
	}
	var wrong []string
	for _, q := range r.Queries {
		answer, null, err := asker.Ask(ctx, q)
		switch {
		case ctx.Err() != nil || errors.Is(err, dbdump.ErrUnreachable):
			return err
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("%s: %v", q, err))
		case null:
			wrong = append(wrong, q+": no row, or NULL")
		case !isTrue(answer):
			wrong = append(wrong, fmt.Sprintf("%s: %q", q, answer))
		}
	}
	r.verdict(DrillQueries, wrong, fmt.Sprintf("%d answered as they should", len(r.Queries)))
	return nil
}

// isTrue is the truth of a first column: a number that is not zero, or any text
// but an empty one and the words for false.
func isTrue(answer string) bool {
	answer = strings.TrimSpace(answer)
	if n, err := strconv.ParseFloat(answer, 64); err == nil {
		return n != 0
	}
	switch strings.ToLower(answer) {
	case "", "false", "f", "no", "n":
		return false
	}
	return true
}

// command runs the user's program.
func (r *drilling) command(ctx context.Context, address string) error {
	if r.Command == nil {
		r.say(DrillCommand, record.ProofSkipped, "none was given")
		return nil
	}
	err := r.Command(ctx, address)
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		r.say(DrillCommand, record.ProofFailed, err.Error())
		return nil
	}
	r.say(DrillCommand, record.ProofOK, "ended with status 0")
	return nil
}

// GivenServer is a place for drills that somebody has made, and takes away.
type GivenServer struct{ Address string }

// Plan implements DrillPlace.
func (g GivenServer) Plan(context.Context, record.PlannedMember) ([]string, error) {
	return []string{"use the server at " + g.Address + ", which has to be empty, and leave it as it then is"}, nil
}

// Provide implements DrillPlace.
func (g GivenServer) Provide(context.Context, record.PlannedMember) (string, error) {
	return g.Address, nil
}

// Alive implements DrillPlace.
func (g GivenServer) Alive(context.Context) error { return nil }

// Remove implements DrillPlace.
func (g GivenServer) Remove(context.Context) error { return nil }
