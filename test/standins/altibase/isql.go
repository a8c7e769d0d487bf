package altibase

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

var (
	createForm = regexp.MustCompile(`(?is)^create table (\w+)\s*\((.*)\)$`)
	insertForm = regexp.MustCompile(`(?i)^insert into (\w+) values\s*\((.*)\)$`)
	setForm    = regexp.MustCompile(`(?i)^set \w+ \w+$`) // of isql itself
	tableForm  = regexp.MustCompile(`(?i)^(select \* from|delete from|drop table) (\w+)$`)
)

// isql runs the statements of a file or of standard input. Errors go to standard
// output; the status is that of the last statement, and 0 after EXIT.
func (p *program) isql() int {
	if host := p.option("-s"); host != "" && host != "localhost" && host != "127.0.0.1" {
		pod, _, _ := strings.Cut(host, ".")
		p.home = p.home.of(pod[strings.LastIndexByte(pod, '-')+1:])
	}
	sysdba := slices.Contains(p.args, "-sysdba")
	switch {
	case sysdba && p.account() && p.phase() == "":
		p.say("[ERR-910FB : Connected to idle instance]") // and goes on
	case !p.account(), p.phase() != "SERVICE" && !sysdba:
		p.say("[ERR-50032 : Client unable to establish connection.]")
		return 255
	}
	if p.lie == "isql-silent" && !sysdba && p.option("-f") == "" {
		return 0
	}
	text, err := io.ReadAll(p.stdin)
	if file := p.option("-f"); file != "" {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		p.say("[ERR-910FD : %v]", err)
		return 255
	}
	status := 0
	for statement := range strings.SplitSeq(string(text), ";") {
		statement = strings.Join(strings.Fields(statement), " ")
		switch {
		case statement == "":
			continue
		case strings.EqualFold(statement, "exit"):
			return 0
		case setForm.MatchString(statement):
			continue
		}
		status = 0
		if failure := p.admitted(statement, sysdba); failure != "" {
			p.say("[ERR-%s]", failure)
			status = 255
			if p.lie == "isql-zero" {
				status = 0
			}
		}
	}
	return status
}

// admitted runs a statement when the server's phase and the user let it.
func (p *program) admitted(statement string, sysdba bool) (failure string) {
	if sysdba {
		if failure, found := p.administer(statement); found {
			return failure
		}
	}
	if p.phase() != "SERVICE" {
		return "50032 : Client unable to establish connection."
	}
	if failure, found := p.view(statement); found {
		return failure
	}
	return p.statement(statement)
}

// statement runs one, and returns the number and the text of its error.
func (p *program) statement(statement string) (failure string) {
	if strings.Contains(strings.ToLower(statement), "system_.sys_replications_") {
		p.replications()
		return ""
	}
	if m := createForm.FindStringSubmatch(statement); m != nil {
		if p.home.has(rowsOf(m[1])) {
			return "31031 : Table already exists : " + m[1]
		}
		p.home.write("dbs/"+strings.ToUpper(m[1])+".columns", m[2])
		p.home.write(rowsOf(m[1]), "")
		p.say("Create success.")
		return ""
	}
	if strings.EqualFold(statement, "select 1 from dual") {
		p.say("1\n------------------------------\n1\n1 row selected.")
		return ""
	}
	table, values := "", ""
	order := tableForm.FindStringSubmatch(statement)
	insert := insertForm.FindStringSubmatch(statement)
	switch {
	case order != nil:
		table = order[2]
	case insert != nil:
		table, values = insert[1], strings.ReplaceAll(insert[2], " ", "")
	default:
		return "31001 : SQL syntax error"
	}
	if !p.home.has(rowsOf(table)) {
		return "31031 : Table or view was not found : " + table
	}
	rows := strings.Fields(p.home.read(rowsOf(table)))
	switch {
	case insert != nil && slices.ContainsFunc(rows, func(r string) bool { return key(r) == key(values) }):
		return "11058 : The row already exists in a unique index."
	case insert != nil:
		p.change(table, func(rows []string) []string { return append(rows, values) })
		p.say("1 row inserted.")
	case strings.HasPrefix(strings.ToLower(statement), "select"):
		for _, row := range rows {
			p.say("%s", strings.ReplaceAll(row, ",", "           "))
		}
		p.say("%d rows selected.", len(rows))
	case strings.HasPrefix(strings.ToLower(statement), "delete"):
		p.change(table, func([]string) []string { return nil })
		p.say("%d rows deleted.", len(rows))
	default:
		p.home.remove(rowsOf(table), "dbs/"+strings.ToUpper(table)+".columns")
		p.say("Drop success.")
	}
	return ""
}

func key(row string) string { k, _, _ := strings.Cut(row, ","); return k }

// change changes a table here and, if it is one that aku replicates, wherever
// this server replicates to.
func (p *program) change(table string, edit func([]string) []string) {
	homes := []home{p.home}
	if p.home.replicates() && slices.Contains(p.home.listed(), strings.ToUpper(table)) {
		for _, n := range p.home.peers() {
			if peer := p.home.of(n); peer.replicates() {
				homes = append(homes, peer)
			}
		}
	}
	for _, h := range homes {
		rows := edit(strings.Fields(h.read(rowsOf(table))))
		h.write(rowsOf(table), strings.Join(append(rows, ""), "\n"))
	}
}

func (p *program) replications() {
	p.say("REPLICATION_NAME                          XSN\n------------------------------------------------------------------")
	n := 0
	for _, peer := range p.home.peers() {
		if name := p.home.replication(peer); p.home.has("dbs/repl/" + name) {
			p.say("%-42s%s", name, p.home.read("dbs/repl/"+name))
			n++
		}
	}
	p.say("%d rows selected.", n)
}
