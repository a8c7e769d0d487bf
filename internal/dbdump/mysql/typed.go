package mysql

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"keepset/internal/dbdump"
)

// MySQL's JSON documents may hold scalars of SQL types: decimals, dates, times
// and bytes. As text they look like numbers and strings, and would come back
// as these. Next to every JSON column the dump therefore asks for the types of
// the scalars in it, where there are such; a row with one is written as an
// INSERT statement that builds its documents.

// typedScalars are the results of JSON_TYPE that JSON text does not express.
const typedScalars = "'DECIMAL', 'DATETIME', 'DATE', 'TIME', 'BLOB', 'BIT', 'OPAQUE'"

// typesExpression is NULL for a document that its text expresses. For others it
// is [type of the whole, [[type, value] of every member of every object],
// [[type, value] of every element of every array]].
func typesExpression(column string) string {
	has := func(path string) string {
		return fmt.Sprintf("EXISTS (SELECT 1 FROM JSON_TABLE(%s, '%s' COLUMNS (v JSON PATH '$')) x WHERE JSON_TYPE(v) IN (%s))", column, path, typedScalars)
	}
	all := func(path string) string {
		return fmt.Sprintf("(SELECT JSON_ARRAYAGG(JSON_ARRAY(JSON_TYPE(v), v)) FROM JSON_TABLE(%s, '%s' COLUMNS (v JSON PATH '$')) x)", column, path)
	}
	return fmt.Sprintf("CASE WHEN JSON_TYPE(%s) IN (%s) OR %s OR %s THEN JSON_ARRAY(JSON_TYPE(%s), %s, %s) END",
		column, typedScalars, has("$**.*"), has("$**[*]"), column, all("$**.*"), all("$**[*]"))
}

// typedWriter takes the rows that text cannot carry.
type typedWriter struct {
	d      *dump
	table  *table
	layout *tableLayout
	name   string
	create func() (*countedStream, error)
	stream *countedStream
	insert string
	buf    []byte
	rows   int64
	sum    checksum
}

// typedPreamble is the preamble of rows: dates that the source took are taken as they are. That of definitions stays
// as it is, since a drill compares them with those of earlier backups.
var typedPreamble = strings.Replace(preamble, preambleMode, "'"+laxSQLMode+"'", 1)

// add writes one row as a statement. values holds the columns of the layout,
// then one answer of typesExpression for every JSON column.
func (w *typedWriter) add(values [][]byte) error {
	if w.stream == nil {
		st, err := w.create()
		if err != nil {
			return err
		}
		w.stream, w.buf = st, []byte(typedPreamble)
		names := make([]string, len(w.layout.columns))
		for i, c := range w.layout.columns {
			names[i] = quoteIdentifier(c.Name)
		}
		w.insert = "INSERT INTO " + quoteIdentifier(w.table.name) + " (" + strings.Join(names, ", ") + ") VALUES ("
	}
	start := len(w.buf)
	w.buf = append(w.buf, w.insert...)
	types := values[len(w.layout.columns):]
	for i, c := range w.layout.columns {
		if i > 0 {
			w.buf = append(w.buf, ", "...)
		}
		var asked []byte
		if c.Encoding == EncodingJSON {
			asked, types = types[0], types[1:]
		}
		text, err := w.literal(w.table.column(c.Name), values[i], asked)
		if err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
		w.buf = append(w.buf, text...)
	}
	w.buf = append(w.buf, ");\n"...)
	w.sum.add(w.buf[start:])
	w.rows++
	if len(w.buf) >= flushAt {
		return w.flush()
	}
	return nil
}

