package altibase

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var viewForm = regexp.MustCompile(`(?i)^select (.+) from (v\$\w+)\b(.*)$`)

// view answers a query of a performance view, and says whether it was one.
func (p *program) view(statement string) (failure string, found bool) {
	m := viewForm.FindStringSubmatch(statement)
	if m == nil {
		return "", false
	}
	row, known := p.viewRows(strings.ToUpper(m[2]), strings.ToUpper(m[1]), strings.ToUpper(m[3]))
	if !known {
		return "31031 : Table or view was not found : " + m[2], true
	}
	p.say("%s\n------------------------------", strings.ToUpper(m[1]))
	for _, r := range row {
		p.say("%-40s", r)
	}
	p.say("%d rows selected.", len(row))
	return "", true
}

func (p *program) viewRows(view, columns, where string) (rows []string, known bool) {
	a, _ := p.home.anchor()
	switch view {
	case "V$ARCHIVE":
		if columns == "ARCHIVE_DEST" {
			return []string{p.home.path(archived)}, true
		}
		next := a.Current
		switch p.lie {
		case "unarchived":
			next = a.Oldest
		case "lagging":
			next = max(a.Oldest, a.Current-1)
		}
		mode := 0
		if a.Archive {
			mode = 1
		}
		return []string{fmt.Sprintf("%-12d%-12d%-12d%d", mode, a.Oldest, next, a.Current)}, true
	case "V$STABLE_MEM_DATAFILES":
		for _, space := range []string{"DIC", "DATA"} {
			rows = append(rows, p.home.path(fmt.Sprintf("dbs/SYS_TBS_MEM_%s-%d-0", space, a.Stable)))
		}
		return rows, true
	case "V$DATAFILES":
		if !strings.Contains(where, "V$TABLESPACES") {
			return nil, false
		}
		if strings.Contains(where, "NOT IN (5, 6)") {
			return []string{p.home.path("dbs/system001.dbf"), p.home.path("dbs/undo001.dbf")}, true
		}
		return []string{p.home.path("dbs/temp001.dbf")}, true
	case "V$DATABASE":
		return []string{"mydb"}, true
	case "V$PROPERTY":
		for name, value := range map[string]string{"LOG_DIR": "?/logs", "LOGANCHOR_DIR": "?/logs", "DEFAULT_DISK_DB_DIR": p.home.path("dbs")} {
			if strings.Contains(where, "'"+name+"'") {
				return []string{value}, true
			}
		}
		return nil, false
	default:
		return nil, false
	}
}

// undo is the file that is backed up last; it says up to which log a recovery has
// to come for the files to fit together.
const undo = "dbs/undo001.dbf"

func (h home) needs() int {
	n, err := strconv.Atoi(strings.TrimPrefix(h.read(undo), "undo "))
	if err != nil {
		return 0
	}
	return n
}

func (h home) copyTo(name, dir, as string) error {
	return home(dir).tryPut(filepath.Base(as), h.raw(name))
}
