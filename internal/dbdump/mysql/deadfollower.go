package mysql

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// answerTimeout is how long a follower's machine may take to answer us before it counts as dead.
const answerTimeout = 3 * time.Second

// errNoSuchThread: the connection that was to be killed has ended by itself.
const errNoSuchThread = 1094

// dumpConnection is a connection over which the upstream sends its binary log to somebody.
type dumpConnection struct {
	id, host string
	life     life
}

// life is what probing the other end of a connection has found.
type life int

const (
	unknown life = iota
	alive        // something answered, if only to refuse us
	dead         // nothing did, or the network says that nobody is there
)

// endDead ends the connections to the upstream whose other end is gone. The upstream of a pod that was deleted waits for
// its TCP to give up, which takes a quarter of an hour, and lists the follower until then.
//
// Which connection is which follower's, the upstream does not tell; nor need it be a follower's at all. So it is a
// connection's machine that is judged: one that answers anything at any follower's port has reset a connection that it
// does not know, or will when it is next sent something. And we may be the ones who are cut off: where nobody answers,
// that is only believed of a single connection. Followers that live behind what swallows our packets connect again, and
// are listed again: the caller looks on for long enough to see that.
//
// Only connections of our own account can be seen and ended.
func (u *upstream) endDead(ctx context.Context) error {
	if u.engine.opts.Dial != nil {
		return nil // our network does not lead to the followers: silence says nothing
	}
	ports := map[string]bool{}
	err := u.each(ctx, listFollowers(u.server), func(r row) error {
		if port := r.get("Port"); port != "" && port != "0" {
			ports[port] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	connections, err := u.dumpConnections(ctx)
	if err != nil {
		return err
	}
	probe(ctx, connections, ports)
	answered := false
	for _, c := range connections {
		answered = answered || c.life == alive
	}
	for _, c := range connections {
		log := u.engine.opts.Logger.With("follower", c.host, "connection", c.id)
		if c.life != dead || ctx.Err() != nil {
			continue
		}
		if !answered && len(connections) > 1 {
			log.Warn("the other end of a connection to the upstream does not answer, nor does any other follower: nothing is ended")
			continue
		}
		switch err := u.exec(ctx, "KILL "+c.id); {
		case err != nil && errorNumber(err) != errNoSuchThread:
			log.Warn("the other end of a connection to the upstream does not answer, and it cannot be ended", "error", err)
		default:
			log.Warn("connection of a follower that does not answer ended on the upstream")
		}
	}
	return nil
}

// dumpConnections lists our account's connections over which the binary log is sent to another machine: those from the
// upstream's own, by its socket or its loopback, say nothing about ours.
func (u *upstream) dumpConnections(ctx context.Context) ([]dumpConnection, error) {
	var list []dumpConnection
	err := u.each(ctx, "SHOW PROCESSLIST", func(r row) error {
		if r.get("User") != u.engine.opts.User || !strings.HasPrefix(r.get("Command"), "Binlog Dump") {
			return nil
		}
		if host, ok := remoteHost(r.get("Host")); ok {
			list = append(list, dumpConnection{id: r.get("Id"), host: host})
		}
		return nil
	})
	return list, err
}

// remoteHost takes the port off a Host of the process list, which writes IPv6 without brackets.
func remoteHost(address string) (string, bool) {
	i := strings.LastIndexByte(address, ':')
	if i <= 0 {
		return "", false // a socket
	}
	host := address[:i]
	if host == "localhost" {
		return "", false
	}
	ip, err := netip.ParseAddr(host)
	own := err == nil && (ip.Unmap() == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback())
	return host, !own
}

// probe finds out which connections' machines live, all at the same time: it takes answerTimeout at most.
func probe(ctx context.Context, connections []dumpConnection, ports map[string]bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*answerTimeout) // names have to be resolved, too
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range connections {
		c := &connections[i]
		silent := 0
		for port := range ports {
			wg.Go(func() {
				found := lifeAt(ctx, net.JoinHostPort(c.host, port))
				mu.Lock()
				defer mu.Unlock()
				if found == dead {
					silent++
				}
				switch {
				case found == alive:
					c.life = alive
				case silent == len(ports):
					c.life = dead
				}
			})
		}
	}
	wg.Wait()
}

// lifeAt tells whether a machine answers at the address.
func lifeAt(ctx context.Context, address string) life {
	d := net.Dialer{Timeout: answerTimeout}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close() // nothing was written that closing could lose
		return alive
	}
	var resolving *net.DNSError
	var network net.Error
	switch {
	case ctx.Err() != nil, errors.As(err, &resolving):
		return unknown
	case errors.Is(err, syscall.ECONNREFUSED):
		return alive
	case errors.Is(err, syscall.EHOSTUNREACH), errors.As(err, &network) && network.Timeout():
		return dead
	}
	return unknown
}