func (w *typedWriter) flush() error {
	_, err := w.stream.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

// finish ends the stream, if there is one: whole when err is nil.
func (w *typedWriter) finish(err error) error {
	if w.stream == nil {
		return err
	}
	if err == nil {
		err = w.flush()
	}
	if err != nil {
		w.stream.Abort(err)
		return err
	}
	return w.stream.Close()
}

// literal writes a value as an SQL expression that gives the column the same
// bytes. types is what typesExpression answered for a JSON column.
func (w *typedWriter) literal(c column, raw, types []byte) (string, error) {
	switch {
	case raw == nil:
		return "NULL", nil
	case types != nil:
		text, err := typedDocument(raw, types, w.d.approximate)
		if err != nil {
			return "", err
		}
		return text, nil
	case c.dataType == "float", c.dataType == "double":
		return doubleLiteral(string(raw)), nil
	case integerTypes[c.dataType], c.dataType == "year":
		return string(raw), nil
	case c.dataType == "json":
		return quoteString(string(raw)), nil
	case c.dataType == "decimal":
		return string(raw), nil
	case len(raw) == 0:
		return "''", nil
	case c.charset != "":
		return fmt.Sprintf("_%s 0x%s", c.charset, appendHex(nil, raw)), nil
	case c.dataType == "binary", strings.HasSuffix(c.dataType, "blob"), c.dataType == "varbinary",
		c.dataType == "bit", c.dataType == "vector", spatialTypes[c.dataType]:
		return "0x" + string(appendHex(nil, raw)), nil
	}
	return quoteString(string(raw)), nil // dates and times
}

// typedDocument is an expression that builds the document with its types.
// approximate is told of types that no expression can give.
func typedDocument(text, types []byte, approximate func(kind string)) (string, error) {
	var asked struct {
		whole    string
		members  [][2]json.RawMessage
		elements [][2]json.RawMessage
	}
	if err := json.Unmarshal(types, &[]any{&asked.whole, &asked.members, &asked.elements}); err != nil {
		return "", fmt.Errorf("read the types of a JSON document: %w", err)
	}
	root, err := parseDocument(text)
	if err != nil {
		return "", err
	}
	root.kind = asked.whole
	members, elements := root.descendants()
	if err := assign(members, asked.members); err != nil {
		return "", err
	}
	if err := assign(elements, asked.elements); err != nil {
		return "", err
	}
	return root.expression(approximate)
}

// document is one value of a JSON document.
type document struct {
	text     []byte
	kind     string // JSON_TYPE
	object   bool
	names    []string
	children []*document
}

// parseDocument keeps the text of every value as the server wrote it.
func parseDocument(text []byte) (*document, error) {
	text = bytes.TrimSpace(text)
	doc := &document{text: text}
	if len(text) == 0 || text[0] != '{' && text[0] != '[' {
		return doc, nil
	}
	doc.object = text[0] == '{'
	decoder := json.NewDecoder(bytes.NewReader(text))
	if _, err := decoder.Token(); err != nil {
		return nil, fmt.Errorf("read a JSON document: %w", err)
	}
	for decoder.More() {
		if doc.object {
			name, err := decoder.Token()
			if err != nil {
				return nil, fmt.Errorf("read a JSON document: %w", err)
			}
			doc.names = append(doc.names, fmt.Sprint(name))
		}
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			return nil, fmt.Errorf("read a JSON document: %w", err)
		}
		child, err := parseDocument(raw)
		if err != nil {
			return nil, err
		}
		doc.children = append(doc.children, child)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, fmt.Errorf("read a JSON document: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read a JSON document: there is more behind its end")
	}
	return doc, nil
}

// descendants lists the members of all objects and the elements of all arrays
// in the order in which the server visits the paths $**.* and $**[*]: first
// those of a value itself, then those of each of its children.
func (d *document) descendants() (members, elements []*document) {
	if d.object {
		members = append(members, d.children...)
	} else {
		elements = append(elements, d.children...)
	}
	for _, c := range d.children {
		m, e := c.descendants()
		members, elements = append(members, m...), append(elements, e...)
	}
	return members, elements
}

