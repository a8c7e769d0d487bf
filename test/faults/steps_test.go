package faults

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/retention"
)

// This file: what may happen in a story. Each step returns the error that its user sees, and what it does not call an
// error has to be true.

func (s *story) backup(ctx context.Context) error {
	s.begun = s.newID()
	s.since[s.begun] = s.clock.Now()
	return s.attempt(ctx)
}

// resume is the Job's next pod.
func (s *story) resume(ctx context.Context) error {
	if s.begun == "" {
		return s.backup(ctx)
	}
	return s.attempt(ctx)
}

func (s *story) attempt(ctx context.Context) error {
	report, err := s.backUp(ctx, s.begun)
	if err != nil {
		return err
	}
	require.Equal(s.t, job.StatusComplete, report.Status)
	require.Equal(s.t, 2, report.Planned)
	s.good[s.begun] = true
	delete(s.let, s.begun)
	s.sum.complete++
	s.begun = ""
	return nil
}

// through opens the repository through the weather.
func (s *story) through(keys repository.Keys) (*repository.Repository, error) {
	return s.open(s.home.way, keys)
}

func (s *story) list(ctx context.Context) error {
	r, err := s.through(s.keys.pruner())
	if err != nil {
		return err
	}
	infos, err := r.Backups(ctx, townSet)
	if err != nil {
		return err
	}
	seen := map[record.BackupID]repository.Status{}
	for _, info := range infos {
		seen[info.ID] = info.Status
	}
	for id := range s.good {
		require.True(s.t, seen[id] == repository.StatusComplete || s.let[id], "backup %s is listed as %q", id, seen[id])
	}
	return nil
}

func (s *story) verify(ctx context.Context) error {
	r, err := s.through(s.keys.pruner())
	if err != nil {
		return err
	}
	report, err := r.Verify(ctx, repository.VerifyOptions{Set: townSet, ReadData: 100})
	if err == nil {
		stays := maps.Clone(s.good)
		maps.DeleteFunc(stays, func(id record.BackupID, _ bool) bool { return s.let[id] })
		s.requireUnharmed(report, stays, "nothing is damaged")
	}
	return err
}

// restore is of one that was good, by its ID, or of the latest.
func (s *story) restore(ctx context.Context) error {
	r, err := s.through(s.keys.restore)
	if err != nil {
		return err
	}
	id, ordinal := s.any(s.good), s.rng.IntN(2)
	got, err := s.load(ctx, r, id, ordinal)
	if err != nil {
		return err
	}
	states := s.taken[id][ordinal]
	if id == "" {
		for _, members := range s.taken {
			states = append(states, members[ordinal]...)
		}
	}
	require.True(s.t, same(got, states), "ordinal %d of backup %q is not what was backed up", ordinal, id)
	return nil
}

const minAge = 30 * time.Hour

func (s *story) prune(ctx context.Context) error {
	r, err := s.through(s.keys.pruner())
	if err != nil {
		return err
	}
	p := &job.Prune{Repository: r, Set: townSet, Policy: retention.Policy{Last: 2, MinAge: minAge, Zone: time.UTC}, Force: true}
	report, err := p.Run(ctx)
	complete := func(d retention.Decision) bool { return d.State == retention.Complete }
	if slices.ContainsFunc(report.Decisions, complete) {
		require.True(s.t, slices.ContainsFunc(report.Decisions, func(d retention.Decision) bool { return complete(d) && d.Keep }), "none is kept")
	}
	for _, d := range report.Decisions {
		if d.Keep || s.let[d.Backup] { // such as what was named, and is gone in part
			continue
		}
		require.False(s.t, s.pinned[d.Backup], "the pinned %s would go", d.Backup)
		require.GreaterOrEqual(s.t, s.clock.Now().Sub(s.since[d.Backup]), minAge, "%s is young", d.Backup)
		s.let[d.Backup] = true
	}
	return err
}

// remove deletes one by its name.
func (s *story) remove(ctx context.Context) error {
	id := s.any(s.good)
	if id == "" {
		return nil
	}
	r, err := s.through(s.keys.pruner())
	if err != nil {
		return err
	}
	_, err = (&job.Prune{Repository: r, Set: townSet, IDs: []record.BackupID{id}}).Run(ctx)
	if !errors.Is(err, repository.ErrNewest) && !errors.Is(err, repository.ErrPinned) {
		require.False(s.t, s.pinned[id] && err == nil, "the pinned %s was deleted", id)
		s.let[id] = s.let[id] || !s.pinned[id]
	}
	return err
}

// copy copies what is good, and adopts it, as it has the times of the copy.
func (s *story) copy(ctx context.Context) error {
	r, err := s.through(s.keys.pruner())
	if err != nil {
		return err
	}
	if _, err := r.Copy(ctx, s.far.way, repository.CopyOptions{Set: townSet}); err != nil {
		return err
	}
	writer := s.keys.writer
	writer.Trusted = s.keys.restore.Trusted
	there, err := s.open(s.far.way, writer)
	if err != nil {
		return err
	}
	if _, err := there.AdoptCopies(ctx, townSet, repository.AdoptOptions{Reason: "a copy"}); err != nil {
		return err
	}
	for id := range s.requireWhole(s.far, "after the copy") {
		s.copied[id] = true
	}
	if front := s.far.weather.front; front == lagging || front == mixed {
		return nil // what was copied a moment ago is not seen, and not adopted
	}
	for id := range s.good {
		require.True(s.t, s.copied[id] || s.let[id], "%s was not copied", id)
	}
	return nil
}

func (s *story) pin(ctx context.Context) error {
	id := s.any(s.good)
	if id == "" {
		return nil
	}
	r, err := s.through(s.keys.pruner())
	if err != nil {
		return err
	}
	if err := r.Pin(ctx, townSet, id, "a story"); err != nil {
		return err
	}
	s.pinned[id] = true
	delete(s.let, id)
	return nil
}

func (s *story) unpin(ctx context.Context) error {
	id := s.any(s.pinned)
	if id == "" {
		return nil
	}
	delete(s.pinned, id)
	r, err := s.through(s.keys.pruner())
	if err != nil {
		return err
	}
	return r.Unpin(ctx, townSet, id)
}
