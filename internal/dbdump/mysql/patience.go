package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// A statement may be silent for hours: the keys of a large table are built
// without a word, its rows counted, its bulk load brought to an end. A network
// that has died is silent as well. So silence alone ends nothing: it is the
// reason to ask, over another connection, whether the server is still at work.

// doubtInterval is the longest time between two questions about a connection in doubt.
const doubtInterval = 5 * time.Second

// blindRounds is how many times in a row, each after the timeout of a read, nobody could be asked before that is a doubt,
// too: an hour by default. Behind a proxy, the keep-alive of TCP only shows that the proxy is there.
const blindRounds = 30

// errCannotAsk: nobody can tell whether the server is still at work.
var errCannotAsk = errors.New("the server that it belongs to could not be asked")

// patientConn is a connection that may be silent for as long as the server is at work for it.
type patientConn struct {
	net.Conn
	timeout time.Duration
	// doubts asks what speaks against waiting on; nil until the server has
	// told the connection's id. Before that, whoever connects bounds the time.
	doubts func() error
	// lost is why the connection was given up.
	lost atomic.Pointer[error]
	// closing tells that a deadline was set from outside, which TLS does to
	// say goodbye: it counts, and nobody is asked.
	closing atomic.Bool
}

// Read waits for bytes.
func (c *patientConn) Read(p []byte) (int, error) {
	return c.patiently(c.Conn.SetReadDeadline, func() (int, error) { return c.Conn.Read(p) })
}

// Write waits until the server takes all bytes.
func (c *patientConn) Write(p []byte) (int, error) {
	written := 0
	for {
		n, err := c.patiently(c.Conn.SetWriteDeadline, func() (int, error) { return c.Conn.Write(p[written:]) })
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// SetWriteDeadline bounds the rest of the connection's life.
func (c *patientConn) SetWriteDeadline(t time.Time) error {
	c.closing.Store(true)
	return c.Conn.SetWriteDeadline(t)
}

// patiently moves bytes, for as long as nothing speaks against waiting.
func (c *patientConn) patiently(setDeadline func(time.Time) error, move func() (int, error)) (int, error) {
	wait, begin := c.timeout, time.Now() //nolint:forbidigo // elapsed time
	var since time.Time                  // when the doubts began
	blind := 0                           // how often nobody could be asked
	for {
		if c.closing.Load() {
			return move()
		}
		if err := setDeadline(time.Now().Add(wait)); err != nil { //nolint:forbidigo // elapsed time
			return 0, err
		}
		n, err := move()
		if !errors.Is(err, os.ErrDeadlineExceeded) || c.doubts == nil || c.closing.Load() {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
		doubt := c.doubts()
		if !errors.Is(doubt, errCannotAsk) {
			blind = 0
		} else if blind++; blind < blindRounds {
			doubt = nil
		}
		now := time.Now() //nolint:forbidigo // elapsed time
		switch {
		case doubt == nil:
			wait, since = c.timeout, time.Time{}
		case since.IsZero():
			wait, since = min(c.timeout, doubtInterval), now
		case now.Sub(since) >= c.timeout:
			lost := fmt.Errorf("the connection was silent for %s and given up: %w", now.Sub(begin).Round(time.Second), doubt)
			c.lost.Store(&lost)
			return 0, lost
		}
	}
}

// explain adds to an error of a statement why its connection was given up, which the driver keeps to itself.
func (s *session) explain(err error) error {
	if err == nil {
		return nil
	}
	if lost := s.dialled.lost.Load(); lost != nil && !errors.Is(err, *lost) {
		return errors.Join(*lost, err)
	}
	return err
}

// doubts asks the server what it does for a session, and returns what speaks against waiting for it; nil when the
// server is at work. errCannotAsk: it does not say, and the keep-alive of TCP has the better chance to notice that the
// other end is gone.
func (e *Engine) doubts(of *session) error {
	ctx, cancel := context.WithTimeout(context.Background(), e.opts.ConnectTimeout)
	defer cancel()
	log := e.opts.Logger.With("connection", of.ID)
	s, err := e.openSession(ctx)
	if errorNumber(err) != 0 {
		log.Warn("a connection is silent, and the server does not let another one ask why", "error", err)
		return errCannotAsk
	}
	if err != nil {
		return err
	}
	defer s.Close()
	doubt, askable := errors.New("the server has ended it"), false
	// Everybody may see the connections of the own account.
	query := fmt.Sprintf("SELECT ID, COMMAND, STATE FROM information_schema.PROCESSLIST WHERE ID IN (%d, %d)", of.ID, s.ID)
	err = s.each(ctx, query, func(r row) error {
		if r.at(0) == fmt.Sprint(s.ID) {
			askable = s.host == of.host
			return nil
		}
		doubt = standstill(r.at(1), r.at(2))
		return nil
	})
	if err != nil {
		return err
	}
	if !askable {
		log.Warn("a connection is silent, and whoever is between here and the server does not let another one ask why")
		return errCannotAsk
	}
	if doubt == nil {
		log.Debug("a statement takes long")
	}
	return doubt
}

// standstill says why a connection in that state will not answer; nil when the server is at work.
func standstill(command, state string) error {
	state = strings.ToLower(state)
	switch {
	case command == "Sleep":
		return errors.New("the server waits for it")
	case state == "writing to net", state == "sending to client", state == "reading from net", state == "receiving from client":
		return fmt.Errorf("the server is %s, and nothing arrives", state)
	}
	return nil
}
