package ebstest

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"keepset/internal/snapshot/ebstest/control"
)

// Injection is a rule at work.
type Injection struct {
	server *Server
	id     string
	rule   Rule
	gone   chan struct{}

	// Guarded by Server.mu.
	seen, fired int
	removed     bool
}

// Inject puts a rule to work. Rules that match the same call all apply, in the
// order in which they were injected; the first that fails the call ends it.
func (s *Server) Inject(r Rule) *Injection {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.injected++
	i := &Injection{server: s, id: strconv.Itoa(s.injected), rule: r, gone: make(chan struct{})}
	s.rules = append(s.rules, i)
	return i
}

// Fired is in how many calls it has happened.
func (i *Injection) Fired() int {
	i.server.mu.Lock()
	defer i.server.mu.Unlock()
	return i.fired
}

// Remove ends the rule, and releases the replies that it holds. It may be
// called more than once.
func (i *Injection) Remove() {
	i.server.mu.Lock()
	defer i.server.mu.Unlock()
	if i.removed {
		return
	}
	i.removed = true
	close(i.gone)
	i.server.rules = slices.DeleteFunc(i.server.rules, func(o *Injection) bool { return o == i })
}

// injection finds a rule by its ID.
func (s *Server) injection(id string) *Injection {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.rules {
		if i.id == id {
			return i
		}
	}
	return nil
}

// Calls is the log of the calls that the scope includes, in the order in which
// they came.
func (s *Server) Calls(scope Scope) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var calls []Call
	for _, c := range s.calls {
		if scope.Matches(c) {
			calls = append(calls, c)
		}
	}
	return calls
}

// faults are the rules that fire in one call.
type faults []*Injection

// admit logs a call and finds the rules that fire in it.
func (s *Server) admit(c Call) (Call, faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Sequence = len(s.calls) + 1
	s.calls = append(s.calls, c)
	var fired faults
	for _, i := range s.rules {
		if i.rule.Action != "" && i.rule.Action != c.Action || !i.rule.Scope.Matches(c) {
			continue
		}
		i.seen++
		times := i.rule.Times
		if times == 0 {
			times = 1
		}
		if i.seen <= i.rule.Skip || times > 0 && i.fired >= times {
			continue
		}
		i.fired++
		fired = append(fired, i)
	}
	return c, fired
}

// before waits, calls back, and returns the error that the call fails with.
func (f faults) before(ctx context.Context, c Call) error {
	for _, i := range f {
		if i.rule.Delay > 0 {
			timer := time.NewTimer(i.rule.Delay)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			}
		}
		if i.rule.Before != nil {
			i.rule.Before(c)
		}
		if i.rule.Fail != nil {
			failure := *i.rule.Fail
			return &failure
		}
	}
	return nil
}

// fate is what the rules want to become of what the call makes.
func (f faults) fate() (outcome control.Outcome, message string, hide int) {
	for _, i := range f {
		if i.rule.Outcome != control.Usual {
			outcome, message = i.rule.Outcome, i.rule.Message
		}
		hide = max(hide, i.rule.Hide)
	}
	return outcome, message, hide
}

// after calls back, damages and holds the reply, and says whether it is to be
// sent.
func (f faults) after(ctx context.Context, c Call, r *reply) (send bool) {
	send = true
	for _, i := range f {
		if i.rule.Damage && len(r.body) > 0 {
			r.body = bytes.Clone(r.body)
			r.body[len(r.body)/2] ^= 1
		}
		if i.rule.After != nil {
			i.rule.After(c)
		}
		if i.rule.Hold {
			select {
			case <-i.gone:
			case <-ctx.Done():
				send = false
			}
		}
		send = send && !i.rule.Drop
	}
	return send
}

// settle completes the call's entry in the log.
func (s *Server) settle(c Call, failure *Error, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entry := &s.calls[c.Sequence-1]
	if failure != nil {
		entry.Error = failure.Code
	}
	entry.Lost = lost
}

// drop closes the connection without an answer.
func drop(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close() // the client is to see no more than that
	}
}