// assign gives every value the type that the server said, having made sure
// that they are talking of the same value.
func assign(values []*document, asked [][2]json.RawMessage) error {
	if len(values) != len(asked) {
		return fmt.Errorf("the types of a JSON document could not be told: it has %d values, the server listed %d", len(values), len(asked))
	}
	for i, v := range values {
		if !bytes.Equal(bytes.TrimSpace(asked[i][1]), v.text) {
			return errors.New("the types of a JSON document could not be told: the server lists its values in another order")
		}
		if err := json.Unmarshal(asked[i][0], &v.kind); err != nil {
			return fmt.Errorf("read the types of a JSON document: %w", err)
		}
	}
	return nil
}

// typed tells whether text alone does not express the value.
func (d *document) typed() bool {
	return strings.Contains(typedScalars, "'"+d.kind+"'") || slices.ContainsFunc(d.children, (*document).typed)
}

// expression builds the value.
func (d *document) expression(approximate func(kind string)) (string, error) {
	if !d.typed() {
		return "CAST(" + quoteString(string(d.text)) + " AS JSON)", nil
	}
	if d.children == nil {
		return d.scalar(approximate)
	}
	parts := make([]string, len(d.children))
	for i, c := range d.children {
		e, err := c.expression(approximate)
		if err != nil {
			return "", err
		}
		if d.object {
			e = quoteString(d.names[i]) + ", " + e
		}
		parts[i] = e
	}
	if d.object {
		return "JSON_OBJECT(" + strings.Join(parts, ", ") + ")", nil
	}
	return "JSON_ARRAY(" + strings.Join(parts, ", ") + ")", nil
}

// scalar builds one scalar of an SQL type.
func (d *document) scalar(approximate func(kind string)) (string, error) {
	if d.kind == "DECIMAL" {
		digits := strings.TrimPrefix(string(d.text), "-")
		whole, fraction, _ := strings.Cut(digits, ".")
		return fmt.Sprintf("CAST(CAST(%s AS DECIMAL(%d, %d)) AS JSON)", quoteString(string(d.text)), max(1, len(whole)+len(fraction)), len(fraction)), nil
	}
	var text string
	if err := json.Unmarshal(d.text, &text); err != nil {
		return "", fmt.Errorf("read a JSON document: %w", err)
	}
	switch d.kind {
	case "DATE":
		return "CAST(CAST(" + quoteString(text) + " AS DATE) AS JSON)", nil
	case "TIME", "DATETIME":
		return "CAST(CAST(" + quoteString(text) + " AS " + d.kind + "(6)) AS JSON)", nil
	}
	number, encoded, ok := strings.Cut(strings.TrimPrefix(text, "base64:type"), ":")
	raw, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(encoded, "\n", ""))
	if _, notNumber := strconv.Atoi(number); !ok || err != nil || notNumber != nil {
		return "", fmt.Errorf("a JSON document holds bytes of a form that is not understood (%.20s)", text)
	}
	if number != "15" {
		approximate(number)
	}
	return "CAST(x'" + string(appendHex(nil, raw)) + "' AS JSON)", nil
}

// approximate notes bytes in documents whose column type cannot be given back.
func (d *dump) approximate(kind string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	what := "type " + kind + " of bytes inside JSON documents: the bytes are kept, as VARBINARY; no expression makes others"
	if !slices.Contains(d.report.Omitted, what) {
		d.report.Omitted = append(d.report.Omitted, what)
	}
}

// typesKnown tells whether the server can say what types a document holds.
func (d *dump) typesKnown() bool { return !d.server.MariaDB() && d.server.AtLeast(8, 0, 4) }

// newTyped makes the writer for a piece's typed rows.
func (d *dump) newTyped(ctx context.Context, p piece) *typedWriter {
	name := typedStream(p.table.schema.name, p.table.name, p.part, p.n)
	return &typedWriter{
		d: d, table: p.table, layout: p.layout, name: name,
		create: func() (*countedStream, error) { return d.out.create(ctx, name, dbdump.StreamOptions{}) },
	}
}
