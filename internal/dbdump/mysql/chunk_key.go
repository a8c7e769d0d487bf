package mysql

import (
	"fmt"
	"strings"
)

// keyPart is one column of a key and its value at a boundary, as a literal
// that compares with the column as the column's own values do.
type keyPart struct {
	column  string
	read    string
	value   string
	literal func(string) string
}

func newKeyPart(c column) keyPart {
	name := quoteIdentifier(c.name)
	k := keyPart{column: name, read: name}
	switch {
	case c.charset != "" && c.dataType != "enum" && c.dataType != "set":
		// The bytes as they are, in the column's own character set and order.
		k.read = "HEX(" + name + ")"
		k.literal = func(v string) string { return fmt.Sprintf("_%s 0x%s COLLATE %s", c.charset, v, c.collation) }
		k.literal = emptyHex(k.literal, fmt.Sprintf("_%s '' COLLATE %s", c.charset, c.collation))
	case c.dataType == "binary", c.dataType == "varbinary":
		k.read = "HEX(" + name + ")"
		k.literal = emptyHex(func(v string) string { return "_binary 0x" + v }, "_binary ''")
	case c.dataType == "enum", c.dataType == "set", c.dataType == "bit":
		k.read = name + " + 0"
		k.literal = func(v string) string { return v }
	case c.dataType == "float", c.dataType == "double":
		// Sent as a number, for CAST AS CHAR makes it 22 characters: MySQL then
		// rounds away digits, and a boundary may come to lie before its own row.
		k.read = name + " * 1e0"
		k.literal = func(v string) string { return doubleLiteral(v) }
	case integerTypes[c.dataType], c.dataType == "decimal", c.dataType == "year":
		k.literal = func(v string) string { return v }
	default:
		// Dates, times, UUIDs, addresses: text that the server reads back.
		k.literal = quoteString
	}
	return k
}

// cuttable tells whether literals compare with a column as its own values do.
// Servers compare a SET with a number as doubles, which tell 53 members apart;
// of 64, the last one is the sign.
func cuttable(c column) bool {
	// No member holds a comma.
	return c.dataType != "set" || strings.Count(c.columnType, ",") < 53
}

// emptyHex stands in for 0x without digits, which is no literal.
func emptyHex(literal func(string) string, empty string) func(string) string {
	return func(v string) string {
		if v == "" {
			return empty
		}
		return literal(v)
	}
}

// doubleLiteral makes sure that the number is read as a double, not a decimal.
func doubleLiteral(v string) string {
	if strings.ContainsAny(v, "eE") {
		return v
	}
	return v + "e0"
}

// after is the condition of the rows behind the boundary, in the key's order.
// It is written out, since servers do not use an index for (a, b) > (x, y).
func after(parts []keyPart) string {
	last := len(parts) - 1
	cond := parts[last].column + " > " + parts[last].value
	for i := last - 1; i >= 0; i-- {
		p := parts[i]
		cond = fmt.Sprintf("%s > %s OR (%s = %s AND (%s))", p.column, p.value, p.column, p.value, cond)
	}
	return "(" + cond + ")"
}

// upTo is the negation of after.
func upTo(parts []keyPart) string {
	last := len(parts) - 1
	cond := parts[last].column + " <= " + parts[last].value
	for i := last - 1; i >= 0; i-- {
		p := parts[i]
		cond = fmt.Sprintf("%s < %s OR (%s = %s AND (%s))", p.column, p.value, p.column, p.value, cond)
	}
	return "(" + cond + ")"
}
