package mysql

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// dumpSetup are the statements that make a session fit to read from: the
// server's defaults must not colour what it answers, nor its time limits end
// a long read.
func dumpSetup(s Server) []string {
	set := []string{
		"SET NAMES utf8mb4",
		// Text arrives in the bytes of its own character set.
		"SET SESSION character_set_results = NULL",
		"SET SESSION sql_mode = '', time_zone = '+00:00', sql_quote_show_create = 1, autocommit = 1",
		"SET SESSION sql_big_selects = 1, sql_select_limit = 18446744073709551615, sql_safe_updates = 0, max_join_size = 18446744073709551615",
		"SET SESSION net_write_timeout = 86400, net_read_timeout = 86400, wait_timeout = 86400, lock_wait_timeout = 600",
		"SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
	}
	if s.MariaDB() {
		return append(set, "SET SESSION max_statement_time = 0, idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0")
	}
	set = append(set, "SET SESSION max_execution_time = 0")
	if s.AtLeast(8, 0, 3) {
		// Cached statistics may be a day old, and filling the cache writes.
		set = append(set, "SET SESSION information_schema_stats_expiry = 0")
	}
	if s.AtLeast(8, 0, 17) {
		set = append(set, "SET SESSION print_identified_with_as_hex = ON")
	}
	if s.AtLeast(8, 0, 30) {
		set = append(set, "SET SESSION show_gipk_in_create_table_and_information_schema = ON")
	}
	return set
}

// sessions keeps track of what is open, so that a failed or cancelled dump
// leaves nothing running in the server.
type sessions struct {
	engine *Engine
	setup  []string
	mu     sync.Mutex
	open   []*session
}

// get opens one more session with the dump's settings.
func (p *sessions) get(ctx context.Context) (*session, error) {
	s, err := p.engine.openSession(ctx, p.setup...)
	if err != nil {
		return nil, err
	}
	var name, cipher string
	if err := s.queryRow(ctx, "SHOW SESSION STATUS LIKE 'Ssl_cipher'", &name, &cipher); err != nil {
		s.Close()
		return nil, err
	}
	if cipher == "" {
		s.wire = s.dialled
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, s)
	return s, nil
}

// put closes a session before the others.
func (p *sessions) put(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = slices.DeleteFunc(p.open, func(o *session) bool { return o == s })
	s.Close()
}

// killTimeout bounds the clean-up after a failure.
const killTimeout = 5 * time.Second

// close ends all sessions. After a failure they are killed in the server too:
// it does not notice a closed socket while it waits for a lock or scans, and
// a FLUSH TABLES that nobody waits for any more would go on blocking writers.
func (p *sessions) close(ctx context.Context, failed bool) {
	p.mu.Lock()
	open := p.open
	p.open = nil
	p.mu.Unlock()
	if failed && len(open) > 0 {
		p.kill(context.WithoutCancel(ctx), open)
	}
	for _, s := range open {
		s.Close()
	}
}

// kill ends sessions in the server. Another server may answer by now, or the same one after a restart, where their
// numbers are somebody else's: only what is still the same client's connection to the same server is killed.
func (p *sessions) kill(ctx context.Context, open []*session) {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	log := p.engine.opts.Logger
	killer, err := p.engine.openSession(ctx)
	if err != nil {
		log.Warn("could not connect to kill the dump's own sessions; they end when the server notices", "error", err)
		return
	}
	defer killer.Close()
	alive := map[string]string{}
	err = killer.each(ctx, "SELECT ID, "+clientColumns+" FROM information_schema.PROCESSLIST", func(r row) error {
		alive[r.at(0)] = r.at(1)
		return nil
	})
	if err != nil {
		log.Warn("could not see which of the dump's own sessions are left; they end when the server notices", "error", err)
		return
	}
	for _, s := range open {
		if s.host != killer.host || s.client == "" || alive[fmt.Sprint(s.ID)] != s.client {
			log.Debug("session is gone, or on another server", "connection", s.ID, "server", s.host)
			continue
		}
		// It may have ended by itself just now: nothing to do.
		if err := killer.exec(ctx, fmt.Sprintf("KILL CONNECTION %d", s.ID)); err != nil {
			log.Debug("session was gone already", "connection", s.ID)
		}
	}
}

// ids are the connection ids of all open sessions, as text.
func (p *sessions) ids() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make([]string, len(p.open))
	for i, s := range p.open {
		ids[i] = fmt.Sprint(s.ID)
	}
	return ids
}
