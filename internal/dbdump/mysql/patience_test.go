package mysql

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// Neither a statement that takes many times the read timeout nor a row that does is an end.
func TestASilentStatementIsWaitedFor(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE USER plain@'%' IDENTIFIED BY 'x'") // without the right to see the connections of others
		for _, o := range []Options{options(t, s), {Address: s.Addr, User: "plain", Password: "x"}} {
			o.ReadTimeout = 300 * time.Millisecond
			e := newEngine(t, o)
			p := &sessions{engine: e}
			defer p.close(t.Context(), false)
			session, err := p.get(t.Context())
			require.NoError(t, err)
			require.NoError(t, session.exec(t.Context(), "DO SLEEP(2)"))
			rows := 0
			err = session.streamRows(t.Context(), "SELECT SLEEP(1) UNION ALL SELECT SLEEP(1)", func([][]byte) error { rows++; return nil })
			require.NoError(t, err)
			require.Equal(t, 2, rows)
		}
	})
}

// A load whose statements are held up, as large ones hold themselves up, ends well; so does a dump.
func TestALoadWaitsForSilentStatements(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			source.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT, w LONGTEXT, KEY (v))",
				"CREATE TABLE d.digit (n INT)", "INSERT INTO d.digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
				"INSERT INTO d.t SELECT a.n+10*b.n+100*c.n+1000*d.n+10000*e.n, a.n, 'w' FROM d.digit a, d.digit b, d.digit c, d.digit d, d.digit e WHERE e.n < 3")
			m, report := dumpMemory(t, options(t, source))
			target := f.server(t, "local_infile=ON")
			blocked := make(chan error, 1)
			go func() { // no statement gets at the table for a few seconds
				conn, err := target.DB(t).Conn(t.Context())
				for err == nil {
					if _, err = conn.ExecContext(t.Context(), "LOCK TABLES d.t READ"); err == nil {
						break
					} else if errorNumber(err) == errNoSuchTable || errorNumber(err) == errUnknownDatabase {
						err = nil
					}
				}
				if err == nil {
					_, err = conn.ExecContext(t.Context(), "DO SLEEP(4)")
				}
				if err == nil {
					_, err = conn.ExecContext(t.Context(), "UNLOCK TABLES")
				}
				blocked <- err
			}()
			o := options(t, target)
			o.ReadTimeout = 500 * time.Millisecond
			begin := time.Now()
			_, err := loadWith(t, o, m, report)
			require.NoError(t, err)
			require.Greater(t, time.Since(begin), 3*time.Second, "nothing was held up")
			require.NoError(t, <-blocked)
		})
	}
}

// A network that swallows everything, be it on one connection or on all, is noticed.
func TestASilentNetworkIsNoticed(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		for _, all := range []bool{false, true} {
			p := newHole(t, s.Addr)
			o := options(t, s)
			o.Address, o.ReadTimeout, o.ConnectTimeout = p.addr, 500*time.Millisecond, 2*time.Second
			e := newEngine(t, o)
			session, err := e.openSession(t.Context())
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() { done <- session.exec(t.Context(), "DO SLEEP(2)") }()
			waitFor(t, "the statement to run", func() bool {
				return s.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DO SLEEP%'") == "1"
			})
			p.swallow(all)
			select {
			case err = <-done:
			case <-time.After(30 * time.Second):
				require.Fail(t, "still waiting")
			}
			session.Close()
			want := "the server waits for it"
			if all {
				want = "server unreachable"
			}
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, "DO SLEEP(2)")
		}
	})
}

// hole is a way to the server that can become a hole: connections stay open, and nothing passes.
type hole struct {
	addr    string
	mu      sync.Mutex
	silent  []*atomic.Bool
	silence atomic.Bool
}

func newHole(t testing.TB, to string) *hole {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &hole{addr: listener.Addr().String()}
	var group sync.WaitGroup
	var open []net.Conn
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			silent := new(atomic.Bool)
			p.mu.Lock()
			p.silent = append(p.silent, silent)
			open = append(open, client, server)
			p.mu.Unlock()
			group.Go(func() { p.pass(client, server, silent) })
			group.Go(func() { p.pass(server, client, silent) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		p.mu.Unlock()
		group.Wait()
	})
	return p
}

// pass copies until either end closes.
func (p *hole) pass(to, from net.Conn, silent *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !silent.Load() && !p.silence.Load() {
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
}

// swallow lets nothing pass any more: on the connections that are open, or on all that will be.
func (p *hole) swallow(all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, silent := range p.silent {
		silent.Store(true)
	}
	p.silence.Store(all)
}

// Where nobody can be asked, silence is not waited for without end.
func TestSilenceThatNobodyExplainsEnds(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer near.Close() //nolint:errcheck // it is being thrown away
	defer far.Close()  //nolint:errcheck // it is being thrown away
	asked := 0
	c := &patientConn{Conn: near, timeout: 10 * time.Millisecond}
	c.doubts = func() error {
		if asked++; asked == blindRounds-1 {
			return nil // one answer, and the count begins anew
		}
		return errCannotAsk
	}
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, errCannotAsk)
	require.ErrorContains(t, err, "given up")
	require.GreaterOrEqual(t, asked, 2*blindRounds-1)
}

// Whoever answers now is not the server that is waited for, and cannot speak for it.
func TestAnotherServerCannotSpeakForASession(t *testing.T) {
	t.Parallel()
	eachServer(t, families(), func(t *testing.T, s *servers.MySQL) {
		e := newEngine(t, options(t, s))
		session, err := e.openSession(t.Context())
		require.NoError(t, err)
		defer session.Close()
		require.ErrorContains(t, e.doubts(session), "the server waits for it")
		session.host = "another"
		require.ErrorIs(t, e.doubts(session), errCannotAsk)
	})
}
