package job

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

func TestRequestTargets(t *testing.T) {
	set := statefulset.Set{Replicas: 3, Start: 5}
	zero := statefulset.Set{Replicas: 0, Start: 5}
	backup := repository.BackupInfo{ID: "20261120T000000Z-aaaaaaaa", Plan: record.Plan{Replicas: 4}}
	from := func(id string) statefulset.Member {
		return statefulset.Member{Claims: []statefulset.Claim{{Template: "data", Seeded: id}, {Template: "scratch"}}}
	}
	half := statefulset.Set{Replicas: 2, Start: 5, Members: []statefulset.Member{from(string(backup.ID)), from(string(backup.ID))}}
	other := statefulset.Set{Replicas: 2, Start: 5, Members: []statefulset.Member{from(string(backup.ID)), from("20261119T000000Z-aaaaaaaa")}}
	for _, c := range []struct {
		name     string
		request  Request
		set      statefulset.Set
		ordinals []int
		replicas int
		err      string
	}{
		{"scale up", Request{Replicas: 5}, set, []int{8, 9}, 5, ""},
		{"scale up adds none", Request{Replicas: 3}, set, nil, 0, "adds none"},
		{"recover", Request{Ordinals: []int{7, 5, 7}}, set, []int{5, 7}, 3, ""},
		{"recover what is not there", Request{Ordinals: []int{4}}, set, nil, 0, "ordinal 4 is not one of the set's"},
		{"whole set", Request{All: true}, zero, []int{5, 6, 7, 8}, 4, ""},
		{"whole set, smaller", Request{All: true, Replicas: 2}, zero, []int{5, 6}, 2, ""},
		{"whole set that lives", Request{All: true}, set, nil, 0, "zero replicas"},
		{"whole set of fewer than none", Request{All: true, Replicas: -1}, zero, nil, 0, "no number of replicas"},
		{"nothing", Request{}, set, nil, 0, "exactly one"},
		{"two things", Request{Replicas: 5, Ordinals: []int{5}}, set, nil, 0, "exactly one"},
		{"two consents", Request{Replicas: 5, Replace: true, Keep: true}, set, nil, 0, "exclude each other"},
		{"whole set that was killed half-way", Request{All: true}, half, []int{7, 8}, 4, ""},
		{"whole set, half of it from another backup", Request{All: true}, other, nil, 0, "not the first ones of a restore"},
		{"whole set, all of it there", Request{All: true, Replicas: 2}, half, nil, 0, "zero replicas"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ordinals, replicas, err := c.request.targets(c.set, backup)
			if c.err != "" {
				require.ErrorIs(t, err, ErrConfig)
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.ordinals, ordinals)
			assert.Equal(t, c.replicas, replicas)
		})
	}
}

func member(ordinal int, up *record.UpstreamCoordinates, second int) backedUpMember {
	return backedUpMember{
		PlannedMember: record.PlannedMember{Ordinal: ordinal},
		report: record.Report{
			CapturedAt:  time.Date(2026, 11, 20, 0, 0, second, 0, time.UTC),
			Coordinates: record.Coordinates{Upstream: up},
		},
	}
}

func TestHealthiestFollower(t *testing.T) {
	up := func(running bool, lag int64) *record.UpstreamCoordinates {
		return &record.UpstreamCoordinates{Host: "db-0", Port: 3306, Running: running, LagSeconds: lag}
	}
	members := backedUp{member(0, nil, 1), member(1, up(false, -1), 9), member(2, up(true, 30), 2), member(3, up(true, 0), 3), member(4, up(true, 0), 4), member(5, up(true, -1), 8)}
	assert.Equal(t, 4, members.healthiest(), "running, not behind, captured last")
	assert.Equal(t, 0, members.primary())
	assert.Equal(t, 0, backedUp{member(0, nil, 1)}.healthiest(), "a set without followers has its primary")
	assert.Equal(t, 2, backedUp{member(1, up(false, -1), 9), member(2, up(true, 30), 2)}.primary(), "without the primary, the healthiest follower")
}

func resolveWith(t *testing.T, q Request, mode string, ordinal int, members backedUp) (RestoreItem, error) {
	t.Helper()
	r := &Restore{Request: q, Seed: statefulset.SeedSpec{DiscoverOptions: statefulset.DiscoverOptions{DefaultPort: 3306}}}
	set := statefulset.Set{
		Namespace: "shop", Name: "db", ServiceName: "db", Replicas: 3,
		Members: []statefulset.Member{{Ordinal: 0, Port: 3307}},
	}
	return r.resolveItem(set, members, mode, ordinal)
}

