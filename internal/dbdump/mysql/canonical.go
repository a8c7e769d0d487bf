package mysql

import "regexp"

// namedCharset is what MySQL writes before the collation of a column for as long
// as a table's definition names it, and leaves out for one that got the
// collation of its table: a copy is made from the former, and so shows it. The
// collation says which character set it is of.
var namedCharset = regexp.MustCompile(` CHARACTER SET \w+( COLLATE \w+)`)

// Canonical implements dbdump.Definer.
func (e *Engine) Canonical(definition []byte) []byte {
	return namedCharset.ReplaceAll(definition, []byte("$1"))
}
