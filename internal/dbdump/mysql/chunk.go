package mysql

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"

	"keepset/internal/record"
)

// tableLayout is what all pieces of a table share, and where they report.
type tableLayout struct {
	columns     []record.Column
	expressions string
	encodings   []fieldEncoding

	// json are the columns whose types are asked for, see typed.go.
	json int

	mu      sync.Mutex
	streams []string
	typed   []string
	rows    int64
	sum     checksum
}

// add notes streams that are complete; a name is empty where there is none.
func (l *tableLayout) add(stream, typed string, rows int64, sum checksum) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stream != "" {
		l.streams = append(l.streams, stream)
	}
	if typed != "" {
		l.typed = append(l.typed, typed)
	}
	l.rows += rows
	l.sum += sum
}

// piece is a range of a table's rows that one query reads.
type piece struct {
	table  *table
	layout *tableLayout
	// part is the number of the partition, n that of the range within it.
	part, n int
	// partition restricts the query; empty: the whole table.
	partition string
	// key orders the rows; nil leaves the order to the engine.
	key *key
	// low and high are conditions; empty: no bound. Of two neighbours, one's
	// high is the negation of the other's low.
	low, high string
}

// query is the statement that reads the piece.
func (p piece) query() string {
	var b strings.Builder
	b.WriteString("SELECT ")
	b.WriteString(p.layout.expressions)
	b.WriteString(" FROM ")
	b.WriteString(p.table.from(p.partition, p.key))
	b.WriteString(p.where())
	if p.key != nil {
		b.WriteString(" ORDER BY ")
		b.WriteString(p.key.list())
	}
	return b.String()
}

