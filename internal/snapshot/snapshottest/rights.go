package snapshottest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// Granted reads what the shipped files let a service account do, as
// "verb resource": the base, and the components that are named.
func Granted(t *testing.T, account string, components ...string) map[string]bool {
	t.Helper()
	files := []string{"base/rbac-backup.yaml", "base/rbac-restore.yaml"}
	for _, c := range components {
		found, err := filepath.Glob("../../../deploy/cronjob/components/" + c + "/*.yaml")
		require.NoError(t, err)
		require.Greater(t, len(found), 1, c)
		for _, f := range found {
			files = append(files, strings.TrimPrefix(f, "../../../deploy/cronjob/"))
		}
	}
	roles, bound := map[string][]rbacv1.PolicyRule{}, []string{}
	for _, file := range files {
		text, err := os.ReadFile("../../../deploy/cronjob/" + file)
		require.NoError(t, err)
		for doc := range strings.SplitSeq(string(text), "\n---\n") {
			var object struct {
				Kind     string
				Metadata struct{ Name string }
				Rules    []rbacv1.PolicyRule
				RoleRef  rbacv1.RoleRef
				Subjects []rbacv1.Subject
			}
			require.NoError(t, yaml.Unmarshal([]byte(doc), &object))
			if len(object.Rules) > 0 {
				roles[object.Kind+"/"+object.Metadata.Name] = object.Rules
			}
			for _, s := range object.Subjects {
				if s.Name == account {
					bound = append(bound, object.RoleRef.Kind+"/"+object.RoleRef.Name)
				}
			}
		}
	}
	all := map[string]bool{}
	for _, name := range bound {
		require.NotEmpty(t, roles[name], name)
		for _, rule := range roles[name] {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all[verb+" "+resource] = true
				}
			}
		}
	}
	return all
}
