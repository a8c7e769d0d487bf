package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ParseLine reads a command as users write it, in the two forms that they know
// from container images: a line for the shell, or a JSON list of arguments,
// which is run without one.
func ParseLine(text string) ([]string, error) {
	trimmed := strings.TrimSpace(text)
	switch {
	case trimmed == "":
		return nil, errors.New("the command is empty")
	case strings.ContainsRune(text, 0):
		return nil, errors.New("the command holds a NUL byte")
	}
	inner, list := strings.CutPrefix(trimmed, "[")
	if !list || !strings.HasPrefix(strings.TrimSpace(inner), `"`) { // [ is also a program
		return []string{"sh", "-c", text}, nil
	}
	var argv []string
	if err := json.Unmarshal([]byte(trimmed), &argv); err != nil {
		return nil, fmt.Errorf("the command begins like a JSON list of arguments and is none: %w", err)
	}
	if argv[0] == "" {
		return nil, errors.New("the command's program has no name")
	}
	if slices.ContainsFunc(argv, func(a string) bool { return strings.ContainsRune(a, 0) }) {
		return nil, errors.New("the command holds a NUL byte")
	}
	return argv, nil
}
