package ebs_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

// policies are the files that a role gets, and what is done with it.
var policies = map[string]struct {
	files []string
	flow  func(t *testing.T, w *world, s *ebs.Snapshotter)
}{
	"backup":              {[]string{"backup.json"}, backupFlow},
	"backup with copies":  {[]string{"backup.json", "backup-copy.json"}, copyFlow},
	"backup of blocks":    {[]string{"backup.json", "backup-blocks.json"}, readFlow},
	"prune":               {[]string{"prune.json"}, pruneFlow},
	"restore":             {[]string{"restore.json"}, restoreFlow},
	"restore from blocks": {[]string{"restore.json", "restore-blocks.json"}, writeFlow},
}

// TestPolicies does what a role is for with exactly the rights of its policies,
// and finds that all of them are needed.
func TestPolicies(t *testing.T) {
	for name, p := range policies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := w.options()
			o.Credentials.AccessKeyID = victimKey
			var allowed []string
			for _, file := range p.files {
				allowed = append(allowed, actions(t, file)...)
			}
			w.aws.Allow(victimKey, allowed...)
			p.flow(t, w, w.open(t, o))

			called := []string{"ec2:CreateTags"} // with what is created
			for _, c := range w.aws.Calls(ebstest.Scope{AccessKey: victimKey}) {
				require.NotEqual(t, "UnauthorizedOperation", c.Error, c.Action)
				require.NotEqual(t, "AccessDeniedException", c.Error, c.Action)
				called = append(called, service(c.Action)+":"+c.Action)
			}
			for _, action := range allowed {
				require.True(t, strings.HasPrefix(action, "kms:") || slices.Contains(called, action), "%s is allowed and never called", action)
			}
		})
	}
}

func service(action string) string {
	if strings.HasSuffix(action, "Blocks") || strings.HasSuffix(action, "Block") || action == "StartSnapshot" || action == "CompleteSnapshot" {
		return "ebs"
	}
	return "ec2"
}

// actions are those that a policy allows.
func actions(t *testing.T, file string) []string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "iam", file))
	require.NoError(t, err)
	var policy struct {
		Version   string
		Statement []struct {
			Sid, Effect                 string
			Action, Resource, Condition json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal(body, &policy))
	require.Equal(t, "2012-10-17", policy.Version)
	var all []string
	for _, s := range policy.Statement {
		require.Equal(t, "Allow", s.Effect)
		require.NotEmpty(t, s.Resource)
		var one string
		var many []string
		if json.Unmarshal(s.Action, &one) == nil {
			many = []string{one}
		} else {
			require.NoError(t, json.Unmarshal(s.Action, &many))
		}
		for _, action := range many {
			require.NotContains(t, action, "*", "a wildcard")
			changes := !strings.HasPrefix(action, "ec2:Describe")
			cuts := action == "ec2:CreateSnapshot" || action == "ec2:CreateSnapshots" || action == "ec2:CopySnapshot"
			require.True(t, !changes || cuts || len(s.Condition) > 0, "%s changes things and has no condition", action)
		}
		all = append(all, many...)
	}
	return all
}

func backupFlow(t *testing.T, w *world, s *ebs.Snapshotter) {
	together := w.located(t, "data-mysql-0", "log-mysql-0")
	apart := w.located(t, "data-mysql-1")
	_, err := s.Locate(t.Context(), together)
	require.NoError(t, err)
	refs, err := s.Cut(t.Context(), cutName, together)
	require.NoError(t, err)
	require.NoError(t, s.WaitReady(t.Context(), refs[0]))
	_, err = s.Cut(t.Context(), "another", apart)
	require.NoError(t, err)
	for r, err := range s.List(t.Context(), owner) {
		require.NoError(t, err)
		require.NoError(t, s.Delete(t.Context(), owner, r))
	}
}

// pruneFlow deletes what somebody else has cut.
func pruneFlow(t *testing.T, w *world, s *ebs.Snapshotter) {
	w.cut(t, w.located(t, "data-mysql-0"))
	for r, err := range s.List(t.Context(), owner) {
		require.NoError(t, err)
		require.NoError(t, s.Delete(t.Context(), owner, r))
	}
	require.Empty(t, w.aws.Snapshots())
}

func copyFlow(t *testing.T, w *world, s *ebs.Snapshotter) {
	backupFlow(t, w, s)
	ref := w.cut(t, w.located(t, "data-mysql-2"))[0]
	ref, err := s.Copy(t.Context(), ref, owner, otherRegion)
	require.NoError(t, err)
	require.NoError(t, s.Delete(t.Context(), owner, ref))
}

func readFlow(t *testing.T, w *world, s *ebs.Snapshotter) {
	backupFlow(t, w, s)
	volumes := w.located(t, "data-mysql-2")
	ref := w.cut(t, volumes)[0]
	for b, err := range s.Blocks(t.Context(), ref, &ref) {
		require.NoError(t, err)
		require.True(t, b.Same)
	}
	for b, err := range s.Blocks(t.Context(), ref, nil) {
		require.NoError(t, err)
		_, err := s.ReadBlock(t.Context(), ref, b, make([]byte, 512<<10))
		require.NoError(t, err)
	}
}

func restoreFlow(t *testing.T, w *world, s *ebs.Snapshotter) {
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	require.NoError(t, s.Prepare(t.Context(), ref, target("data-mysql-2")))
	require.NoError(t, s.Scrap(t.Context(), target("data-mysql-2")))
	require.NoError(t, prepareAndProvision(t.Context(), s, ref))
}

func writeFlow(t *testing.T, w *world, s *ebs.Snapshotter) {
	restoreFlow(t, w, s)
	require.NoError(t, writeBlocks(t.Context(), s))
	for _, made := range w.aws.Snapshots() {
		if made.Tags["keepset/name"] == "from-repository" {
			require.NoError(t, w.aws.Set(made.ID, control.Change{Outcome: control.Failing, Message: "too bad"}))
		}
	}
	require.NoError(t, writeBlocks(t.Context(), s), "after AWS gave up the first")
}
