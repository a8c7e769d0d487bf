package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/timesten"
	"keepset/internal/statefulset"
)

// TimesTenFlags say who manages the pair that a database is restored into.
type TimesTenFlags struct {
	Object string
	Wait   time.Duration
}

// Add declares the flags.
func (f *TimesTenFlags) Add(fs *pflag.FlagSet) {
	fs.StringVar(&f.Object, "timesten-object", "", "TimesTenClassic object of the set: with --replace its operator is suspended, the --target pod's database destroyed and restored, and handed back")
	fs.DurationVar(&f.Wait, "timesten-operator-wait", time.Hour, "how long that operator may take to let go, and to bring the restored database and its standby up")
}

// check finds flags that do not go together.
func (f *TimesTenFlags) check(preset, target string, replace bool) error {
	switch {
	case f.Object == "":
		return nil
	case preset != presetTimesTen:
		return Usage("--timesten-object goes with --command-preset %s", presetTimesTen)
	case !strings.HasPrefix(target, "pod/"):
		return Usage("--timesten-object wants a pod of the set for --target, pod/NAME")
	case !replace:
		return Usage("the database of %s would be destroyed and restored: --replace (or %s=true) says that it may", target, EnvName("replace"))
	case f.Wait <= 0:
		return Usage("--timesten-operator-wait has to be more than nothing")
	}
	return nil
}

// pair is the restore's other half: the operator, and the set's other pods.
func (f *TimesTenFlags) pair(ctx context.Context, a *App, client *statefulset.Client, set, target, container string) (timesten.Pair, error) {
	p := timesten.Pair{
		Operator: &timestenOperator{client: client, name: f.Object, wait: f.Wait, now: a.Clock},
		Others:   map[string]command.Exec{}, Log: a.Log,
	}
	found, err := client.Discover(ctx, set, endpointOf(command.Name, container, 0))
	if err != nil {
		return p, err
	}
	pods := make([]string, len(found.Members))
	for i, m := range found.Members {
		pods[i] = m.Pod.Name
		if m.Pod.Name != target {
			p.Others[m.Pod.Name] = inContainer(client, m.Pod.Name, container)
		}
	}
	if !slices.Contains(pods, target) {
		return p, Usage("--target pod/%s is no pod of the set %s, which has %s", target, set, strings.Join(pods, ", "))
	}
	return p, nil
}

// What the operator's states are called (operator's guide, "Monitor the High
// Level State of TimesTenClassic Objects").
const (
	stateNormal = "Normal"
	stateManual = "ManualInterventionRequired"
)

// timestenOperator speaks to Oracle's operator through its object.
type timestenOperator struct {
	client *statefulset.Client
	name   string
	wait   time.Duration
	now    func() time.Time
}

func (o *timestenOperator) object() statefulset.Custom {
	return statefulset.Custom{Group: "timesten.oracle.com", Version: "v1", Resource: "timestenclassics", Name: o.name}
}

// Suspend implements [timesten.Operator].
func (o *timestenOperator) Suspend(ctx context.Context) error {
	object, err := o.client.Read(ctx, o.object())
	if err != nil {
		return err
	}
	if highLevelState(object) == stateManual {
		return nil // another attempt's doing, or a person's
	}
	if err := o.say(ctx, "stopManaging"); err != nil {
		return err
	}
	return o.client.Await(ctx, o.object(), o.wait, func(object *unstructured.Unstructured) (bool, string, error) {
		state := highLevelState(object)
		return state == stateManual, fmt.Sprintf("its state is %s, not yet %s", state, stateManual), nil
	})
}

// HandBack implements [timesten.Operator]. An operator that does not like what it
// sees says so by falling back to the state that it was in.
func (o *timestenOperator) HandBack(ctx context.Context) error {
	if err := o.say(ctx, "reexamine"); err != nil {
		return err
	}
	looked := false
	return o.client.Await(ctx, o.object(), o.wait, func(object *unstructured.Unstructured) (bool, string, error) {
		state := highLevelState(object)
		if looked && state == stateManual {
			return false, "", fmt.Errorf("it looked at the databases and went back to %s: its Events say why (kubectl describe ttc %s)", stateManual, o.name)
		}
		looked = looked || state != stateManual
		return state == stateNormal, fmt.Sprintf("its state is %s, not yet %s", state, stateNormal), nil
	})
}

// say sets a field that the operator acts upon whenever its value changes.
func (o *timestenOperator) say(ctx context.Context, field string) error {
	value := "keepset-" + o.now().UTC().Format("20060102T150405.000")
	return o.client.Merge(ctx, o.object(), map[string]any{"spec": map[string]any{"ttspec": map[string]any{field: value}}})
}

func highLevelState(object *unstructured.Unstructured) string {
	state, _, _ := unstructured.NestedString(object.Object, "status", "highLevelState") // none is the empty state
	return orDefault(state, "unknown")
}
