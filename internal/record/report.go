package record

import "time"

// Report is what an engine says of a dump or a load. It travels, encrypted,
// in the member's [Map], and a load compares against it.
type Report struct {
	// Engine is "mysql", "postgres" or "command".
	Engine string `json:"engine"`
	// Layout names the meaning of stream names, for example "mysql/1".
	Layout string `json:"layout"`
	// Flavor and Version of the server, for example "mariadb" and "10.11.19".
	Flavor  string `json:"flavor,omitempty"`
	Version string `json:"version,omitempty"`
	// Consistency names the recipe that made the dump one point in time,
	// for example "backup-stage", "ftwrl", "lock-tables".
	Consistency string `json:"consistency,omitempty"`
	// CapturedAt is the server's clock at the consistent point.
	CapturedAt time.Time `json:"capturedAt"`
	// LockSeconds is how long writers were held up.
	LockSeconds float64     `json:"lockSeconds,omitempty"`
	Coordinates Coordinates `json:"coordinates"`
	// Objects are all objects of the dump in an order in which they can be
	// created.
	Objects []Object `json:"objects"`
	// Omitted lists every class of object that the dump left out, and why. Never silent.
	Omitted  []string `json:"omitted,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Doubts are what keeps the capture from being good, although it was made: a
	// file that could not be read, say.
	Doubts []string `json:"doubts,omitempty"`
	Rows   int64    `json:"rows"`
	// Bytes of the streams before compression.
	Bytes int64 `json:"bytes"`
}

// KindStream is the kind of an object of which nothing is known but its bytes.
const KindStream = "stream"

// Object is one thing in a dump: a schema, a table, a view, a user.
type Object struct {
	// Kind is one of the engine's kinds, for example "schema", "table",
	// "view", "trigger", "routine", "event", "sequence", "user".
	Kind   string `json:"kind"`
	Schema string `json:"schema,omitempty"`
	Name   string `json:"name,omitempty"`
	// DDL is the stream that creates the object.
	DDL string `json:"ddl,omitempty"`
	// Data are the streams with its rows, in key order.
	Data []string `json:"data,omitempty"`
	// Columns are the columns of the data streams, in order.
	Columns []Column `json:"columns,omitempty"`
	// Rows counted inside the consistent read; -1 where rows do not apply.
	Rows int64 `json:"rows"`
	// Checksum of the content where the engine computes one.
	Checksum string `json:"checksum,omitempty"`
	// Attributes are engine-specific facts that a load needs.
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Column is one column of a data stream.
type Column struct {
	Name string `json:"name"`
	// Type is the server's column type, for example "float unsigned".
	Type string `json:"type"`
	// Encoding says how the stream holds the values; the engine's layout
	// defines the names. Empty: the server's text as bytes.
	Encoding string `json:"encoding,omitempty"`
}

// Coordinates are the replication position of a dump: where a copy of this
// server would have to continue.
type Coordinates struct {
	// Own position: what a follower of the dumped server continues from.
	GTID     string `json:"gtid,omitempty"`
	File     string `json:"file,omitempty"`
	Position uint64 `json:"position,omitempty"`
	// ServerUUID or server id of the dumped server.
	Server string `json:"server,omitempty"`
	// Upstream is set when the dumped server was itself a follower: what a
	// sibling continues from.
	Upstream *UpstreamCoordinates `json:"upstream,omitempty"`
	// OtherUpstreams are what it followed beside the first one.
	OtherUpstreams []UpstreamCoordinates `json:"otherUpstreams,omitempty"`
}

// UpstreamCoordinates are a follower's position in its own upstream.
type UpstreamCoordinates struct {
	// Channel is its name where a server follows several.
	Channel  string `json:"channel,omitempty"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	GTID     string `json:"gtid,omitempty"`
	File     string `json:"file,omitempty"`
	Position uint64 `json:"position,omitempty"`
	// Running is false when replication was stopped or broken at the time.
	Running bool `json:"running"`
	// LagSeconds is -1 when the server could not say.
	LagSeconds int64 `json:"lagSeconds"`
}
