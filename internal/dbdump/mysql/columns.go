package mysql

import (
	"slices"
	"strings"

	"keepset/internal/record"
)

// spatialTypes hold geometries.
var spatialTypes = map[string]bool{
	"geometry": true, "point": true, "linestring": true, "polygon": true, "multipoint": true,
	"multilinestring": true, "multipolygon": true, "geometrycollection": true, "geomcollection": true,
}

// dataColumns are the columns of a table's data streams, and the expressions
// that read them.
func (d *dump) dataColumns(t *table) (columns []record.Column, expressions []string) {
	for _, c := range t.columns {
		if c.generated() || (c.period() && !t.keepsHistory()) {
			continue
		}
		encoding, expression := d.encoding(c)
		columns = append(columns, record.Column{Name: c.name, Type: c.columnType, Encoding: encoding})
		expressions = append(expressions, expression)
	}
	if t.keepsHistory() && !slices.ContainsFunc(t.columns, column.period) {
		for _, name := range []string{"row_start", "row_end"} {
			columns = append(columns, record.Column{Name: name, Type: "timestamp(6)"})
			expressions = append(expressions, quoteIdentifier(name))
		}
	}
	return columns, expressions
}

// keepsHistory tells whether the rows of the past are dumped with their times.
// History by transaction number means nothing in another server.
func (t *table) keepsHistory() bool {
	if !t.versioned() {
		return false
	}
	return !slices.ContainsFunc(t.columns, func(c column) bool { return c.period() && c.dataType != "timestamp" })
}

// encoding says how a column is written and read.
func (d *dump) encoding(c column) (encoding, expression string) {
	name := quoteIdentifier(c.name)
	switch {
	case c.dataType == "bit", c.dataType == "vector", spatialTypes[c.dataType]:
		return EncodingHex, name
	case c.dataType == "float" && d.server.MariaDB():
		// MariaDB reads and writes minus zero as zero. A FLOAT holds it all the same,
		// where a negative number was too small for it, and gets it back that way.
		return EncodingDouble, "IF(" + name + " = 0 AND ATAN2(" + name + ", -1) < 0, -1e-50, " + name + " * 1e0)"
	case c.dataType == "float", c.dataType == "double":
		// As a column, FLOAT is sent with six digits and FLOAT(M,D) with D.
		// Multiplied, it is a double with all of them, and keeps its sign.
		return EncodingDouble, name + " * 1e0"
	case integerTypes[c.dataType] && strings.Contains(c.columnType, "zerofill"):
		return EncodingRaw, name + " + 0"
	case c.dataType == "json" && !d.server.MariaDB():
		return EncodingJSON, name
	case c.dataType == "uuid", c.dataType == "inet4", c.dataType == "inet6":
		// Their text is no text of a character set: sent as bytes the server
		// takes it for the stored form.
		return EncodingJSON, name
	}
	return EncodingRaw, name
}
