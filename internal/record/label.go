package record

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Labels are what a user says of a backup, key=value, as of an object in Kubernetes.
type Labels map[string]string

// mostLabels bounds them, since every listing reads all.
const mostLabels = 32

var (
	labelKey   = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)
	labelValue = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$`)
)

// ParseLabels reads key=value pairs.
func ParseLabels(pairs []string) (Labels, error) {
	var l Labels
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want key=value", pair)
		}
		if other, twice := l[key]; twice && other != value {
			return nil, fmt.Errorf("%q: %s is %q already", pair, key, other)
		}
		if l == nil {
			l = Labels{}
		}
		l[key] = value
	}
	return l, l.validate()
}

func (l Labels) validate() error {
	if len(l) > mostLabels {
		return fmt.Errorf("%w: %d labels, and at most %d are kept", ErrInvalid, len(l), mostLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(l)) {
		if !labelKey.MatchString(key) || !labelValue.MatchString(l[key]) {
			return fmt.Errorf("%w: label %q: want letters, digits, '-', '_' and '.', at most 63 on each side, as in Kubernetes", ErrInvalid, key+"="+l[key])
		}
	}
	return nil
}

// String is key=value, in order, with commas between.
func (l Labels) String() string {
	var b strings.Builder
	for i, key := range slices.Sorted(maps.Keys(l)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(key + "=" + l[key])
	}
	return b.String()
}

// LabelSelector chooses backups by a label: of this key and value, or with any
// value of the key.
type LabelSelector struct {
	Key, Value string
	Any        bool
}

// ParseLabelSelectors reads key=value, and key alone for any value.
func ParseLabelSelectors(texts []string) ([]LabelSelector, error) {
	var list []LabelSelector
	for _, text := range texts {
		key, value, exact := strings.Cut(text, "=")
		if err := (Labels{key: value}).validate(); err != nil {
			return nil, err
		}
		list = append(list, LabelSelector{Key: key, Value: value, Any: !exact})
	}
	return list, nil
}

// Selects says whether the labels are what is asked for.
func (s LabelSelector) Selects(l Labels) bool {
	value, ok := l[s.Key]
	return ok && (s.Any || value == s.Value)
}

// String is the selector as it is written.
func (s LabelSelector) String() string {
	if s.Any {
		return s.Key
	}
	return s.Key + "=" + s.Value
}