func TestResolveItem(t *testing.T) {
	up := &record.UpstreamCoordinates{Host: "db-0.db", Port: 3306, Running: true}
	members := backedUp{member(0, nil, 1), member(1, up, 2), member(2, up, 3)}
	const first = "db-0.db.shop.svc:3307"
	for _, c := range []struct {
		name    string
		request Request
		mode    string
		ordinal int
		want    RestoreItem
		err     string
	}{
		{"new ordinal follows the first, from the healthiest follower", Request{Base: -1}, ModeScaleUp, 3, RestoreItem{Ordinal: 3, Base: 2, Follow: first}, ""},
		{"named base", Request{Base: 1}, ModeScaleUp, 3, RestoreItem{Ordinal: 3, Base: 1, Follow: first}, ""},
		{"base that is not there", Request{Base: 9}, ModeScaleUp, 3, RestoreItem{}, "no valid member of that ordinal"},
		{"a follower becomes one again", Request{Base: -1, Ordinals: []int{1}}, ModeRecovery, 1, RestoreItem{Ordinal: 1, Base: 2, Follow: first}, ""},
		{"the primary gets its own", Request{Base: -1}, ModeRecovery, 0, RestoreItem{Ordinal: 0, Base: 0}, ""},
		{"told to follow nobody", Request{Base: -1, Follow: "none"}, ModeRecovery, 1, RestoreItem{Ordinal: 1, Base: 1}, ""},
		{"told whom to follow", Request{Base: -1, Follow: "x:3306"}, ModeRecovery, 0, RestoreItem{Ordinal: 0, Base: 2, Follow: "x:3306"}, ""},
		{"whole set, first", Request{Base: -1}, ModeWholeSet, 0, RestoreItem{Ordinal: 0, Base: 0}, ""},
		{"whole set, others from the same member", Request{Base: -1}, ModeWholeSet, 2, RestoreItem{Ordinal: 2, Base: 0, Follow: first, Beginning: true}, ""},
		{"whole set, nobody follows", Request{Base: -1, Follow: "none"}, ModeWholeSet, 2, RestoreItem{Ordinal: 2, Base: 2}, ""},
		{"whole set, nobody follows, one more than was backed up", Request{Base: -1, Follow: "none"}, ModeWholeSet, 3, RestoreItem{}, "--base"},
		{"new ordinal that follows nobody", Request{Base: -1, Follow: "none"}, ModeScaleUp, 3, RestoreItem{}, "--base"},
	} {
		t.Run(c.name, func(t *testing.T) {
			item, err := resolveWith(t, c.request, c.mode, c.ordinal, members)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, item)
		})
	}
}

// TestWholeSetOfIndependentServers: of shards each gets its own rows back.
// Which of them is meant by a restore that does not say so is not guessed.
func TestWholeSetOfIndependentServers(t *testing.T) {
	shards := backedUp{member(0, nil, 1), member(1, nil, 2), member(2, nil, 3)}
	for _, m := range shards {
		item, err := resolveWith(t, Request{Base: -1, All: true, Follow: "none"}, ModeWholeSet, m.Ordinal, shards)
		require.NoError(t, err)
		assert.Equal(t, RestoreItem{Ordinal: m.Ordinal, Base: m.Ordinal}, item)

		for _, follow := range []string{"", "x:3306"} {
			_, err = resolveWith(t, Request{Base: -1, All: true, Follow: follow}, ModeWholeSet, m.Ordinal, shards)
			require.ErrorIs(t, err, ErrConfig)
			require.ErrorContains(t, err, "ordinals 0, 1, 2 of the backup followed nobody")
			require.ErrorContains(t, err, "--as-follower-of none")
			require.ErrorContains(t, err, "--base")
		}
		item, err = resolveWith(t, Request{Base: 1, All: true}, ModeWholeSet, m.Ordinal, shards)
		require.NoError(t, err)
		assert.Equal(t, 1, item.Base, "said so")
	}
}

