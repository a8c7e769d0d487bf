package ebstest

import (
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// element is a piece of a reply in XML.
type element struct {
	name     string
	text     string
	children []element
}

// text is an element with a value. Times are written as AWS writes them.
func text(name string, value any) element {
	if t, ok := value.(time.Time); ok {
		value = t.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return element{name: name, text: fmt.Sprint(value)}
}

// group is an element with children.
func group(name string, children ...element) element {
	return element{name: name, children: children}
}

// list is an element with one item for each value.
func list[T any](name string, values []T, item func(T) []element) element {
	e := element{name: name}
	for _, v := range values {
		e.children = append(e.children, group("item", item(v)...))
	}
	return e
}

// tagSet is a resource's tags in the order of their keys.
func tagSet(tags map[string]string) element {
	return list("tagSet", slices.Sorted(maps.Keys(tags)), func(key string) []element {
		return []element{text("key", key), text("value", tags[key])}
	})
}

// optional is nothing for a zero value, as AWS leaves such elements out.
func optional[T comparable](name string, value T) []element {
	var zero T
	if value == zero {
		return nil
	}
	return []element{text(name, value)}
}

func (e element) write(b *strings.Builder) {
	b.WriteString("<" + e.name + ">")
	_ = xml.EscapeText(b, []byte(e.text)) // a builder takes everything
	for _, child := range e.children {
		child.write(b)
	}
	b.WriteString("</" + e.name + ">")
}

// queryReply is the document of an action's answer; see
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html.
func queryReply(action, requestID string, body []element) []byte {
	var b strings.Builder
	b.WriteString(xml.Header)
	fmt.Fprintf(&b, `<%sResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">`, action)
	text("requestId", requestID).write(&b)
	for _, e := range body {
		e.write(&b)
	}
	fmt.Fprintf(&b, "</%sResponse>", action)
	return []byte(b.String())
}

// queryError is the document of an error.
func queryError(e *Error, requestID string) []byte {
	var b strings.Builder
	b.WriteString(xml.Header)
	group("Response",
		group("Errors", group("Error", text("Code", e.Code), text("Message", e.Message))),
		text("RequestID", requestID),
	).write(&b)
	return []byte(b.String())
}
