package ebstest

import (
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// parameters are those of an EC2 query: lists are numbered from 1, and the
// members of structures follow after a dot; see
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html.
type parameters url.Values

func (p parameters) get(name string) string { return url.Values(p).Get(name) }

func (p parameters) has(name string) bool { return url.Values(p).Has(name) }

// required is a parameter that must be there.
func (p parameters) required(name string) (string, error) {
	v := p.get(name)
	if v == "" {
		return "", fail("MissingParameter", "The request must contain the parameter %s", name)
	}
	return v, nil
}

// list is the values of name.1, name.2 and so on.
func (p parameters) list(name string) []string {
	var values []string
	for i := 1; p.has(name + "." + strconv.Itoa(i)); i++ {
		values = append(values, p.get(name+"."+strconv.Itoa(i)))
	}
	return values
}

// number is an integer, or 0 where it is missing.
func (p parameters) number(name string) (int64, error) {
	if !p.has(name) {
		return 0, nil
	}
	n, err := strconv.ParseInt(p.get(name), 10, 64)
	if err != nil {
		return 0, fail("InvalidParameterValue", "Value (%s) for parameter %s is invalid. Expected an integer.", p.get(name), name)
	}
	return n, nil
}

// flag is a boolean, or false where it is missing.
func (p parameters) flag(name string) (bool, error) {
	if !p.has(name) {
		return false, nil
	}
	b, err := strconv.ParseBool(p.get(name))
	if err != nil {
		return false, fail("InvalidParameterValue", "Value (%s) for parameter %s is invalid. Expected a boolean.", p.get(name), name)
	}
	return b, nil
}

// pairs reads prefix.N.Key and prefix.N.Value.
func (p parameters) pairs(prefix string) []pair {
	var pairs []pair
	for i := 1; p.has(prefix + "." + strconv.Itoa(i) + ".Key"); i++ {
		at := prefix + "." + strconv.Itoa(i)
		pairs = append(pairs, pair{key: p.get(at + ".Key"), value: p.get(at + ".Value"), hasValue: p.has(at + ".Value")})
	}
	return pairs
}

type pair struct {
	key, value string
	hasValue   bool
}

// specified are the tags that TagSpecification gives to resources of a kind.
func (p parameters) specified(kind string) (map[string]string, error) {
	tags := map[string]string{}
	for i := 1; p.has("TagSpecification." + strconv.Itoa(i) + ".ResourceType"); i++ {
		at := "TagSpecification." + strconv.Itoa(i)
		if got := p.get(at + ".ResourceType"); got != kind {
			return nil, fail("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", got)
		}
		for _, t := range p.pairs(at + ".Tag") {
			if _, twice := tags[t.key]; twice {
				return nil, fail("InvalidParameterValue", "Duplicate tag key '%s' specified.", t.key)
			}
			tags[t.key] = t.value
		}
	}
	return tags, checkTags(tags)
}

// filter is one of a Describe action: the values are alternatives, with * and
// ? as wildcards, and several filters must all match; see
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html.
type filter struct {
	name   string
	values []string
}

func (p parameters) filters() []filter {
	var filters []filter
	for i := 1; p.has("Filter." + strconv.Itoa(i) + ".Name"); i++ {
		at := "Filter." + strconv.Itoa(i)
		filters = append(filters, filter{name: p.get(at + ".Name"), values: p.list(at + ".Value")})
	}
	return filters
}

// matches says whether the attributes (by the filters' names) and tags of a
// resource pass all filters. A name that is unknown is an error, as at AWS.
func matches(filters []filter, attributes map[string]string, tags map[string]string) (bool, error) {
	for _, f := range filters {
		ok, err := f.matches(attributes, tags)
		if err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func (f filter) matches(attributes, tags map[string]string) (bool, error) {
	if key, ok := strings.CutPrefix(f.name, "tag:"); ok {
		value, has := tags[key]
		return has && f.accepts(value), nil
	}
	if f.name == "tag-key" {
		for key := range tags {
			if f.accepts(key) {
				return true, nil
			}
		}
		return false, nil
	}
	value, known := attributes[f.name]
	if !known {
		return false, fail("InvalidParameterValue", "The filter '%s' is invalid", f.name)
	}
	return f.accepts(value), nil
}

func (f filter) accepts(value string) bool {
	return slices.ContainsFunc(f.values, func(pattern string) bool {
		if !strings.ContainsAny(pattern, `*?\`) {
			return pattern == value
		}
		// A slash is no separator for AWS, so it must not be one for Match.
		hide := strings.NewReplacer("/", "\x00", "[", `\[`)
		ok, err := path.Match(hide.Replace(pattern), strings.ReplaceAll(value, "/", "\x00"))
		return err == nil && ok
	})
}