// where is the condition of the range, empty without one.
func (p piece) where() string {
	conditions := slices.DeleteFunc([]string{p.low, p.high}, func(s string) bool { return s == "" })
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

// from is the table reference of a query, with partition, history and index.
func (t *table) from(partition string, k *key) string {
	ref := t.String()
	if partition != "" {
		ref += " PARTITION (" + quoteIdentifier(partition) + ")"
	}
	if t.keepsHistory() { // else only the present is read
		ref += " FOR SYSTEM_TIME ALL"
	}
	if k != nil {
		ref += " FORCE INDEX (" + quoteIdentifier(k.name) + ")"
	}
	return ref
}

// list is the key's columns for ORDER BY.
func (k *key) list() string {
	quoted := make([]string, len(k.columns))
	for i, c := range k.columns {
		quoted[i] = quoteIdentifier(c)
	}
	return strings.Join(quoted, ", ")
}

// clustered is the key whose order is that of the rows on disk: the primary
// key, or what InnoDB takes in its place. Only such a key is worth reading by.
func (t *table) clustered() *key {
	if !t.transactional || t.versioned() {
		return nil
	}
	for i := range t.keys {
		if t.keys[i].usable {
			return &t.keys[i]
		}
		if t.keys[i].name == "PRIMARY" {
			return nil
		}
	}
	return nil
}

// planTable cuts a table into pieces and hands them to emit, in order.
func (d *dump) planTable(ctx context.Context, s *session, t *table, emit func(piece) error) error {
	columns, expressions := d.dataColumns(t)
	layout := &tableLayout{columns: columns, encodings: fieldEncodings(columns, t)}
	if d.typesKnown() {
		for _, c := range columns {
			if c.Encoding == EncodingJSON {
				expressions = append(expressions, typesExpression(quoteIdentifier(c.Name)))
				layout.json++
			}
		}
	}
	layout.expressions = strings.Join(expressions, ", ")
	d.mu.Lock()
	d.layouts[t] = layout
	d.mu.Unlock()
	whole := piece{table: t, layout: layout, key: t.clustered()}
	if len(t.partitions) == 0 || t.versioned() {
		return d.planRange(ctx, s, whole, t.rows, emit)
	}
	for i, part := range t.partitions {
		p := whole
		p.part, p.partition = i, part.name
		if err := d.planRange(ctx, s, p, part.rows, emit); err != nil {
			return err
		}
	}
	return nil
}

// planRange cuts one partition, or a table without any. rows is an estimate
// and decides nothing but the size of the pieces.
func (d *dump) planRange(ctx context.Context, s *session, p piece, rows int64, emit func(piece) error) error {
	perPiece := d.rowsPerPiece(p.table)
	if p.key == nil || rows < perPiece+perPiece/2 {
		return emit(p)
	}
	return s.scoped(ctx, func(ctx context.Context, s *session) error {
		first := p.table.column(p.key.columns[0])
		if integerTypes[first.dataType] {
			done, err := d.planIntegers(ctx, s, p, first, rows, perPiece, emit)
			if done || err != nil {
				return err
			}
		}
		_, err := d.planSamples(ctx, s, p, perPiece, emit)
		return err
	})
}

// rowsPerPiece is how many rows make ChunkBytes.
func (d *dump) rowsPerPiece(t *table) int64 {
	width := int64(1)
	if t.rows > 0 {
		width = max(1, t.size/t.rows)
	}
	return max(1, d.opts.ChunkBytes/width)
}

func (t *table) column(name string) column {
	for _, c := range t.columns {
		if strings.EqualFold(c.name, name) {
			return c
		}
	}
	return column{}
}

var integerTypes = map[string]bool{"tinyint": true, "smallint": true, "mediumint": true, "int": true, "bigint": true}

// planIntegers cuts at multiples of a power of two: replicas and later dumps,
// whose estimates differ a little, mostly cut at the same keys. The values
// span up to 64 bits, signed or not, hence big integers.
//
// It declines (done is false) where the key's first column does not cut the
// table well: a single value would be a piece that is too large.
func (d *dump) planIntegers(ctx context.Context, s *session, p piece, first column, rows, perPiece int64, emit func(piece) error) (done bool, err error) {
	name := quoteIdentifier(first.name)
	var low, high *string
	query := fmt.Sprintf("SELECT MIN(%s), MAX(%s) FROM %s", name, name, p.table.from(p.partition, p.key))
	if err := s.queryRow(ctx, query, &low, &high); err != nil {
		return false, fmt.Errorf("plan table %s: %w", p.table, err)
	}
	if low == nil || high == nil {
		return true, emit(p)
	}
	from, to := new(big.Int), new(big.Int)
	if _, ok := from.SetString(*low, 10); !ok {
		return false, fmt.Errorf("plan table %s: key %s is not an integer", p.table, first.name)
	}
	if _, ok := to.SetString(*high, 10); !ok {
		return false, fmt.Errorf("plan table %s: key %s is not an integer", p.table, first.name)
	}
	span := new(big.Int).Add(new(big.Int).Sub(to, from), big.NewInt(1))
	pieces := (rows-1)/perPiece + 1
	step := powerOfTwo(new(big.Int).Div(span, big.NewInt(pieces)))
	if len(p.key.columns) > 1 && span.Cmp(big.NewInt(4*pieces)) < 0 {
		return false, nil
	}
	bound := new(big.Int).Mul(new(big.Int).Add(new(big.Int).Div(from, step), big.NewInt(1)), step)
	for ; bound.Cmp(to) <= 0; bound.Add(bound, step) {
		p.high = fmt.Sprintf("%s < %s", name, bound)
		if p.n, err = d.planDense(ctx, s, p, perPiece, emit); err != nil {
			return false, err
		}
		p.low = fmt.Sprintf("%s >= %s", name, bound)
	}
	p.high = ""
	_, err = d.planDense(ctx, s, p, perPiece, emit)
	return true, err
}

// dense is how many times the size aimed at a range must have, by the
// optimizer's estimate, to be cut further: keys may cluster.
const dense = 4

// planDense emits a range of integers, or cuts it at sampled keys when most
// rows are in it. It returns the number of the next piece.
func (d *dump) planDense(ctx context.Context, s *session, p piece, perPiece int64, emit func(piece) error) (int, error) {
	explain := "EXPLAIN "
	if !d.server.MariaDB() {
		explain = "EXPLAIN FORMAT=TRADITIONAL "
	}
	var rows int64
	// Not with FORCE INDEX: MySQL then takes a guess instead of a look.
	query := explain + "SELECT 1 FROM " + p.table.from(p.partition, nil) + p.where()
	err := s.each(ctx, query, func(r row) error {
		rows = number(r.get("rows"))
		return nil
	})
	if err != nil {
		return p.n, fmt.Errorf("plan table %s: %w", p.table, err)
	}
	if rows > dense*perPiece {
		return d.planSamples(ctx, s, p, perPiece, emit)
	}
	return p.n + 1, emit(p)
}

// powerOfTwo is the largest power of two not above v, at least 1.
func powerOfTwo(v *big.Int) *big.Int {
	n := v.BitLen()
	if v.Sign() <= 0 || n == 0 {
		return big.NewInt(1)
	}
	return new(big.Int).Lsh(big.NewInt(1), uint(n-1))
}

// planSamples walks the key and cuts after every perPiece rows, within the
// bounds of p. It works for nearly every type and any number of columns, since
// the server itself compares. It returns the number of the next piece.
//
// A boundary that comes again means that the server does not see its row behind
// it: cutting ends there, and what remains is one piece. So there are never more
// pieces than rows, whatever a server makes of a literal.
func (d *dump) planSamples(ctx context.Context, s *session, p piece, perPiece int64, emit func(piece) error) (int, error) {
	parts := make([]keyPart, len(p.key.columns))
	selects := make([]string, len(parts))
	for i, name := range p.key.columns {
		c := p.table.column(name)
		if !cuttable(c) {
			return p.n + 1, emit(p)
		}
		parts[i] = newKeyPart(c)
		selects[i] = parts[i].read
	}
	from, end := p.table.from(p.partition, p.key), p.high
	seen := map[[sha256.Size]byte]bool{} // keys can be long, and the boundaries many
	for ; ; p.n++ {
		p.high = end
		query := fmt.Sprintf("SELECT %s FROM %s%s ORDER BY %s LIMIT %d, 1", strings.Join(selects, ", "), from, p.where(), p.key.list(), perPiece-1)
		found := false
		err := s.each(ctx, query, func(r row) error {
			found = true
			for i := range parts {
				parts[i].value = parts[i].literal(r.at(i))
			}
			return nil
		})
		if err != nil {
			return p.n, fmt.Errorf("plan table %s: %w", p.table, err)
		}
		bound := upTo(parts)
		sum := sha256.Sum256([]byte(bound))
		if found && seen[sum] {
			found = false
			d.log.Warn("a table is cut no further: the server does not compare a key with its own value as expected", "table", p.table.String(), "boundary", bound)
		}
		if !found {
			return p.n + 1, emit(p)
		}
		seen[sum] = true
		p.high = bound
		if err := emit(p); err != nil {
			return p.n, err
		}
		p.low = after(parts)
	}
}
