package mysql

import "strings"

// quoteIdentifier writes a name as SQL takes it under every sql_mode.
func quoteIdentifier(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// quoteQualified writes schema.name.
func quoteQualified(schema, name string) string {
	return quoteIdentifier(schema) + "." + quoteIdentifier(name)
}

// quoteString writes a string literal for a session that understands backslashes.
func quoteString(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\x00", `\0`).Replace(s) + "'"
}

// isSystemSchema reports whether the schema belongs to the server itself.
func isSystemSchema(name string) bool {
	switch strings.ToLower(name) {
	case "mysql", "information_schema", "performance_schema", "sys":
		return true
	}
	return false
}
