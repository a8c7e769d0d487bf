package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// mariadb-backup (10.11.19) says that all went well when it has lost a table that is not InnoDB's: one that was created and
// renamed while it was at work has its definition alone, and one that was dropped and made again is gone. So its word is
// not taken for it: the files are compared with what the server has.
const lossRemedy = "mariadb-backup loses tables of Aria and MyISAM that are made, renamed or dropped while it is at work: try again, or convert them to InnoDB"

// definitionFile is the end of a table's definition's name. Its fourth byte says which engine the table has.
const definitionFile = ".frm"

// engineFiles are the files that a table of an engine has beside its definition.
var engineFiles = map[byte]struct {
	name  string
	files []string
}{
	9:  {"MyISAM", []string{".MYI", ".MYD"}},
	42: {"Aria", []string{".MAI", ".MAD"}},
}

// complete looks for tables that have come without their rows: mariadb-backup says that all went well when a table that
// is not InnoDB's was created and renamed while it was at work, and has its definition alone.
func (f *fileSet) complete(remedy string) error {
	var lost []string
	for name, stored := range f.files {
		base, ok := strings.CutSuffix(name, definitionFile)
		if !ok {
			continue
		}
		for _, end := range engineFiles[f.engines[stored]].files {
			if _, exists := f.files[base+end]; !exists {
				lost = append(lost, fmt.Sprintf("%s (%s) is without its file %s", base, engineFiles[f.engines[stored]].name, end))
				break
			}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	slices.Sort(lost)
	return fmt.Errorf("%d tables have come without their rows: %s: %s", len(lost), shorten(lost), remedy)
}

// missing looks for tables that the server had when the copy ended, and of which nothing has come. They are asked for
// afterwards, by names and definitions alone, which is quick; what is younger than the copy does not count.
func (c *copying) missing(ctx context.Context) error {
	if !c.server.MariaDB() {
		return c.mysqlMissing(ctx)
	}
	type table struct{ schema, name string }
	var candidates []table
	const all = `SELECT TABLE_SCHEMA, TABLE_NAME, CONVERT(TABLE_SCHEMA USING filename), CONVERT(TABLE_NAME USING filename)
		FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema')`
	err := c.s.each(ctx, all, func(r row) error {
		if _, exists := c.files.files[r.at(2)+"/"+r.at(3)+definitionFile]; !exists {
			candidates = append(candidates, table{r.at(0), r.at(1)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	var lost []string
	for _, t := range candidates {
		const one = "SELECT CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = "
		err := c.s.each(ctx, one+quoteString(t.schema)+" AND TABLE_NAME = "+quoteString(t.name), func(r row) error {
			made, err := time.Parse(time.DateTime, r.at(0))
			if err != nil || !made.After(c.ended) {
				lost = append(lost, t.schema+"."+t.name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return fmt.Errorf("%d tables have not come: %s: %s", len(lost), shorten(lost), lossRemedy)
}
