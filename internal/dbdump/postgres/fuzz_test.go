package postgres

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// pieces cuts a script, and gives the kinds and texts.
func pieces(r io.Reader) (list []piece, err error) {
	s := newScanner(r, "script")
	for {
		p, err := s.next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, piece{kind: p.kind, text: bytes.Clone(p.text), code: bytes.Clone(p.code)})
	}
}

// A script is the sum of its pieces, however it arrives, and only its end has no statement.
func FuzzScript(f *testing.F) {
	for _, s := range []string{
		"", ";", "SELECT 1;\nSELECT 2;\n-- end", `SELECT ';', E'\';', U&'\;', ";", $$;$$, $a$;$$;$a$, a$b$, $1; x`, "/* ; /* */ ; */ SELECT 1;",
		"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN 1=1 THEN 2 END; SELECT 3; END; SELECT 4;",
		"CREATE RULE r AS ON INSERT TO v DO INSTEAD (SELECT 1; SELECT 2);", "\\restrict x\nSET a = 1;\n  \\connect y\n\\unrestrict x", "SELECT 'unended", "SELECT 1 \\g", "SELECT 1",
		"SET standard_conforming_strings = off;SELECT '\\';';SET standard_conforming_strings = on;SELECT '\\';", "-- a\n\\connect", "/* unended", "$$ unended $",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script string) {
		list, err := pieces(strings.NewReader(script))
		again, againErr := pieces(iotest.OneByteReader(strings.NewReader(script)))
		require.Equal(t, list, again)
		require.Equal(t, err == nil, againErr == nil)
		var sum strings.Builder
		for i, p := range list {
			sum.Write(p.text)
			require.True(t, bytes.HasSuffix(p.text, p.code))
			require.Equal(t, p.kind == pieceEnd, err == nil && i == len(list)-1)
			if p.kind == pieceStatement {
				require.True(t, bytes.HasSuffix(p.code, []byte(";")))
			}
		}
		if err == nil {
			require.Equal(t, script, sum.String())
			return
		}
		require.True(t, strings.HasPrefix(script, sum.String()))
		require.True(t, errors.Is(err, errUnended) || errors.Is(err, errBackslash), err)
	})
}

// What is understood of a statement is in it.
func FuzzStatement(f *testing.F) {
	for _, s := range []string{
		`CREATE TABLE public.t (a int);`, `CREATE UNIQUE INDEX i ON ONLY public."t""x" USING btree (a);`, `ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (a);`,
		`GRANT SELECT(a) ON TABLE s.t TO x;`, `COMMENT ON COLUMN s.t.a IS 'x';`, `CREATE OPERATOR s.+ (FUNCTION = f);`, `CREATE STATISTICS s.st ON a, b FROM s.t;`, `CREATE`, `"`, `--`,
		`ALTER TABLE ONLY s.t ATTACH PARTITION s."t""1" FOR VALUES IN ('x');`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, code string) {
		st := understand([]byte(code))
		last := 0
		for _, token := range tokensOf([]byte(code), 400) {
			require.GreaterOrEqual(t, token.start, last)
			require.Greater(t, token.end, token.start)
			last = token.end
			if token.name && !token.quoted {
				require.Equal(t, token.text, strings.ToLower(code[token.start:token.end]))
			}
		}
		partition, _ := attached([]byte(code))
		for _, name := range []string{st.schema, st.name, st.parent, partition[0], partition[1], indexName([]byte(code)), constraintName([]byte(code)), roleOf([]byte(code), st)} {
			require.LessOrEqual(t, len(name), 2*len(code)+4)
		}
	})
}

// A name that is given is the name that is read, and the rest of the statement stays.
func FuzzRename(f *testing.F) {
	f.Add("CREATE DATABASE ", "a", ` OWNER = "a";`, "b")
	f.Add("GRANT CONNECT ON DATABASE ", `x"y`, " TO app;", "Ä b")
	f.Fuzz(func(t *testing.T, before, old, after, name string) {
		if old == "" || name == "" || !slices.Contains([]string{"CREATE DATABASE ", "GRANT CONNECT ON DATABASE ", "ALTER ROLE database IN DATABASE "}, before) || strings.HasPrefix(after, `"`) {
			return
		}
		got := renameDatabase([]byte(before+quoteIdentifier(old)+after), old, name)
		require.Equal(t, before+quoteIdentifier(name)+after, string(got))
	})
}

// Names that differ stay different, and none leaves its place in the path.
func FuzzNames(f *testing.F) {
	f.Add("a/b", "a%2Fb")
	f.Add(".", "..")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := escapeElement(a), escapeElement(b)
		require.Equal(t, a == b, x == y)
		require.False(t, strings.HasPrefix(x, ".") || strings.ContainsAny(x, "/\\\x00\n "))
		list := tokensOf([]byte(quoteQualified(a, b)), 3)
		require.Len(t, list, 3)
		require.Equal(t, [2]string{a, b}, [2]string{list[0].text, list[2].text})
		names := [][2]string{{a, b}, {b, a}}
		require.Equal(t, names, unquoteNames(quoteNames(names)))
	})
}

// A version is read out of what the programs say, and out of nothing else.
func FuzzProgramVersion(f *testing.F) {
	for _, s := range []string{"pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", "pg_dump (PostgreSQL) 18beta1", "pg_dump 9", "", "pg_dump (PostgreSQL) 1234"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		major, err := parseProgramVersion(text)
		if err != nil {
			require.Zero(t, major)
			return
		}
		require.Contains(t, text, "(PostgreSQL)")
		require.Less(t, major, 1000)
		_, version, _ := strings.Cut(text, "(PostgreSQL) ")
		require.Equal(t, major, majorOf(version))
	})
}

// Exclude wins, what is whole is there, and what holds a thing that passes passes.
func FuzzFilter(f *testing.F) {
	f.Add("a.b.c", "a.b", "a", "b", "c")
	f.Add("*", "a.*.t", "a", "b", "t")
	f.Fuzz(func(t *testing.T, include, exclude, db, schema, table string) {
		filter := Filter{}
		if include != "" {
			filter.Include = []string{include}
		}
		if exclude != "" {
			filter.Exclude = []string{exclude}
		}
		if filter.validate() != nil {
			return
		}
		if filter.Table(db, schema, table) {
			require.True(t, filter.Schema(db, schema))
			require.True(t, filter.Database(db))
		}
		if filter.WholeSchema(db, schema) {
			require.True(t, filter.Schema(db, schema))
		}
		if filter.WholeDatabase(db) {
			require.True(t, filter.Table(db, schema, table) && filter.WholeSchema(db, schema) && filter.Loose(db))
		}
	})
}
