package ebstest

import (
	"maps"
	"slices"
	"strings"
)

// checkTags holds tags to AWS's rules: at most 50, keys of 1 to 128 and values
// of up to 256 characters, and none that begins with aws:; see
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions.
func checkTags(tags map[string]string) error {
	if len(tags) > 50 {
		return fail("TagLimitExceeded", "More than 50 tags specified")
	}
	for key, value := range tags {
		switch {
		case strings.HasPrefix(key, "aws:"):
			return fail("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
		case key == "" || len([]rune(key)) > 128:
			return fail("InvalidParameterValue", "Tag key exceeds the maximum length of 128 characters")
		case len([]rune(value)) > 256:
			return fail("InvalidParameterValue", "Tag value exceeds the maximum length of 256 characters")
		}
	}
	return nil
}

// tagged finds the tags of the caller's resources, or fails with the code
// for the first that does not exist.
func (s *Server) tagged(q *request, ids []string) ([]map[string]string, error) {
	var tags []map[string]string
	for _, id := range ids {
		var err error
		switch {
		case strings.HasPrefix(id, "vol-"):
			var v *volume
			if v, err = s.volume(q.Place, id); err == nil {
				tags = append(tags, v.Tags)
			}
		case strings.HasPrefix(id, "snap-"):
			var n *snapshot
			if n, err = s.snapshot(q.Place, id); err == nil {
				tags = append(tags, n.Tags)
			}
		default:
			err = fail("InvalidID", "The ID '%s' is not valid", id)
		}
		if err != nil {
			return nil, err
		}
	}
	return tags, nil
}

func (s *Server) createTags(q *request) ([]element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resources, err := s.tagged(q, q.p.list("ResourceId"))
	if err != nil {
		return nil, err
	}
	given := map[string]string{}
	for _, t := range q.p.pairs("Tag") {
		given[t.key] = t.value
	}
	if err := checkTags(given); err != nil {
		return nil, err
	}
	for _, tags := range resources {
		all := maps.Clone(tags)
		maps.Copy(all, given)
		if err := checkTags(all); err != nil {
			return nil, err
		}
	}
	for _, tags := range resources {
		maps.Copy(tags, given)
	}
	return []element{text("return", true)}, s.save()
}

// deleteTags deletes a key whatever its value when no value is given, with one
// only if the value is the same, and without keys all of them; see the comment
// of DeleteTagsInput.
func (s *Server) deleteTags(q *request) ([]element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resources, err := s.tagged(q, q.p.list("ResourceId"))
	if err != nil {
		return nil, err
	}
	pairs := q.p.pairs("Tag")
	for _, tags := range resources {
		maps.DeleteFunc(tags, func(key, value string) bool {
			return len(pairs) == 0 || slices.ContainsFunc(pairs, func(p pair) bool {
				return p.key == key && (!p.hasValue || p.value == value)
			})
		})
	}
	return []element{text("return", true)}, s.save()
}

// describeTags lists the tags of volumes and snapshots.
func (s *Server) describeTags(q *request) ([]element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	type row struct{ kind, id, key, value string }
	var rows []row
	var failed error
	add := func(kind, id string, tags map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(tags)) {
			ok, err := matches(q.p.filters(), map[string]string{
				"resource-type": kind, "resource-id": id, "key": key, "value": tags[key],
			}, map[string]string{key: tags[key]})
			if ok {
				rows = append(rows, row{kind, id, key, tags[key]})
			}
			if err != nil {
				failed = err
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.state.Volumes)) {
		if v, err := s.volume(q.Place, id); err == nil {
			add("volume", id, v.Tags)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.state.Snapshots)) {
		if n, err := s.snapshot(q.Place, id); err == nil {
			add("snapshot", id, n.Tags)
		}
	}
	if failed != nil {
		return nil, failed
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.id+" "+a.key, b.id+" "+b.key) })
	rows, next, err := page(s, q, "", rows, func(r row) string { return r.id + " " + r.key })
	if err != nil {
		return nil, err
	}
	body := []element{list("tagSet", rows, func(r row) []element {
		return []element{
			text("resourceId", r.id), text("resourceType", r.kind), text("key", r.key), text("value", r.value),
		}
	})}
	return append(body, next...), nil
}
