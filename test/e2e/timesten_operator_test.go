package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"keepset/test/standins/timesten"
)

// timestenOperator stands in for Oracle's operator, for the one object sample. It
// runs in the test. From its guide: what it makes of an object; that it promotes
// the standby when the active is gone and makes the other anew (StandbyDown); that
// it leaves a pair alone once stopManaging has changed; that a change of reexamine
// makes it look for one database that is loaded, IDLE, without a scheme and without
// an agent, and fall back to ManualInterventionRequired where it does not find that.
// Assumed: that the other's database is then replaced, whatever it was.
type timestenOperator struct {
	*cluster
	// seen are the values that it has acted upon.
	stopped, reexamined string
	state               string
	// history are its states, one after the other.
	mu      sync.Mutex
	history []string
}

const timestenObject = "/apis/timesten.oracle.com/v1/namespaces/%s/timestenclassics/sample"

// startTimestenOperator applies the object's definition and runs the operator
// until the test ends.
func startTimestenOperator(c *cluster) *timestenOperator {
	c.t.Helper()
	c.apply(readFile(c.t, "testdata/timesten-crd.yaml"))
	c.t.Cleanup(func() { removeTimestenDefinition(c) })
	c.kubectl("wait", "--for=condition=Established", "crd/timestenclassics.timesten.oracle.com", "--timeout=2m")
	o := &timestenOperator{cluster: c, state: "Initializing"}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if err := o.look(ctx); err != nil && ctx.Err() == nil {
				o.note("error: " + err.Error())
			}
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	c.t.Cleanup(func() {
		cancel()
		<-ended
		if c.t.Failed() {
			c.t.Logf("the operator's states: %q", o.states())
		}
	})
	return o
}

// removeTimestenDefinition removes the definition when no other run of this test
// has an object of it.
func removeTimestenDefinition(c *cluster) {
	left, err := c.try("get", "timestenclassics", "-A", "-o", "name")
	if others := bytes.Count([]byte(left), []byte("timestenclassic.")); err == nil && others <= 1 {
		_, _ = c.try("delete", "-n", c.ns, "timestenclassic", "sample", "--ignore-not-found", "--timeout=30s")
		_, _ = c.try("delete", "crd", "timestenclassics.timesten.oracle.com", "--ignore-not-found", "--timeout=30s")
	}
}

func (o *timestenOperator) note(state string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.history); n == 0 || o.history[n-1] != state {
		o.history = append(o.history, state)
	}
}

func (o *timestenOperator) states() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.history...)
}

// look does one round.
func (o *timestenOperator) look(ctx context.Context) error {
	body, err := o.kube.CoreV1().RESTClient().Get().AbsPath(fmt.Sprintf(timestenObject, o.ns)).DoRaw(ctx)
	if err != nil {
		return err
	}
	var object struct {
		Spec struct {
			TTSpec struct{ StopManaging, Reexamine string }
		}
	}
	if err := json.Unmarshal(body, &object); err != nil {
		return err
	}
	if o.state == "Initializing" {
		if out, err := o.tryInput(readFile(o.t, "testdata/timesten-set.yaml"), "apply", "-f", "-"); err != nil {
			return errors.New(out)
		}
	}
	spec := object.Spec.TTSpec
	pair := o.pair(ctx)
	switch {
	case spec.StopManaging != o.stopped:
		o.stopped = spec.StopManaging
		return o.become(ctx, "ManualInterventionRequired", "None")
	case o.state == "ManualInterventionRequired" && spec.Reexamine == o.reexamined:
		return nil
	case o.state == "ManualInterventionRequired":
		o.reexamined = spec.Reexamine
		return o.reexamine(ctx, pair)
	case o.state == "Initializing":
		return o.initialize(ctx, pair)
	default:
		return o.repair(ctx, pair)
	}
}

// half is one pod of the pair. Its status is nil when its agent does not answer.
type half struct {
	name, url string
	status    *timesten.Status
}

func (h half) is(state string) bool {
	return h.status != nil && h.status.Database == "Loaded" && h.status.State == state && h.status.Agent
}

