package timesten

import (
	"fmt"
	"strings"
)

// Answer is what a pod's database said of its state, or why it said nothing.
type Answer struct {
	Pod   string
	State State
	Err   error
}

// Choose finds the database that a backup is taken of, as its place in the list:
// the only active one, or the only one that there is. Two active ones have been
// apart, and which is right is not ours to guess.
func Choose(answers []Answer) (int, error) {
	chosen, found := -1, 0
	said := make([]string, 0, len(answers))
	for i, a := range answers {
		alone := a.State == Idle && len(answers) == 1
		if a.Err == nil && (a.State == Active || alone) {
			chosen = i
			found++
		}
		what := string(a.State)
		if a.Err != nil {
			what = a.Err.Error()
		}
		said = append(said, a.Pod+": "+what)
	}
	if found != 1 {
		return -1, fmt.Errorf("%w: %d databases of the set are %s (%s); name one with --ordinals if you know better", ErrState, found, Active, strings.Join(said, "; "))
	}
	return chosen, nil
}
