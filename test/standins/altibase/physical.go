package altibase

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

var (
	startupForm  = regexp.MustCompile(`(?i)^startup (control|service)$`)
	shutdownForm = regexp.MustCompile(`(?i)^shutdown (immediate|abort)$`)
	backupForm   = regexp.MustCompile(`(?i)^alter database backup database to '([^']+)'$`)
	datafileForm = regexp.MustCompile(`(?i)^alter database create datafile '([^']+)'$`)
	phaseForm    = regexp.MustCompile(`(?i)^alter database (\w+) (meta resetlogs|service)$`)
)

// administer runs what only SYSDBA may, and says whether it was that.
func (p *program) administer(statement string) (failure string, found bool) {
	lower := strings.ToLower(statement)
	backup, datafile := backupForm.FindStringSubmatch(statement), datafileForm.FindStringSubmatch(statement)
	phase := phaseForm.FindStringSubmatch(statement)
	switch startup := startupForm.FindStringSubmatch(statement); {
	case startup != nil:
		return p.startup(strings.ToLower(startup[1])), true
	case shutdownForm.MatchString(statement):
		if p.lie != "stuck" {
			p.home.remove("running", "phase", "aku_started", "recovered")
		}
		p.say("Ok..Shutdown Proceeding....\n\nTRANSITION TO PHASE : Shutdown Altibase\nshutdown immediate success.")
		return "", true
	case lower == "alter database archivelog":
		if p.phase() != "CONTROL" {
			return "11097 : The database is not in the CONTROL phase.", true
		}
		a, _ := p.home.anchor()
		a.Archive = true
		p.home.anchorAt(a)
		p.say("Alter success.")
		return "", true
	case lower == "alter system switch logfile":
		p.home.switchLog()
		p.say("Alter success.")
		return "", true
	case backup != nil:
		return p.backup(backup[1]), true
	case datafile != nil:
		if p.phase() != "CONTROL" {
			return "11097 : The database is not in the CONTROL phase.", true
		}
		p.home.put("dbs/"+datafile[1], "temporary\n")
		p.say("Alter success.")
		return "", true
	case lower == "alter database recover database until cancel":
		return p.recover(), true
	case phase != nil:
		return p.transit(phase[1], strings.ToUpper(phase[2])), true
	default:
		return "", false
	}
}

// phase of the server: empty when there is none.
func (p *program) phase() string {
	if p.home.has("running") {
		return "SERVICE"
	}
	return p.home.read("phase")
}

func (p *program) startup(to string) string {
	a, found := p.home.anchor()
	switch {
	case p.phase() == "CONTROL" && to == "service":
		return p.enter()
	case p.phase() != "":
		return "91040 : Altibase has already been started."
	case !found:
		return "1101F : The loganchor files are not there."
	case !p.home.has(fmt.Sprintf("dbs/SYS_TBS_MEM_DIC-%d-0", a.Stable)):
		return "1101F : The database files are not there."
	}
	p.say("Trying Connect to Altibase.. Connected with Altibase.\n\nTRANSITION TO PHASE : PROCESS")
	if p.lie == "no-control" {
		return ""
	}
	p.say("TRANSITION TO PHASE : CONTROL")
	p.home.put("phase", "CONTROL\n")
	p.home.put(senders, os.Getenv("ALTIBASE_REPLICATION_SENDER_AUTO_START")+"\n") // the server keeps its environment
	if to == "service" {
		return p.enter()
	}
	p.say("Command execute success.")
	return ""
}

// enter goes to the phase SERVICE, which needs a database that was not just copied.
func (p *program) enter() string {
	switch {
	case !p.home.has("dbs/.created"):
		return "1107A : The data files need media recovery."
	case !p.home.has("dbs/temp001.dbf"):
		return "11019 : Unable to open the data file temp001.dbf."
	}
	p.home.remove("phase", "recovered")
	p.home.put("running", "")
	p.say("TRANSITION TO PHASE : META\nTRANSITION TO PHASE : SERVICE\n--- STARTUP Process SUCCESS ---\nCommand executed successfully.")
	p.send()
	return ""
}

const senders = "replication_sender_auto_start"

// send is what replications do that start by themselves with the server: those that
// were not reset go on from where they were.
func (p *program) send() {
	if p.home.read(senders) == "0" {
		return
	}
	for _, peer := range p.home.peers() {
		if xsn := p.home.read("dbs/repl/" + p.home.replication(peer)); xsn == "" || xsn == reset || !p.home.of(peer).replicates() {
			continue
		}
		for _, table := range p.home.listed() {
			p.home.of(peer).write(rowsOf(table), p.home.raw(rowsOf(table)))
		}
	}
}