func (o *timestenOperator) pair(ctx context.Context) [2]half {
	var pair [2]half
	for i := range pair {
		pair[i].name = fmt.Sprintf("sample-%d", i)
		p := o.pod(pair[i].name)
		if p == nil || p.DeletionTimestamp != nil || p.Status.PodIP == "" {
			continue
		}
		pair[i].url = "http://" + p.Status.PodIP + ":8443"
		var status timesten.Status
		if body, err := call(ctx, http.MethodGet, pair[i].url+"/status", nil); err == nil && json.Unmarshal(body, &status) == nil {
			pair[i].status = &status
		}
	}
	return pair
}

func call(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, response.Status, answer)
	}
	return answer, nil
}

// initialize makes the database in the first pod, active, and its standby.
func (o *timestenOperator) initialize(ctx context.Context, pair [2]half) error {
	if pair[0].status == nil || pair[1].status == nil {
		return nil
	}
	if _, err := call(ctx, http.MethodPost, pair[0].url+"/create", nil); err != nil {
		return err
	}
	return o.activate(ctx, pair[0], pair[1])
}

// activate makes one active, the other its standby, and says so.
func (o *timestenOperator) activate(ctx context.Context, active, standby half) error {
	if _, err := call(ctx, http.MethodPost, active.url+"/activate", nil); err != nil {
		return err
	}
	if standby.status == nil {
		return o.become(ctx, "StandbyDown", active.name)
	}
	if err := duplicate(ctx, active, standby); err != nil {
		return err
	}
	return o.become(ctx, "Normal", active.name)
}

// duplicate gives the standby what the active one has: at first, and then as
// replication would.
func duplicate(ctx context.Context, active, standby half) error {
	data, err := call(ctx, http.MethodGet, active.url+"/database", nil)
	if err != nil {
		return err
	}
	_, err = call(ctx, http.MethodPut, standby.url+"/database", data)
	return err
}

// repair keeps a pair a pair.
func (o *timestenOperator) repair(ctx context.Context, pair [2]half) error {
	for i, active := range pair {
		other := pair[1-i]
		switch {
		case !active.is("ACTIVE"):
		case other.status == nil:
			return o.become(ctx, "StandbyDown", active.name)
		case other.is("STANDBY") && fmt.Sprint(other.status.Rows) == fmt.Sprint(active.status.Rows):
			return o.become(ctx, "Normal", active.name)
		default:
			if err := duplicate(ctx, active, other); err != nil {
				return err
			}
			return o.become(ctx, "Normal", active.name)
		}
	}
	for i, standby := range pair {
		if standby.is("STANDBY") {
			if err := o.become(ctx, "ActiveDown", "None"); err != nil {
				return err
			}
			return o.activate(ctx, standby, half{name: pair[1-i].name})
		}
	}
	return o.become(ctx, "BothDown", "None")
}

// reexamine takes over a pair of which one database is up.
func (o *timestenOperator) reexamine(ctx context.Context, pair [2]half) error {
	if err := o.become(ctx, "Reexamine", "None"); err != nil {
		return err
	}
	for i, up := range pair {
		other := pair[1-i]
		s := up.status
		if s == nil || other.status == nil || s.Database != "Loaded" || s.Scheme || s.Agent || s.State != "IDLE" || other.status.Database == "Loaded" {
			continue
		}
		return o.activate(ctx, up, other)
	}
	return o.become(ctx, "ManualInterventionRequired", "None")
}

func (o *timestenOperator) become(ctx context.Context, state, active string) error {
	if o.state == state {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"highLevelState": state, "activePods": active}})
	if err != nil {
		return err
	}
	if _, err := o.kube.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(fmt.Sprintf(timestenObject, o.ns) + "/status").Body(patch).DoRaw(ctx); err != nil {
		return err
	}
	o.state = state
	o.note(state)
	return nil
}

// saysNormal waits until the object is Normal with an active pod, as the operator
// tells its users.
func (o *timestenOperator) saysNormal(t *testing.T, active string) {
	t.Helper()
	o.until(2*time.Minute, "the pair is Normal and "+active+" active", func() bool {
		out, err := o.try("get", "ttc", "sample", "-o", "jsonpath={.status.highLevelState} {.status.activePods}")
		return err == nil && out == "Normal "+active
	})
	require.NotContains(t, o.states(), "BothDown")
}
