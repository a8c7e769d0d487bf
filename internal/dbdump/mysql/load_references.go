package mysql

import "strings"

// references are the names that a view's definition uses, read from its text: SHOW CREATE VIEW writes every table as
// `schema`.`table`, followed by its alias if it has one.
type references struct {
	pairs   [][2]string       // schema and table, or alias and column: the text alone does not tell
	aliases map[string]string // alias -> "schema\x00table"
}

// viewReferences reads the statement that creates the view.
func viewReferences(statements []string) (references, error) {
	refs := references{aliases: make(map[string]string)}
	quote := quoting{}
	for _, statement := range statements {
		next := quote.after(statement)
		tokens, err := tokenize(statement, quote)
		if err != nil {
			return refs, err
		}
		if len(tokens) > 0 && tokens[0].is(statement, "CREATE") {
			refs.read(statement, tokens)
		}
		quote = next
	}
	return refs, nil
}

func (r *references) read(statement string, tokens []token) {
	for i := 0; i+2 < len(tokens); i++ {
		if tokens[i].kind != tokenName || !tokens[i+1].is(statement, ".") || tokens[i+2].kind != tokenName {
			continue
		}
		first, _ := tokens[i].name(statement)
		second, _ := tokens[i+2].name(statement)
		r.pairs = append(r.pairs, [2]string{first, second})
		if i+3 < len(tokens) && tokens[i+3].kind == tokenName {
			alias, _ := tokens[i+3].name(statement)
			r.aliases[alias] = first + "\x00" + second
		}
	}
}

// place is where a table of the dump is on the target.
func (r references) place(l *loader, schema, table string) placeholder {
	return placeholder{schema: l.opts.target(schema), name: table}
}

// table returns the table that the server calls "schema.table".
func (r references) table(l *loader, _ loadObject, named string) (placeholder, bool) {
	for _, pair := range r.pairs {
		if ref := r.place(l, pair[0], pair[1]); ref.schema+"."+ref.name == named {
			return ref, true
		}
	}
	return placeholder{}, false
}

// all returns every table that the view may read.
func (r references) all(l *loader, view loadObject) []placeholder {
	var list []placeholder
	for _, pair := range r.pairs {
		ref := r.place(l, pair[0], pair[1])
		if ref.schema != view.Target || ref.name != view.Name { // it is named at the head of its own definition
			list = append(list, ref)
		}
	}
	return list
}

// column returns the table and the column that the server calls "alias.column", "table.column" or
// "schema.table.column".
func (r references) column(l *loader, o loadObject, named string) (placeholder, string, bool) {
	for alias, table := range r.aliases {
		if column, ok := strings.CutPrefix(named, alias+"."); ok {
			schema, name, _ := strings.Cut(table, "\x00")
			return r.place(l, schema, name), column, true
		}
	}
	for _, ref := range r.all(l, o) {
		if column, ok := strings.CutPrefix(named, ref.schema+"."+ref.name+"."); ok {
			return ref, column, true
		}
		if column, ok := strings.CutPrefix(named, ref.name+"."); ok {
			return ref, column, true
		}
	}
	return placeholder{}, "", false
}
