package altibase

import (
	"cmp"
	"os"
	"strings"
)

const (
	reset    = "-1"
	position = "1591138"
)

// flagFile is aku's; tests that run several containers in one place have another.
func flagFile() string { return cmp.Or(os.Getenv("STANDIN_AKU_FLAG"), "/tmp/aku_start_completed") }

// replication is the name of the one between this pod and another.
func (h home) replication(peer string) string {
	own, _ := h.pod()
	return "AKU_REP_" + min(own, peer) + max(own, peer)
}

// listed are the tables that aku.conf names.
func (h home) listed() []string {
	var tables []string
	for line := range strings.Lines(h.read("conf/aku.conf") + "\n") {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "TABLE_NAME="); ok {
			tables = append(tables, strings.ToUpper(strings.Trim(name, `"`)))
		}
	}
	return tables
}

// lost: no replication of this pod knows where it was.
func (h home) lost() bool {
	for _, peer := range h.peers() {
		if xsn := h.read("dbs/repl/" + h.replication(peer)); xsn != "" && xsn != reset {
			return false
		}
	}
	return true
}

func (p *program) aku() int {
	p.say("AKU started with %s option.", strings.ToUpper(p.option("-p")))
	switch p.lie {
	case "aku-" + p.option("-p"):
		p.say("AKU failed to run.")
		return 0
	case "aku-silent":
		if p.option("-p") == "start" {
			return 0
		}
	}
	switch p.option("-p") {
	case "start":
		p.start()
	case "end":
		for _, peer := range p.home.peers() {
			p.position(peer, reset)
		}
		p.home.remove("aku_started")
		p.say("AKU run successfully.")
	case "clean":
		for _, peer := range p.home.peers() {
			p.home.remove("dbs/repl/" + p.home.replication(peer))
		}
		p.home.remove("aku_started")
		_ = os.Remove(flagFile()) // it may not be there
		p.say("AKU run successfully.")
	default:
		p.say("AKU failed to run.")
	}
	return 0
}

// position sets the XSN of the replication with a peer on both sides, where it exists.
func (p *program) position(peer, xsn string) {
	name := "dbs/repl/" + p.home.replication(peer)
	for _, h := range []home{p.home, p.home.of(peer)} {
		if h.has(name) {
			h.write(name, xsn+"\n")
		}
	}
}

func (p *program) start() {
	number, _ := p.home.pod()
	fail := func(text string) { p.say("%s\nAKU failed to run.", text) }
	if _, err := os.Stat(flagFile()); err == nil {
		fail(flagFile() + " exists.")
		return
	}
	if !p.home.has("running") || !p.home.has("conf/aku.conf") {
		fail("[ERR-50032 : Client unable to establish connection.]")
		return
	}
	for _, table := range p.home.listed() {
		if !p.home.has(rowsOf(table)) {
			fail("[ERR-31031 : Table or view was not found : " + table + "]")
			return
		}
	}
	var started []string
	for _, peer := range p.home.peers() {
		if p.home.of(peer).replicates() {
			started = append(started, peer)
		}
	}
	switch master := p.home.of("0"); {
	case p.lie == "aku":
		fail("The connection was lost.")
		return
	case number == "0" && len(started) > 0 && p.home.lost():
		fail("The MASTER server is detected to have failed.")
		return
	case number == "0":
		p.say("[INFO] Start as MASTER Pod.")
	case !master.replicates():
		fail("The MASTER server does not answer.")
		return
	default:
		p.say("[INFO] Start as SLAVE Pod.")
		if p.home.lost() {
			for _, table := range p.home.listed() { // truncated, and filled from pod 0
				p.home.write(rowsOf(table), master.read(rowsOf(table))+"\n")
			}
		}
	}
	for _, peer := range p.home.peers() {
		p.home.write("dbs/repl/"+p.home.replication(peer), reset+"\n")
	}
	p.home.write("aku_started", "")
	for _, peer := range started {
		p.position(peer, position)
	}
	if err := os.WriteFile(flagFile(), nil, 0o644); err != nil {
		panic(err)
	}
	p.say("AKU run successfully.")
}