// backup copies the database's files into a directory, memory first, while others write.
func (p *program) backup(dir string) string {
	a, _ := p.home.anchor()
	switch {
	case p.phase() != "SERVICE":
		return "11097 : The database is not in the SERVICE phase."
	case !a.Archive:
		return "11098 : The database is not in archivelog mode."
	case p.home.has("backup_running"):
		return "110A4 : A backup is being made."
	case p.lie == "backup-full":
		_ = p.home.copyTo("dbs/system001.dbf", dir, "system001.dbf")
		return "110A9 : Unable to write the backup file."
	case p.lie == "backup-nothing":
		p.say("Alter success.")
		return ""
	}
	p.home.checkpoint()
	a, _ = p.home.anchor()
	var names []string
	for _, space := range []string{"DIC", "DATA"} {
		names = append(names, fmt.Sprintf("dbs/SYS_TBS_MEM_%s-%d-0", space, a.Stable))
	}
	for n := range 3 {
		names = append(names, fmt.Sprintf("%s/loganchor%d", logs, n))
	}
	names = append(names, "dbs/system001.dbf")
	for _, name := range names {
		if p.lie == "backup-short" && strings.HasSuffix(name, "system001.dbf") {
			continue
		}
		if err := p.home.copyTo(name, dir, name); err != nil {
			return fmt.Sprintf("110A9 : Unable to write the backup file: %v", err)
		}
	}
	if p.lie == "backup-other" {
		_ = home(dir).tryPut("user001.dbf", "a tablespace that was made just now\n")
	}
	if row := p.home.read("conf/meanwhile"); row != "" { // what a client writes in the middle
		table := p.home.tables()[0]
		p.home.write(rowsOf(table), p.home.raw(rowsOf(table))+row+"\n")
	}
	a, _ = p.home.anchor()
	p.home.put(undo, fmt.Sprintf("undo %d\n", a.Current))
	if err := p.home.copyTo(undo, dir, undo); err != nil {
		return fmt.Sprintf("110A9 : Unable to write the backup file: %v", err)
	}
	if p.lie != "unclosed" {
		p.home.switchLog()
	}
	if p.lie == "lagging" { // clients fill a log more meanwhile, and not all are archived
		p.home.switchLog()
	}
	if p.lie == "unkept" {
		p.home.remove(archived)
	}
	p.say("Alter success.")
	return ""
}

// recover redoes what the logs say, for as long as there is a next one, in the
// directory of the logs or in that of the archived ones.
func (p *program) recover() string {
	a, _ := p.home.anchor()
	image := p.home.raw(fmt.Sprintf("dbs/SYS_TBS_MEM_DATA-%d-0", a.Stable))
	content, whole := strings.CutPrefix(image, "data\n")
	switch {
	case p.phase() != "CONTROL":
		return "11097 : The database is not in the CONTROL phase."
	case !whole:
		return "1107B : The data file is not valid."
	case p.lie == "recover":
		return "110D0 : The log file is not valid."
	case p.lie == "recover-silent":
		return ""
	}
	p.home.replay(content)
	n := a.Oldest
	for ; ; n++ {
		text, found := p.home.find(logFile(logs, n))
		if !found {
			if text, found = p.home.find(logFile(archived, n)); !found {
				break
			}
		}
		p.home.replay(text)
	}
	if n <= p.home.needs() {
		return fmt.Sprintf("110D2 : Unable to find the log file logfile%d.", n)
	}
	p.home.put("recovered", fmt.Sprint(n))
	p.say("Alter success.")
	return ""
}

// transit leads from CONTROL to SERVICE, the way that an incomplete recovery leaves.
func (p *program) transit(database, to string) string {
	switch {
	case !strings.EqualFold(database, "mydb"):
		return "11096 : The database name is not right."
	case to == "META RESETLOGS" && (p.phase() != "CONTROL" || !p.home.has("recovered")):
		return "110D4 : RESETLOGS follows an incomplete recovery only."
	case to == "META RESETLOGS" && !p.home.has("dbs/temp001.dbf"):
		return "11019 : Unable to open the data file temp001.dbf."
	case to == "META RESETLOGS":
		a, _ := p.home.anchor()
		p.home.remove(logs)
		a.Current++
		a.Oldest = a.Current
		p.home.anchorAt(a)
		p.home.newLog(a.Current)
		p.home.put("phase", "META\n")
		p.say("TRANSITION TO PHASE : META")
	case p.phase() != "META":
		return "11097 : The database is not in the META phase."
	case p.lie == "no-service":
	default:
		a, _ := p.home.anchor()
		p.home.images(a.Stable)
		p.home.remove("phase", "recovered")
		p.home.put("running", "")
		p.say("TRANSITION TO PHASE : SERVICE\n--- STARTUP Process SUCCESS ---")
		p.send()
	}
	return ""
}
