package mysql

import (
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSplitTable(t *testing.T) {
	for name, c := range map[string]struct {
		statement     string
		keys, foreign []string
		kept          []string // must stand in what creates the table
	}{
		"keys wait": {
			statement: "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `a,b` varchar(9) DEFAULT 'x,)(',\n  PRIMARY KEY (`id`),\n" +
				"  UNIQUE KEY `u` (`a,b`),\n  KEY `k` (`a,b`(3),`id` DESC) /*!80000 INVISIBLE */\n) ENGINE=InnoDB COMMENT='KEY `k` (`x`)'",
			keys: []string{"UNIQUE KEY `u` (`a,b`)", "KEY `k` (`a,b`(3),`id` DESC) /*!80000 INVISIBLE */"},
			kept: []string{"`a,b` varchar(9) DEFAULT 'x,)('", "PRIMARY KEY (`id`)) ENGINE=InnoDB COMMENT='KEY `k` (`x`)'"},
		},
		"comma in a comment": {
			statement: "CREATE TABLE `t` (`id` int COMMENT 'it''s, (KEY', `b` int COMMENT 'back\\'s, (', PRIMARY KEY (`id`), KEY `b` (`b`) COMMENT 'x, y')",
			keys:      []string{"KEY `b` (`b`) COMMENT 'x, y'"},
			kept:      []string{"`id` int COMMENT 'it''s, (KEY'", "`b` int COMMENT 'back\\'s, ('"},
		},
		"foreign keys wait": {
			statement: "CREATE TABLE `t` (`id` int, `p` int, PRIMARY KEY (`id`), KEY `p` (`p`), CONSTRAINT `f,` FOREIGN KEY (`p`) REFERENCES `d`.`o` (`id`) ON DELETE SET NULL, CONSTRAINT `c` CHECK (`p` in (1,2)))",
			keys:      []string{"KEY `p` (`p`)"},
			foreign:   []string{"CONSTRAINT `f,` FOREIGN KEY (`p`) REFERENCES `d`.`o` (`id`) ON DELETE SET NULL"},
			kept:      []string{"CONSTRAINT `c` CHECK (`p` in (1,2))"},
		},
		"auto increment keeps its key": {
			statement: "CREATE TABLE `t` (`id` int, `n` int AUTO_INCREMENT, PRIMARY KEY (`id`), KEY `first` (`id`), KEY `n` (`n`,`id`), KEY `n2` (`n`))",
			keys:      []string{"KEY `first` (`id`)", "KEY `n2` (`n`)"},
			kept:      []string{"KEY `n` (`n`,`id`)"},
		},
		"no primary key keeps unique keys": {
			statement: "CREATE TABLE `t` (`a` int NOT NULL, UNIQUE KEY `u` (`a`), KEY `k` (`a`))",
			keys:      []string{"KEY `k` (`a`)"},
			kept:      []string{"UNIQUE KEY `u` (`a`)"},
		},
		"special kinds stay": {
			statement: "CREATE TABLE `t` (`id` int, PRIMARY KEY (`id`), FULLTEXT KEY `f` (`t`) /*!50100 WITH PARSER `ngram` */, SPATIAL KEY `s` (`g`), UNIQUE KEY `h` (`l`) USING HASH, " +
				"KEY `m` ((cast(json_extract(`j`,_utf8mb4'$.a') as unsigned array))), UNIQUE KEY `w` (`id`,`p` WITHOUT OVERLAPS), KEY `e` ((`a` + 1)))",
			keys: []string{"KEY `e` ((`a` + 1))"},
			kept: []string{"/*!50100 WITH PARSER `ngram` */", "SPATIAL KEY", "USING HASH", "unsigned array", "WITHOUT OVERLAPS"},
		},
		"partitions": {
			statement: "CREATE TABLE `t` (`id` int NOT NULL, `k` int, PRIMARY KEY (`id`), KEY `k` (`k`)) ENGINE=InnoDB\n/*!50100 PARTITION BY RANGE (`id`)\n(PARTITION p0 VALUES LESS THAN (10) ENGINE = InnoDB) */",
			keys:      []string{"KEY `k` (`k`)"},
			kept:      []string{"PRIMARY KEY (`id`)) ENGINE=InnoDB\n/*!50100 PARTITION BY RANGE (`id`)\n(PARTITION p0 VALUES LESS THAN (10) ENGINE = InnoDB) */"},
		},
		"columns named like keywords": {
			statement: "CREATE TABLE `primary` (`KEY` int, `foreign` int GENERATED ALWAYS AS (`KEY` + 1) VIRTUAL, KEY `foreign` (`foreign`))",
			keys:      []string{"KEY `foreign` (`foreign`)"},
			kept:      []string{"`KEY` int,", "`foreign` int GENERATED ALWAYS AS (`KEY` + 1) VIRTUAL"},
		},
		"period": {
			statement: "CREATE TABLE `t` (`id` int, `s` timestamp(6) GENERATED ALWAYS AS ROW START INVISIBLE, `e` timestamp(6) GENERATED ALWAYS AS ROW END INVISIBLE, PERIOD FOR SYSTEM_TIME (`s`, `e`)) WITH SYSTEM VERSIONING",
			kept:      []string{"PERIOD FOR SYSTEM_TIME (`s`, `e`)) WITH SYSTEM VERSIONING"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ddl, err := splitTable(c.statement, quoting{}, true)
			require.NoError(t, err)
			require.Equal(t, c.keys, ddl.keys)
			require.Equal(t, c.foreign, ddl.foreign)
			for _, text := range c.kept {
				require.Contains(t, ddl.create, text)
			}
			for _, text := range append(append([]string{}, c.keys...), c.foreign...) {
				require.NotContains(t, ddl.create, text+",")
				require.NotContains(t, ddl.create, text+")")
			}
			whole, err := splitTable(c.statement, quoting{}, false)
			require.NoError(t, err)
			require.Empty(t, whole.keys)
			require.Equal(t, c.foreign, whole.foreign)
		})
	}
}

func TestSplitTableRefuses(t *testing.T) {
	for _, statement := range []string{
		"", "DROP TABLE `t` (a)", "CREATE TABLE `t` LIKE `u`", "CREATE TABLE `t` (`a` int", "CREATE TABLE `t` ()", "CREATE TABLE `t` (`a` int COMMENT 'x)",
	} {
		_, err := splitTable(statement, quoting{}, true)
		require.Error(t, err, statement)
	}
}

// No token is lost or invented by a split, whatever the statement.
func FuzzSplitTable(f *testing.F) {
	f.Add("CREATE TABLE `t` (`id` int, KEY `k` (`id`), CONSTRAINT `f` FOREIGN KEY (`p`) REFERENCES `o` (`id`)) ENGINE=InnoDB", true)
	f.Add("CREATE TABLE `t` (`n` int AUTO_INCREMENT, KEY `n` (`n`) /*!80000 INVISIBLE */) /*!50100 PARTITION BY KEY (n) */", false)
	f.Fuzz(func(t *testing.T, statement string, noBackslash bool) {
		quote := quoting{noBackslash: noBackslash}
		ddl, err := splitTable(statement, quote, true)
		if err != nil {
			return
		}
		before := words(t, statement, quote)
		after := words(t, ddl.create, quote)
		for _, part := range append(ddl.keys, ddl.foreign...) {
			after = append(after, words(t, part, quote)...)
		}
		sort.Strings(before)
		sort.Strings(after)
		if strings.Join(before, " ") != strings.Join(after, " ") {
			t.Fatalf("split of %q\nbefore %q\nafter  %q", statement, before, after)
		}
	})
}

// words returns the texts of all tokens but commas.
func words(t *testing.T, text string, quote quoting) []string {
	tokens, err := tokenize(text, quote)
	if err != nil {
		t.Fatalf("tokenize %q: %v", text, err)
	}
	var list []string
	for _, tok := range tokens {
		if w := text[tok.start:tok.end]; w != "," {
			list = append(list, w)
		}
	}
	return list
}
