package mysql

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"keepset/internal/dbdump"
)

// startReplication tells the server whom to follow and from where. The statement holds a password: errors do not
// quote it.
func startReplication(ctx context.Context, s *session, server Server, from start, up dbdump.Upstream, plain bool) error {
	if from.gtid != "" {
		variable := "gtid_purged"
		if server.MariaDB() {
			variable = "gtid_slave_pos"
		}
		if err := s.exec(ctx, "SET GLOBAL "+variable+"="+quoteString(from.gtid)); err != nil {
			return privilegeError(err, "set the server's GTID position")
		}
	}
	if _, err := s.ExecContext(ctx, changeSource(server, from, up, plain)); err != nil {
		return privilegeError(fmt.Errorf("tell the server whom to follow: %w", err), "make the server a follower")
	}
	return privilegeError(s.exec(ctx, wordsOf(server).start), "start replication")
}

// plain tells whether a follower that nobody told to use TLS must be told not to. From 11.4 on, MariaDB uses it by
// default, and trusts the upstream because it knows the account's password. An older upstream cannot prove that it does,
// nor can one without TLS. An upstream that does not say whether it has TLS is judged by its version.
func (u *upstream) plain(ctx context.Context, up dbdump.Upstream) (bool, error) {
	if up.TLS || !u.server.MariaDB() {
		return false, nil
	}
	without := !u.server.AtLeast(11, 4, 0)
	err := u.each(ctx, "SHOW GLOBAL VARIABLES LIKE 'have_ssl'", func(r row) error {
		without = without || r.at(1) != "YES"
		return nil
	})
	return without, err
}

// changeSource writes CHANGE MASTER TO, or what the version calls it.
func changeSource(server Server, from start, up dbdump.Upstream, plain bool) string {
	word, head := "MASTER", "CHANGE MASTER TO "
	if !server.MariaDB() && server.AtLeast(8, 0, 23) {
		word, head = "SOURCE", "CHANGE REPLICATION SOURCE TO "
	}
	list := []string{
		word + "_HOST=" + quoteString(up.Host), word + "_PORT=" + strconv.Itoa(up.Port), word + "_USER=" + quoteString(up.User),
		word + "_PASSWORD=" + quoteString(up.Password), word + "_CONNECT_RETRY=5",
	}
	switch {
	case from.gtid == "":
		list = append(list, word+"_LOG_FILE="+quoteString(from.file), word+"_LOG_POS="+strconv.FormatUint(from.position, 10))
		if server.MariaDB() {
			list = append(list, "MASTER_USE_GTID=no")
		} else {
			list = append(list, word+"_AUTO_POSITION=0")
		}
	case server.MariaDB():
		list = append(list, "MASTER_USE_GTID=slave_pos")
	default:
		list = append(list, word+"_AUTO_POSITION=1")
	}
	switch {
	case plain:
		list = append(list, "MASTER_SSL=0")
	case up.TLS:
		list = append(list, word+"_SSL=1")
		switch {
		case up.CA != "":
			list = append(list, word+"_SSL_CA="+quoteString(up.CA), word+"_SSL_VERIFY_SERVER_CERT=1")
		case server.MariaDB():
			list = append(list, "MASTER_SSL_VERIFY_SERVER_CERT=0")
		}
	case !server.MariaDB() && server.AtLeast(8, 0, 0):
		// caching_sha2_password over a plain connection: the password travels under the upstream's public key.
		list = append(list, "GET_"+word+"_PUBLIC_KEY=1")
	}
	return head + strings.Join(list, ", ")
}

// failure returns the reason why replication will not go on by itself.
func (r replicaStatus) failure(impatient bool) error {
	switch {
	case r.sqlError != "":
		return fmt.Errorf("replication stopped: %s", r.sqlError)
	case r.ioError != "" && r.io == "No":
		if r.ioErrno == "1236" || r.ioErrno == "13114" {
			return fmt.Errorf("%w: %s", dbdump.ErrCoordinates, r.ioError)
		}
		return fmt.Errorf("replication cannot read from the upstream: %s", r.ioError)
	case impatient && r.ioErrno == "2026": // CR_SSL_CONNECTION_ERROR, whose text seldom says more
		return fmt.Errorf("the server cannot connect to its upstream by TLS: %s; --replication-tls-ca names a file where the follower runs, "+
			"with the authority of the upstream's certificate, which bears the upstream's name", r.ioError)
	case impatient:
		return fmt.Errorf("the server cannot connect to its upstream: %s", r.ioError)
	}
	return nil
}

// reached tells whether everything up to the goal is applied.
func (r replicaStatus) reached(ctx context.Context, s *session, server Server, goal start) (bool, error) {
	switch {
	case goal.gtid == "" && goal.file == "":
		return true, nil // the upstream's log is empty
	case goal.gtid == "":
		return laterLog(r.file, goal.file) || r.file == goal.file && r.position >= goal.position, nil
	case server.MariaDB():
		var position string
		if err := s.queryRow(ctx, "SELECT @@GLOBAL.gtid_slave_pos", &position); err != nil {
			return false, err
		}
		return includesMariaDB(position, goal.gtid)
	default:
		var done bool
		err := s.queryRow(ctx, "SELECT GTID_SUBSET("+quoteString(goal.gtid)+", @@GLOBAL.gtid_executed)", &done)
		return done, err
	}
}

// laterLog tells whether a binary log comes after another of the same server: the number at the end of its name has
// six digits, until they do not suffice.
func laterLog(file, other string) bool {
	if len(file) != len(other) {
		return len(file) > len(other)
	}
	return file > other
}

// Shutdown implements dbdump.Follower. It returns when the server does not answer any more.
func (e *Engine) Shutdown(ctx context.Context) error {
	s, err := e.openSession(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.exec(ctx, "SHUTDOWN"); err != nil && !lost(err) {
		return fmt.Errorf("shut down %s: %w", e.opts.Address, privilegeError(err, "the account lacks SHUTDOWN"))
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		probe, err := e.openSession(ctx)
		switch {
		case err == nil:
			probe.Close()
		case errors.Is(err, dbdump.ErrUnreachable) && ctx.Err() == nil:
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("shut down %s: it still answers: %w", e.opts.Address, ctx.Err())
		}
	}
}