func TestRollbackNeedsConsent(t *testing.T) {
	set := statefulset.Set{Members: []statefulset.Member{
		{Ordinal: 0}, {Ordinal: 1, Pod: statefulset.PodInfo{Name: "db-1", Exists: true}},
	}}
	plan := &RestorePlan{Mode: ModeRecovery, Items: []RestoreItem{{Ordinal: 0}}}
	r := &Restore{}
	require.ErrorIs(t, r.checkRollback(set, plan), ErrNeedsConsent, "a follower without its primary is often not Ready, and lives all the same")
	r.Request.AllowRollback = true
	require.NoError(t, r.checkRollback(set, plan))
	r.Request.AllowRollback = false
	plan.Items[0].Follow = "db-1:3306"
	require.NoError(t, r.checkRollback(set, plan), "a follower is no rollback")
	plan.Items = []RestoreItem{{Ordinal: 0}, {Ordinal: 1, Follow: "db-0:3306"}}
	require.NoError(t, r.checkRollback(set, plan), "nobody lives on")
}

// TestNeeds: a restore passes over backups that lack a member it needs.
func TestNeeds(t *testing.T) {
	assert.Equal(t, []int{2}, Request{Base: 2, Ordinals: []int{1}}.needs(0))
	assert.Equal(t, []int{0}, Request{Base: -1, Ordinals: []int{0, 1}}.needs(0), "the others follow, from any member")
	assert.Equal(t, []int{5}, Request{Base: -1, Ordinals: []int{5, 6}}.needs(5))
	assert.Equal(t, []int{0, 2}, Request{Base: -1, Ordinals: []int{0, 2}, Follow: "none"}.needs(0))
	assert.Empty(t, Request{Base: -1, Ordinals: []int{0}, Follow: "db-1:3306"}.needs(0), "a follower is filled from any member")
	assert.Empty(t, Request{Base: -1, Replicas: 4}.needs(0))
}

// TestUpstreamAfterFailover: whom the backed-up server followed is followed
// again where that is a member of the set, and the first ordinal otherwise.
func TestUpstreamAfterFailover(t *testing.T) {
	for host, want := range map[string]string{
		"db-1": "db-1.db.shop.svc:3306", "DB-1.db": "db-1.db.shop.svc:3306", "db-1.db.shop.svc.cluster.local": "db-1.db.shop.svc:3306",
		"db-1.db.elsewhere.svc": "db-0.db.shop.svc:3307", "db-10": "db-0.db.shop.svc:3307", "10.0.0.7": "db-0.db.shop.svc:3307", "db-9.db": "db-0.db.shop.svc:3307",
	} {
		up := &record.UpstreamCoordinates{Host: host, Port: 3306, Running: true}
		members := backedUp{member(0, up, 2), member(1, nil, 1), member(2, up, 3)}
		item, err := resolveWith(t, Request{Base: -1}, ModeScaleUp, 3, members)
		require.NoError(t, err)
		assert.Equal(t, want, item.Follow, host)

		note := "not the first ordinal, 0; name the primary"
		if strings.HasPrefix(want, "db-0") {
			note = "ordinal 3 will follow ordinal 0, which was itself a follower of " + host
		}
		r, set := &Restore{}, statefulset.Set{Namespace: "shop", Name: "db", ServiceName: "db"}
		plan := &RestorePlan{}
		r.noteFollowing(plan, set, members, item)
		if strings.HasPrefix(want, "db-0") {
			require.Len(t, plan.Notes, 2)
			assert.Contains(t, plan.Notes[0], "the backed-up server followed "+host+":3306, which is no name of a member")
		} else {
			require.Len(t, plan.Notes, 1)
		}
		assert.Contains(t, plan.Notes[len(plan.Notes)-1], note)
		r.Request.Follow = item.Follow
		plan = &RestorePlan{}
		r.noteFollowing(plan, set, members, item)
		assert.Equal(t, strings.HasPrefix(want, "db-0"), len(plan.Notes) == 1, "who names an upstream knows its place")

		item, err = resolveWith(t, Request{Base: -1}, ModeWholeSet, 2, members)
		require.NoError(t, err)
		assert.Equal(t, "db-0.db.shop.svc:3307", item.Follow, "a whole set begins anew")
	}
}

// TestLeastBytes: neither holes nor names take room that a claim has to have.
func TestLeastBytes(t *testing.T) {
	sparse := backedUpMember{PlannedMember: record.PlannedMember{Ordinal: 0}, report: record.Report{Bytes: 64 << 20}, stored: 4096}
	small := backedUpMember{PlannedMember: record.PlannedMember{Ordinal: 1}, report: record.Report{Bytes: 10}, stored: 2048}
	members := backedUp{sparse, small}
	require.EqualValues(t, 4096, members.least(0))
	require.EqualValues(t, 10, members.least(1))
	require.Zero(t, members.least(2))
}
