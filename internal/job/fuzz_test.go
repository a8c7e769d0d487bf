package job

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

// A choice of ordinals chooses what it names and nothing else, and a set that
// lacks one of them is refused.
func FuzzOrdinals(f *testing.F) {
	for _, s := range []string{"", "0", "0,2-4", "5-3", "1-2-3", "-1", " 1 , 3 ", ",", "2-", "0-9223372036854775807", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseOrdinals(text)
		if err != nil {
			require.ErrorContains(t, err, strconv.Quote(text))
			return
		}
		chosen := map[int]bool{}
		all := strings.TrimSpace(text) == ""
		for part := range strings.SplitSeq(text, ",") {
			low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
			from, _ := strconv.Atoi(strings.TrimSpace(low))
			to := from
			if isRange {
				to, _ = strconv.Atoi(strings.TrimSpace(high))
			}
			for i := from; i <= to && i < 20; i++ {
				chosen[i] = true
			}
		}
		var members []Member
		for i := range 20 {
			require.Equal(t, all || chosen[i], o.Contains(i), "%q: %d", text, i)
			members = append(members, Member{PlannedMember: record.PlannedMember{Ordinal: i}})
		}
		kept, err := o.filter(members)
		if err != nil {
			require.ErrorIs(t, err, ErrConfig)
			return
		}
		if !all {
			require.Len(t, kept, len(chosen))
		}
	})
}

// A stored restore plan is one that this restore could have stored, or it is
// refused: a pod that goes on with it deletes claims by what it says.
func FuzzRestorePlan(f *testing.F) {
	plan := samplePlan()
	data, err := json.Marshal(plan)
	require.NoError(f, err)
	f.Add(data)
	for _, break1 := range []func(*RestorePlan){
		func(p *RestorePlan) { p.Format = 2 },
		func(p *RestorePlan) { p.Backup = "" },
		func(p *RestorePlan) { p.From = record.SetID{} },
		func(p *RestorePlan) { p.Items = nil },
		func(p *RestorePlan) { p.Items[0].Ordinal = -1 },
		func(p *RestorePlan) { p.Items[1] = p.Items[0] },
		func(p *RestorePlan) { p.Items[0].Base = -1 },
		func(p *RestorePlan) { p.Items[0].Replace, p.Items[0].Keep = true, true },
		func(p *RestorePlan) { p.Run = "other" },
		func(p *RestorePlan) { p.SetUID = "" },
	} {
		p := samplePlan()
		break1(p)
		data, err := json.Marshal(p)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add(data[:len(data)/2])
	f.Add([]byte(`{"format": 1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseRestorePlan(data, "run-1")
		if err != nil {
			require.ErrorContains(t, err, "run-1")
			require.Nil(t, p)
			return
		}
		require.NoError(t, p.Backup.Validate(), "without one it would be the latest")
		require.NoError(t, p.From.Validate())
		require.NotEmpty(t, p.SetUID)
		require.NotEmpty(t, p.Items)
		last := -1
		for _, item := range p.Items {
			require.Greater(t, item.Ordinal, last)
			require.GreaterOrEqual(t, item.Base, 0)
			require.False(t, item.Replace && item.Keep)
			last = item.Ordinal
		}
		again, err := json.Marshal(p)
		require.NoError(t, err)
		back, err := parseRestorePlan(again, "run-1")
		require.NoError(t, err)
		require.Equal(t, p, back)
	})
}

func samplePlan() *RestorePlan {
	return &RestorePlan{
		Format: restorePlanFormat, Run: "run-1", Mode: ModeRecovery, Set: "shop/db", SetUID: "uid",
		From: record.SetID{Namespace: "shop", Name: "db"}, Backup: "20261120T131730Z-1a2b3c4d", ReplicasNow: 3, ReplicasThen: 3,
		Items: []RestoreItem{{Ordinal: 1, Base: 2, Follow: "db-0.db:3306", Replace: true}, {Ordinal: 2, Base: 2}},
	}
}
