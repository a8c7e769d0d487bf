package mysql

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// answerTimeout is how long a follower may take to greet us before it counts as dead.
const answerTimeout = 3 * time.Second

// errNoSuchThread: the connection that was to be killed has ended by itself.
const errNoSuchThread = 1094

// endDead ends the connections to the upstream of followers that have own's server_id and do not answer any more. The
// upstream of a pod that was deleted waits for its TCP to give up, which takes a quarter of an hour, and lists the
// follower until then. Only connections of our own account can be seen and ended, which are the followers'. A follower
// that lives where we cannot reach it connects again at once and is listed again: to cut it off does not hide it.
func (u *upstream) endDead(ctx context.Context, own identity) error {
	var ports []string
	err := u.each(ctx, listFollowers(u.server), func(r row) error {
		if r.get("Server_Id") == own.id {
			ports = append(ports, r.get("Port"))
		}
		return nil
	})
	if err != nil {
		return err
	}
	dead := map[string]string{} // connection id -> host
	err = u.each(ctx, "SHOW PROCESSLIST", func(r row) error {
		host := r.get("Host")
		if i := strings.LastIndexByte(host, ':'); i >= 0 {
			host = host[:i]
		}
		if r.get("User") == u.engine.opts.User && strings.HasPrefix(r.get("Command"), "Binlog Dump") && !answersAtAny(ctx, host, ports) {
			dead[r.get("Id")] = host
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for id, host := range dead {
		err := u.exec(ctx, "KILL "+id)
		if err != nil && errorNumber(err) != errNoSuchThread {
			return fmt.Errorf("end the connection of a follower at %s that does not answer: %w", host, err)
		}
		u.engine.opts.Logger.Warn("connection of a follower that does not answer ended on the upstream", "follower", host, "connection", id)
	}
	return nil
}

// answersAtAny tells whether a database greets us at one of the ports.
func answersAtAny(ctx context.Context, host string, ports []string) bool {
	for _, port := range ports {
		if answers(ctx, net.JoinHostPort(host, port)) {
			return true
		}
	}
	return false
}

func answers(ctx context.Context, address string) bool {
	d := net.Dialer{Timeout: answerTimeout}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	// Nothing was written that closing could lose.
	defer func() { _ = conn.Close() }()
	if err := conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil { //nolint:forbidigo // a deadline of the network's
		return false
	}
	n, _ := conn.Read(make([]byte, 1))
	return n == 1
}
