package mysql

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestSplitScript(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   []string
	}{
		"empty":                   {"", nil},
		"only comments":           {"-- one\n# two\n/* three; */\n", nil},
		"statements":              {"SET a=1;\nSELECT 2;", []string{"SET a=1", "SELECT 2"}},
		"empty statement":         {";;SELECT 1;", []string{"SELECT 1"}},
		"semicolon in quotes":     {"SELECT ';', \";\", `;`;SELECT 2;", []string{"SELECT ';', \";\", `;`", "SELECT 2"}},
		"doubled quotes":          {"SELECT 'it''s;', `a``;`;", []string{"SELECT 'it''s;', `a``;`"}},
		"backslash before quote":  {`SELECT 'it\'s;';`, []string{`SELECT 'it\'s;'`}},
		"semicolon in comment":    {"SELECT 1 -- ;\n, 2 /* ; */ # ;\n;", []string{"SELECT 1 -- ;\n, 2 /* ; */ # ;"}},
		"dashes without a space":  {"SELECT 1--1;", []string{"SELECT 1--1"}},
		"comment before":          {"/* a; */ SELECT 1;", []string{"SELECT 1"}},
		"executable comment":      {"/*!40101 SET NAMES utf8mb4 */;", []string{"/*!40101 SET NAMES utf8mb4 */"}},
		"quote in executable one": {"/*!50003 SELECT ';' */; SELECT 2;", []string{"/*!50003 SELECT ';' */", "SELECT 2"}},
		"delimiter": {
			"DELIMITER ;;\nCREATE EVENT e DO BEGIN SELECT 1; END ;;\ndelimiter ;\nSELECT 2;",
			[]string{"CREATE EVENT e DO BEGIN SELECT 1; END", "SELECT 2"},
		},
		"delimiter over ;;": {
			"DELIMITER $keepset$\nCREATE EVENT e DO SELECT ';;' ;; -- '\n$keepset$\nDELIMITER ;\n",
			[]string{"CREATE EVENT e DO SELECT ';;' ;; -- '"},
		},
		"no backslash escapes": {
			`SET sql_mode='NO_BACKSLASH_ESCAPES,ANSI_QUOTES';SELECT '\';SELECT "\";`,
			[]string{`SET sql_mode='NO_BACKSLASH_ESCAPES,ANSI_QUOTES'`, `SELECT '\'`, `SELECT "\"`},
		},
		"mode with variable's scope": {
			`SET NAMES utf8mb4, @@SESSION.sql_mode := 'NO_BACKSLASH_ESCAPES', time_zone='+00:00';SELECT '\';`,
			[]string{`SET NAMES utf8mb4, @@SESSION.sql_mode := 'NO_BACKSLASH_ESCAPES', time_zone='+00:00'`, `SELECT '\'`},
		},
		"mode taken back": {
			`SET sql_mode='NO_BACKSLASH_ESCAPES';SET sql_mode='';SELECT '\';';`,
			[]string{`SET sql_mode='NO_BACKSLASH_ESCAPES'`, `SET sql_mode=''`, `SELECT '\';'`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := splitScript(c.script)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestSplitScriptRefusesTruncatedText(t *testing.T) {
	for _, script := range []string{
		"SELECT 1",
		"SELECT 1; SELECT 2",
		"SELECT 'abc;",
		"SELECT `abc;",
		"SELECT 1 /* abc;",
		"DELIMITER ;;\nSELECT 1;",
		"/*!50003 SELECT 1",
	} {
		_, err := splitScript(script)
		require.Error(t, err, script)
	}
}

// Read piecemeal, a script gives the same statements as read whole.
func TestEachStatement(t *testing.T) {
	long := strings.Repeat("x;\n", 200_000)
	script := "SET sql_mode='NO_BACKSLASH_ESCAPES';\nINSERT INTO t VALUES ('a;\n', '\\');\n-- a comment;\nINSERT INTO t VALUES ('" + long + "');\nINSERT INTO t\n VALUES (1); SELECT 2;\n"
	want, err := splitScript(script)
	require.NoError(t, err)
	require.Len(t, want, 5)
	var got []string
	require.NoError(t, eachStatement(iotest.HalfReader(strings.NewReader(script)), func(s string, _ quoting) error {
		got = append(got, s)
		return nil
	}))
	require.Equal(t, want, got)
	for _, cut := range []string{"SELECT 1", "SELECT 1;\nSELECT 'a;\n", "SELECT 1;\nSELECT"} {
		require.Error(t, eachStatement(strings.NewReader(cut), func(string, quoting) error { return nil }), cut)
	}
	failed := errors.New("failed")
	require.ErrorIs(t, eachStatement(strings.NewReader("SELECT 1;\n"), func(string, quoting) error { return failed }), failed)
}

// Whatever the text, the splitter ends without a panic, and what it returns are parts of the text in their order.
func FuzzSplitScript(f *testing.F) {
	f.Add("SET sql_mode='NO_BACKSLASH_ESCAPES';SELECT '\\';-- x\nDELIMITER ;;\nSELECT 1;;")
	f.Add("/*!50003 SELECT ';' */;/* ; */SELECT \"a\"\"b\";")
	f.Fuzz(func(t *testing.T, script string) {
		statements, err := splitScript(script)
		if err != nil {
			return
		}
		rest := script
		for _, s := range statements {
			i := strings.Index(rest, s)
			if s == "" || i < 0 {
				t.Fatalf("statement %q is not in what is left of %q", s, script)
			}
			rest = rest[i+len(s):]
		}
	})
}
