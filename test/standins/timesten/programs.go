package timesten

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Programs is ttenv of the instance in a folder, with a program and its
// arguments; it returns the exit status.
func Programs(instance string, argv []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{d: database(filepath.Join(instance, "database")), stdin: stdin, stdout: stdout, stderr: stderr}
	p.lie = cmp.Or(os.Getenv("LIE"), p.d.read("lie"))
	if len(argv) == 0 {
		return p.fail(2, "usage: ttenv PROGRAM ARGUMENT...")
	}
	p.args = argv[1:]
	run, ok := map[string]func() int{
		"ttVersion": p.version, "ttStatus": p.status, "ttIsql": p.isql, "ttBackup": p.backup,
		"ttRestore": p.restore, "ttDestroy": p.destroy, "ttAdmin": p.admin,
	}[argv[0]]
	if !ok {
		return p.fail(127, "ttenv: "+argv[0]+": not found")
	}
	return run()
}

type program struct {
	d              database
	args           []string
	lie            string
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (p *program) say(format string, args ...any) { _, _ = fmt.Fprintf(p.stdout, format+"\n", args...) }

func (p *program) fail(status int, text string) int {
	_, _ = fmt.Fprintln(p.stderr, text)
	return status
}

func (p *program) option(name string) string {
	if i := slices.Index(p.args, name); i >= 0 && i+1 < len(p.args) {
		return p.args[i+1]
	}
	return ""
}

func (p *program) version() int {
	p.say("TimesTen Release %s (64 bit Linux/x86_64) (instance1:6624) 2020-01-01T00:00:00Z", cmp.Or(os.Getenv("RELEASE"), "18.1.4.1.0"))
	p.say("  Instance admin: oracle")
	return 0
}

func (p *program) status() int {
	p.say("TimesTen status report\n\nDaemon pid 7 port 6624 instance instance1")
	if p.d.has("data") {
		p.say("Data store /tt/home/oracle/datastore/%s", dsn)
		if p.d.loaded() || p.lie == "busy" {
			p.say("There are 12 connections to the data store")
		} else {
			p.say("There are no connections to the data store")
		}
	}
	p.say("End of report")
	return 0
}

// connect refuses what cannot be connected to, and loads or even makes the
// database as a first connection does.
func (p *program) connect() (status int) {
	name, attributes, _ := strings.Cut(strings.TrimPrefix(p.option("-connStr"), "DSN="), ";")
	switch {
	case name != dsn:
		return p.fail(1, "*** [TimesTen][ODBC Driver Manager] Data source name not found")
	case !p.d.has("data") && strings.Contains(attributes, "AutoCreate=0"):
		return p.fail(1, "TT0812: No data store exists")
	case !p.d.has("data"):
		if err := p.d.create(); err != nil {
			return p.fail(1, err.Error())
		}
	case !p.d.whole():
		return p.fail(1, "TT0662: The restore is not finished")
	case p.d.read("policy") == "manual" && !p.d.loaded():
		return p.fail(1, "TT0707: Attempt to connect to a data store that has been manually unloaded from RAM")
	}
	if err := p.d.write("loaded", ""); err != nil {
		return p.fail(1, err.Error())
	}
	return 0
}

// isql runs statements. What fails is said on standard output, and does not
// change the exit status.
func (p *program) isql() int {
	if status := p.connect(); status != 0 {
		return status
	}
	for statement := range strings.SplitSeq(p.option("-e"), ";") {
		statement = strings.TrimSpace(statement)
		if statement == "exit" {
			return 0
		}
		p.statement(statement)
	}
	return 0
}

func (p *program) statement(statement string) {
	values, insert := strings.CutPrefix(statement, "insert into scott.emp values (")
	standby := p.d.state() == "STANDBY"
	var err error
	switch {
	case statement == "":
	case statement == "call ttRepStateGet":
		p.say("< %s >", p.d.state())
	case statement == "call ttBackupStatus":
		p.say("%s", cmp.Or(p.d.read("backups"), "< 0, <NULL>, <NULL>, <NULL>, <NULL>, <NULL>, <NULL>, 0, <NULL> >"))
	case statement == "call ttRepStop" && p.d.has("agent"):
		p.d.remove("agent")
	case statement == "call ttRepStop":
		p.say("12027: The agent is not running for the data store.")
	case statement == "drop active standby pair" && p.d.has("agent"):
		p.say("8191: This store's replication agent is running")
	case statement == "drop active standby pair":
		p.d.remove("scheme")
		err = p.d.write("state", "IDLE\n")
	case (insert || statement == "delete from scott.emp") && standby:
		p.say("16265: This store is currently the STANDBY.  Change to SCOTT.EMP not permitted.")
	case insert:
		values = strings.ReplaceAll(strings.TrimSuffix(values, ")"), "'", "")
		if err = p.d.insert(strings.ReplaceAll(values, ", ", ",")); err == nil {
			p.say("1 row inserted.")
		}
	case statement == "delete from scott.emp":
		err = p.d.deleteRows()
	case statement == "select * from scott.emp":
		for _, row := range p.d.rows() {
			p.say("< %s >", strings.ReplaceAll(row, ",", ", "))
		}
	default:
		p.say("1001: Syntax error in SQL statement before or at: %q", statement)
	}
	if err != nil {
		p.say("%v", err)
	}
}

func (p *program) backup() int {
	if status := p.connect(); status != 0 {
		return status
	}
	if p.option("-type") != "streamFull" && p.option("-dir") == "" {
		return p.fail(1, "ttBackup: -dir is required")
	}
	data := []byte(p.d.read("data") + "\n")
	now := func() string { return time.Now().Format("2006-01-02 15:04:05.000000") }
	row := "2, 1, 1, " + now() + ", " + now() + ", 1, 1531840, 0, 6968"
	status := 0
	_, _ = fmt.Fprintln(p.stderr, "Backup started ...")
	switch p.lie {
	case "asleep":
		time.Sleep(time.Minute)
	case "half":
		data, status = data[:100], 1
		_, _ = fmt.Fprintln(p.stderr, "TT0611: Backup died")
	case "half-zero":
		data, row = data[:100], "3, 1, 1, "+now()+", "+now()+", 1, 1531840, 611, 6968"
	case "stale":
		row = strings.Trim(p.d.read("backups"), "<> ")
	case "duplicate":
		row = "2, 2, 1, " + now() + ", " + now() + ", 1, 1531840, 0, 6968"
	case "unfinished":
		row = "1, 1, 1, " + now() + ", <NULL>, 1, 1531840, 0, 6968"
	}
	if _, err := p.stdout.Write(data); err != nil {
		return p.fail(1, "TT0611: "+err.Error())
	}
	if status == 0 {
		if err := p.d.write("backups", "< "+row+" >\n"); err != nil {
			return p.fail(1, err.Error())
		}
		_, _ = fmt.Fprintln(p.stderr, "Backup complete")
	}
	return status
}

func (p *program) restore() int {
	if !slices.Equal(p.args, []string{"-i", dsn}) {
		return p.fail(1, "usage: ttRestore -i DSN")
	}
	if p.d.has("data") {
		return p.fail(1, "TT0833: The data store exists already")
	}
	data, err := io.ReadAll(p.stdin)
	if err == nil {
		err = p.d.write("data", string(data))
	}
	switch {
	case err != nil:
		return p.fail(1, err.Error())
	case !p.d.whole():
		return p.fail(1, "TT0662: The restore is not finished") // and what there is needs ttDestroy
	}
	p.d.remove("policy", "closed", "agent", "backups")
	// It connects at the end, and the policy is inUse: nobody is connected any more.
	p.d.remove("loaded")
	_ = p.d.write("scheme", "")
	_ = p.d.write("state", "IDLE\n")
	return 0
}

func (p *program) destroy() int {
	switch {
	case len(p.args) == 0 || p.args[len(p.args)-1] != dsn:
		return p.fail(1, "usage: ttDestroy [-wait] [-timeout SECONDS] [-force] DSN")
	case !p.d.has("data"):
		return p.fail(1, "TT0812: No data store exists")
	case p.d.loaded() || p.d.has("agent") || p.lie == "undestroyed":
		return p.fail(1, "TT0853: The data store is in use")
	}
	p.d.destroy()
	return 0
}

func (p *program) admin() int {
	if len(p.args) < 2 || p.args[len(p.args)-1] != dsn {
		return p.fail(1, "usage: ttAdmin -ORDER DSN")
	}
	if !p.d.has("data") {
		return p.fail(1, "TT0812: No data store exists")
	}
	var err error
	switch order := strings.Join(p.args[:len(p.args)-1], " "); order {
	case "-repStop":
		if !p.d.has("agent") {
			return p.fail(1, "12027: The agent is not running for the data store.")
		}
		p.d.remove("agent")
	case "-cacheStop":
		return p.fail(1, "12027: The agent is not running for the data store.")
	case "-close":
		err = p.d.write("closed", "")
	case "-open":
		p.d.remove("closed")
	case "-disconnect -immediate":
	case "-ramPolicy manual", "-ramPolicy inUse", "-ramPolicy always":
		err = p.d.write("policy", strings.TrimPrefix(order, "-ramPolicy ")+"\n")
	case "-ramLoad":
		if !p.d.whole() {
			return p.fail(1, "TT0662: The restore is not finished")
		}
		err = p.d.write("loaded", "")
	case "-ramUnload":
		if p.d.has("agent") {
			return p.fail(1, "TT0853: The data store is in use")
		}
		p.d.remove("loaded")
	default:
		return p.fail(1, "ttAdmin: unknown option "+order)
	}
	if err != nil {
		return p.fail(1, err.Error())
	}
	return 0
}
