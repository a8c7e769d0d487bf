package altibase

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// file writes into the working directory, as aexport and iloader do.
func file(name, text string) {
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		panic(err)
	}
}

// aexport ends with status 1 for options, connection and properties, and with 0
// whatever becomes of the export.
func (p *program) aexport() int {
	p.say("     Altibase Export Script Utility.")
	switch {
	case !p.account() || p.option("-port") != "20300":
		_, _ = fmt.Fprintln(p.stderr, "[ERR-311AF : Invalid user or password.]")
		return 1
	case !p.home.has("conf/aexport.properties"):
		_, _ = fmt.Fprintln(p.stderr, "cannot read properties")
		return 1
	}
	switch p.lie {
	case "failed":
		_, _ = fmt.Fprintln(p.stderr, "[ERR-91144 : DBMS_METADATA package does not exist.]")
		return 0
	case "silent":
		return 0
	case "nothing":
		file("run_il_out.sh", "")
	default:
		p.scripts()
	}
	if p.lie == "hang" {
		time.Sleep(time.Minute)
	}
	p.say("iloader, isql and other script files were generated.")
	return 0
}

func (p *program) scripts() {
	const account = " -s 127.0.0.1 -port 20300 -u sys -p manager "
	var create, out, in strings.Builder
	for _, table := range p.home.tables() {
		fmt.Fprintf(&create, "CREATE TABLE %s (%s);\n", table, p.home.read("dbs/"+table+".columns"))
		name := "SYS_" + table
		fmt.Fprintf(&out, "iloader%sformout -T %s -f %s.fmt\n", account, table, name)
		for mode, script := range map[string]*strings.Builder{"out": &out, "in": &in} {
			fmt.Fprintf(script, "iloader%s%s -f %s.fmt -d %s.dat -log %s_%s.log -bad %s.bad\n", account, mode, name, name, name, mode, name)
		}
	}
	file("ALL_CRT_TBL.sql", create.String())
	file("run_is.sh", "isql"+account+"-silent -f ALL_CRT_TBL.sql\n")
	file("run_il_out.sh", out.String())
	file("run_il_in.sh", in.String())
	file("run_is_repl.sh", "isql"+account+"-f ALL_CRT_REP.sql\n")
}

// iloader: 0, 255 for an error, 254 for rejected rows; errors on standard output.
func (p *program) iloader() int {
	p.say("     Altibase Load/Unload utility.")
	mode := "in"
	for _, arg := range p.args {
		if arg == "formout" || arg == "out" || arg == "in" {
			mode = arg
			break
		}
	}
	format, data := p.option("-f"), p.option("-d")
	if mode == "formout" {
		file(format, "table "+p.option("-T")+"\n")
		return 0
	}
	described, _ := os.ReadFile(format)
	table := strings.TrimSpace(strings.TrimPrefix(string(described), "table "))
	status := 0
	switch p.lie {
	case "rejected":
		p.say("1 row rejected")
		return 254
	case "error":
		status = 255
		fallthrough
	case "false-zero":
		p.say("[ERR-91067 : the table is not there.]")
		return status
	case "missing":
		if table == p.home.tables()[0] {
			return 0
		}
	case "bad":
		file(p.option("-bad"), "a row\n")
	}
	if !p.home.has("running") || !p.home.has(rowsOf(table)) {
		p.say("[ERR-91067 : the table is not there.]")
		return 255
	}
	if mode == "out" {
		file(data, p.home.read(rowsOf(table))+"\n")
		return 0
	}
	rows, err := os.ReadFile(data)
	if err != nil {
		p.say("[ERR-91070 : %v]", err)
		return 255
	}
	p.home.write(rowsOf(table), p.home.read(rowsOf(table))+"\n"+string(rows))
	return 0
}
