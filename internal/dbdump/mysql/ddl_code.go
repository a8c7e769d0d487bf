package mysql

import (
	"context"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"keepset/internal/dbdump"
)

// createText is what SHOW CREATE says of an object that is text: raw bytes,
// and what they mean.
type createText struct {
	statement                  string
	charset, collation, dbColl string
	sqlMode, timeZone          string
}

// readText reads an object's text.
func (d *dump) readText(ctx context.Context, s *session, o *codeObject) (createText, error) {
	what := strings.ToUpper(o.kind)
	column := "Create " + o.kind
	switch o.kind {
	case KindRoutine:
		what, column = o.subtype, "Create "+o.subtype
	case KindTrigger:
		column = "SQL Original Statement"
	}
	var c createText
	query := "SHOW CREATE " + what + " " + quoteQualified(o.schema.name, o.name)
	err := s.each(ctx, query, func(r row) error {
		c = createText{
			statement: r.get(column), charset: r.get("character_set_client"), collation: r.get("collation_connection"),
			dbColl: r.get("Database Collation"), sqlMode: r.get("sql_mode"), timeZone: r.get("time_zone"),
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	if c.statement == "" {
		return c, fmt.Errorf("the definition of %s %s is not shown: %w: the account may not see it (SHOW_ROUTINE on MySQL 8, SELECT on mysql.proc elsewhere), or it was dropped just now",
			strings.ToLower(what), quoteQualified(o.schema.name, o.name), dbdump.ErrPrivilege)
	}
	return c, nil
}

// writeCode writes one object that is text.
func (d *dump) writeCode(ctx context.Context, s *session, o *codeObject) error {
	c, err := d.readText(ctx, s, o)
	if err != nil {
		return err
	}
	if c.statement, err = d.repairText(ctx, s, o, c); err != nil {
		return err
	}
	if o.kind == KindView {
		if err := d.inspectView(ctx, s, o, c.statement); err != nil {
			return err
		}
	}
	script := newScript()
	script.addf("SET SESSION character_set_client = %s, collation_connection = %s", c.charset, c.collation)
	if o.kind != KindView {
		script.addf("SET SESSION sql_mode = '%s'", c.sqlMode)
	}
	if c.timeZone != "" {
		script.add("SET SESSION time_zone = " + quoteString(c.timeZone))
	}
	// The collation of the schema at the time of creation is part of a
	// routine's meaning and cannot be said in its statement.
	now := o.schema.collation
	differs := c.dbColl != "" && now != "" && c.dbColl != now
	if differs {
		script.addf("ALTER DATABASE %s COLLATE %s", quoteIdentifier(o.schema.name), c.dbColl)
	}
	script.add(c.statement)
	if differs {
		script.addf("ALTER DATABASE %s COLLATE %s", quoteIdentifier(o.schema.name), now)
	}
	o.stream = o.streamName()
	if err := d.out.script(ctx, o.stream, dbdump.StreamOptions{}, script); err != nil {
		return err
	}
	d.progress(Progress{Schema: o.schema.name, Table: o.name, Objects: 1})
	return nil
}

// repairText undoes what SHOW CREATE does to the text.
//
// It puts names and the comment in UTF-8 into a text whose body is in the
// character set of its creator: they are converted to that. And it writes the
// comment with backslashes doubled even where the routine's sql_mode gives a
// backslash no meaning.
func (d *dump) repairText(ctx context.Context, s *session, o *codeObject, c createText) (string, error) {
	text := c.statement
	if o.comment != "" {
		shown := serverQuote(o.comment)
		want := shown
		if strings.Contains(c.sqlMode, "NO_BACKSLASH_ESCAPES") {
			want = "'" + strings.ReplaceAll(o.comment, "'", "''") + "'"
		}
		recoded, err := d.recode(ctx, s, want, c.charset)
		if err != nil {
			return "", err
		}
		text = strings.Replace(text, "COMMENT "+shown, "COMMENT "+recoded, 1)
	}
	if o.kind == KindView {
		return text, nil
	}
	definer, _, _ := strings.Cut(o.definer, "@")
	for _, name := range []string{definer, o.name, o.table} {
		if isASCII(name) {
			continue
		}
		recoded, err := d.recode(ctx, s, name, c.charset)
		if err != nil {
			return "", err
		}
		text = strings.Replace(text, name, recoded, 1)
	}
	return text, nil
}

// serverQuote is how SHOW CREATE quotes a comment.
func serverQuote(s string) string {
	return "'" + strings.NewReplacer("\\", "\\\\", "'", "''", "\x00", "\\0", "\n", "\\n", "\r", "\\r").Replace(s) + "'"
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// recode converts UTF-8 into another character set, by the server's own
// tables. What has no place there is an error: the object could not be
// created again under its own settings.
func (d *dump) recode(ctx context.Context, s *session, text, charset string) (string, error) {
	if isASCII(text) || strings.HasPrefix(charset, "utf8") || charset == "binary" || charset == "" {
		return text, nil
	}
	in := hex.EncodeToString([]byte(text))
	var out, back string
	query := fmt.Sprintf("SELECT HEX(CONVERT(_utf8mb4 0x%s USING %s)), HEX(CONVERT(CONVERT(_utf8mb4 0x%s USING %s) USING utf8mb4))", in, charset, in, charset)
	if err := s.queryRow(ctx, query, &out, &back); err != nil {
		return "", err
	}
	if !strings.EqualFold(back, in) {
		d.warn(fmt.Sprintf("%q cannot be written in %s, the character set of the object that uses it: it is kept in UTF-8 and will look different when loaded", text, charset))
		return text, nil
	}
	raw, err := hex.DecodeString(out)
	return string(raw), err
}

// qualified finds `a`.`b` in the canonical text of a view.
var qualified = regexp.MustCompile("`((?:[^`]|``)+)`\\.`((?:[^`]|``)+)`")

// inspectView finds out what a view reads, and whether it still can.
func (d *dump) inspectView(ctx context.Context, s *session, o *codeObject, text string) error {
	_, body, _ := strings.Cut(text, " AS ")
	seen := map[string]bool{}
	for body != "" {
		m := qualified.FindStringSubmatchIndex(body)
		if m == nil {
			break
		}
		db := strings.ReplaceAll(body[m[2]:m[3]], "``", "`")
		name := strings.ReplaceAll(body[m[4]:m[5]], "``", "`")
		if d.known[db+"."+name] && !seen[db+"."+name] {
			seen[db+"."+name] = true
			o.depends = append(o.depends, db+"."+name)
		}
		// `a`.`b`.`c`: the next match may begin with b.
		body = body[m[4]-1:]
	}
	err := s.exec(ctx, "SELECT 1 FROM "+quoteQualified(o.schema.name, o.name)+" LIMIT 0")
	if err == nil {
		return nil
	}
	if errorNumber(err) == 0 {
		return err
	}
	o.broken = rootError(err).Error()
	d.warn(fmt.Sprintf("view %s cannot be used on the server itself and is kept as text: %s", quoteQualified(o.schema.name, o.name), o.broken))
	return nil
}

// sortViews puts every view behind those that it reads.
func sortViews(views []*codeObject) []*codeObject {
	byName := map[string]*codeObject{}
	for _, v := range views {
		byName[v.schema.name+"."+v.name] = v
	}
	var sorted []*codeObject
	state := map[*codeObject]bool{}
	var visit func(v *codeObject)
	visit = func(v *codeObject) {
		if state[v] {
			return
		}
		state[v] = true
		for _, name := range v.depends {
			if w := byName[name]; w != nil {
				visit(w)
			}
		}
		sorted = append(sorted, v)
	}
	for _, v := range views {
		visit(v)
	}
	return sorted
}
