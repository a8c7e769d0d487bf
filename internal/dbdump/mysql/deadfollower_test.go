package mysql

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// A follower that has vanished without a word leaves a connection that its upstream takes for a living one. The server
// that takes its place is admitted all the same; the connections of those that live are left alone: of the one that
// listens and says nothing, of the one that listens where no other does, and of all when it may be us who are cut off.
func TestDeadFollowerIsCutOff(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			m, report := dumpMemory(t, options(t, p))
			one, other := newDetour(t, up, 66), newDetour(t, up, 67)
			old, living := seed(t, f, m.Source(report), one.up), seed(t, f, m.Source(report), other.up)
			e := successor(t, f, p, old)
			connections := p.Value(t, dumpConnections)

			e.patience.gone = time.Second
			silent, err := net.Listen("tcp", net.JoinHostPort(one.from, strconv.Itoa(old.Port))) //nolint:noctx // here
			require.NoError(t, err)
			require.ErrorIs(t, e.Admits(t.Context(), up), errTaken)
			require.Equal(t, connections, p.Value(t, dumpConnections), "something answers")
			require.NoError(t, silent.Close())

			blackHole(t, one.from, old.Port, living.Port)
			open := blackHole(t, other.from, old.Port, living.Port)
			require.ErrorIs(t, e.Admits(t.Context(), up), errTaken)
			require.Equal(t, connections, p.Value(t, dumpConnections), "nobody answers")
			open()

			one.vanish()
			old.Kill(t)
			require.Equal(t, connections, p.Value(t, dumpConnections), "the upstream does not know")
			e.patience.gone = defaultPatience.gone / 3
			require.NoError(t, e.Admits(t.Context(), up))
			require.Contains(t, strings.Split(connections, ","), p.Value(t, dumpConnections), "the other one lives")
		})
	}
}

// A follower that lives where our packets are swallowed is back at once after its connection was ended, and not taken
// for dead.
func TestFollowerThatComesBackIsNotReplaced(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			m, report := dumpMemory(t, options(t, p))
			hidden := newDetour(t, up, 66)
			old := seed(t, f, m.Source(report), hidden.up)
			blackHole(t, hidden.from, old.Port)
			e := successor(t, f, p, old)
			connection := p.Value(t, dumpConnections)
			e.patience.gone = 5 * time.Second
			require.ErrorIs(t, e.Admits(t.Context(), up), errTaken)
			require.NotEqual(t, connection, p.Value(t, dumpConnections), "it was not even tried")
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('later')")
			sameRows(t, p, old)
		})
	}
}

// A dead connection that we may not end is waited for: it may go by itself, or somebody else ends it.
func TestDeadFollowerThatMayNotBeEnded(t *testing.T) {
	t.Parallel()
	p, up := primary(t, mysql97)
	m, report := dumpMemory(t, options(t, p))
	protected := newDetour(t, up, 66)
	account := "repl@'" + protected.from + "'"
	p.Exec(t, "CREATE USER "+account+" IDENTIFIED BY 'r''e;pl'", "GRANT REPLICATION SLAVE, SYSTEM_USER ON *.* TO "+account)
	old := seed(t, mysql97, m.Source(report), protected.up)
	blackHole(t, protected.from, old.Port)
	e := successor(t, mysql97, p, old)
	protected.vanish()
	old.Kill(t)
	connection := p.Value(t, dumpConnections)
	admitted := make(chan error, 1)
	go func() { admitted <- e.Admits(t.Context(), up) }()
	select {
	case err := <-admitted:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(answerTimeout + 3*time.Second):
	}
	require.Equal(t, connection, p.Value(t, dumpConnections), "it could be ended")
	p.Exec(t, "KILL "+connection)
	require.NoError(t, <-admitted)
}

// What the upstream's process list says of where a connection comes from.
func TestRemoteHost(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"10.1.2.3:51000": "10.1.2.3", "fd00::2:51000": "fd00::2", "db-1.db.ns.svc.cluster.local:51000": "db-1.db.ns.svc.cluster.local",
		"localhost": "", "localhost:51000": "", "127.0.0.1:51000": "", "::1:51000": "", "::ffff:127.0.0.1:51000": "", "": "", ":51000": "",
	} {
		host, ok := remoteHost(address)
		require.Equal(t, want != "", ok, address)
		if ok {
			require.Equal(t, want, host)
		}
	}
}

// dumpConnections asks a server which connections its followers have.
const dumpConnections = "SELECT COALESCE(GROUP_CONCAT(ID ORDER BY ID), '') FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"

// successor is a new server under the server_id of an old one.
func successor(t *testing.T, f flavour, p, old *servers.MySQL) *Engine {
	t.Helper()
	if f.name == "mariadb" {
		p.Exec(t, "GRANT REPLICATION MASTER ADMIN ON *.* TO repl@'%'")
	}
	o := options(t, f.start(t, servers.WithServerID(old.ServerID), servers.WithConfig(f.config...)))
	o.Load = LoadOptions{Follower: true}
	return newEngine(t, o)
}

// detour lets a follower connect to its upstream from an address of its own, and vanish without a word.
type detour struct {
	up       dbdump.Upstream // where the follower connects to
	from     string          // where the upstream sees it
	vanished atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

// newDetour makes one with an address in 127.second.0.0/16 that no other test has.
func newDetour(t *testing.T, up dbdump.Upstream, second byte) *detour {
	t.Helper()
	ip := net.IPv4(127, second, byte(up.Port>>8), byte(up.Port))
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // here
	require.NoError(t, err)
	d := &detour{up: up, from: ip.String()}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	d.up.Port, err = strconv.Atoi(port)
	require.NoError(t, err)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}
	d.wg.Go(func() {
		for {
			follower, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := dialer.Dial("tcp", net.JoinHostPort(up.Host, strconv.Itoa(up.Port)))
			if err != nil {
				_ = follower.Close()
				continue
			}
			d.join(follower, upstream)
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		d.mu.Lock()
		for _, c := range d.conns {
			_ = c.Close()
		}
		d.mu.Unlock()
		d.wg.Wait()
	})
	return d
}

// join passes on what either end says, and its end unless it has vanished.
func (d *detour) join(follower, upstream net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, follower, upstream)
	d.wg.Go(func() {
		_, _ = io.Copy(upstream, follower)
		if !d.vanished.Load() {
			_ = upstream.Close()
		}
	})
	d.wg.Go(func() {
		_, _ = io.Copy(follower, upstream)
		_ = follower.Close()
	})
}

// vanish keeps the end of the follower from its upstream.
func (d *detour) vanish() { d.vanished.Store(true) }

// blackHole makes packets to an address disappear, as to a machine that is gone: the kernel drops them where a listener
// has more connections than it takes. It lasts until the test's end, or until it is opened.
func blackHole(t *testing.T, host string, ports ...int) (open func()) {
	t.Helper()
	var end []func() error
	open = func() {
		for _, f := range end {
			_ = f()
		}
		end = nil
	}
	t.Cleanup(open)
	for _, port := range ports {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		end = append(end, func() error { return syscall.Close(fd) })
		require.NoError(t, syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
		require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte(net.ParseIP(host).To4())}))
		require.NoError(t, syscall.Listen(fd, 0))
		swallowed := false
		for range 10 {
			conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", host, port), 300*time.Millisecond) //nolint:noctx // here
			var network net.Error
			if swallowed = errors.As(err, &network) && network.Timeout(); swallowed {
				break
			}
			require.NoError(t, err)
			end = append(end, conn.Close)
		}
		require.True(t, swallowed)
	}
	return open
}
