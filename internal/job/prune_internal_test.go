package job

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

// Backups of different kinds do not take each other's places.
func TestKindOf(t *testing.T) {
	claims := func(method string, templates ...string) *record.Plan {
		m := record.PlannedMember{}
		for _, name := range templates {
			m.Claims = append(m.Claims, record.Claim{Name: name + "-db-0", Template: name})
		}
		return &record.Plan{Method: method, Members: []record.PlannedMember{m}}
	}
	kinds := map[string]bool{}
	for _, plan := range []*record.Plan{
		claims(record.MethodFiles),
		claims(record.MethodFiles, "data"),
		claims(record.MethodFiles, "log"),
		claims(record.MethodDump, "data"),
		{Method: record.MethodFiles, Paths: []string{"/a"}},
		{Method: record.MethodFiles, Paths: []string{"/a", "/b"}},
		{Method: record.MethodDump, Databases: []string{"a"}},
		{Method: record.MethodDump, Ordinals: "0"},
		{Method: record.MethodDump, FollowersOnly: true},
	} {
		require.NotContains(t, kinds, kindOf(plan))
		kinds[kindOf(plan)] = true
	}
	require.Equal(t, kindOf(claims(record.MethodDump, "data")), kindOf(claims(record.MethodDump, "data", "log")), "a dump is of no claim")
	require.Equal(t, kindOf(&record.Plan{Paths: []string{"/b", "/a"}}), kindOf(&record.Plan{Paths: []string{"/a", "!/c", "/b"}}))
}
