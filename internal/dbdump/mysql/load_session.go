package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keepset/internal/dbdump"
)

// loadSQLMode is the sql_mode of every load: zeros go into AUTO_INCREMENT columns as zeros, dates that the source let
// in come in, and what does not fit is an error instead of an adjusted value.
const loadSQLMode = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,STRICT_ALL_TABLES"

// longWait is how many seconds a load is prepared to wait for what only the source of the dump or a lock can delay.
const longWait = "86400"

// loadVariables are the session variables that decide how definitions and rows are understood, and what a load wants
// them to be. Those that the server does not know are left out; those that already have the value are not touched,
// since some need privileges to be set.
var loadVariables = []struct{ name, value string }{
	{"autocommit", "ON"},
	{"auto_increment_increment", "1"},
	{"auto_increment_offset", "1"},
	{"character_set_collations", ""},   // MariaDB 11.5: a character set alone means the collation that it meant before
	{"check_constraint_checks", "OFF"}, // MariaDB: rows may predate the constraint
	{"completion_type", "NO_CHAIN"},
	{"enforce_storage_engine", ""},
	{"explicit_defaults_for_timestamp", "ON"},
	{"foreign_key_checks", "OFF"},
	{"innodb_lock_wait_timeout", longWait},
	{"innodb_strict_mode", "OFF"},
	{"lc_messages", "en_US"}, // messages are read, see load_views.go
	{"lock_wait_timeout", longWait},
	{"max_error_count", "64"},
	{"max_statement_time", "0.000000"},
	{"net_read_timeout", longWait}, // the server waits for us while we wait for the repository
	{"net_write_timeout", longWait},
	{"restrict_fk_on_non_standard_key", "OFF"},
	{"sql_auto_is_null", "OFF"},
	{"sql_generate_invisible_primary_key", "OFF"},
	{"sql_mode", loadSQLMode},
	{"sql_notes", "ON"},
	{"sql_quote_show_create", "ON"},
	{"sql_require_primary_key", "OFF"},
	{"sql_safe_updates", "OFF"},
	{"sql_warnings", "OFF"},
	{"system_versioning_alter_history", "KEEP"},
	{"system_versioning_insert_history", "ON"}, // MariaDB 10.11: row_start and row_end are values like others
	{"time_zone", "+00:00"},
	{"unique_checks", "OFF"},
	{"wait_timeout", longWait},
}

// sessionSettings are the statements that bring a session of the target into the state that a load wants, whatever
// the server's defaults are and whatever a script has set before.
type sessionSettings struct {
	first  []string // once per session
	always string   // before every script
}

// scriptVariables are the variables that scripts set for themselves: they are set again for the next one.
var scriptVariables = []string{
	"sql_mode", "time_zone", "foreign_key_checks", "unique_checks", "explicit_defaults_for_timestamp",
	"check_constraint_checks", "innodb_strict_mode",
}

// planSettings compares what the server has with what a load wants.
func planSettings(ctx context.Context, s *session, binlog bool) (sessionSettings, error) {
	if err := s.exec(ctx, "SET NAMES utf8mb4"); err != nil {
		return sessionSettings{}, err
	}
	names := make([]string, len(loadVariables))
	for i, v := range loadVariables {
		names[i] = "'" + v.name + "'"
	}
	have := make(map[string]string)
	query := "SHOW SESSION VARIABLES WHERE Variable_name IN (" + strings.Join(names, ",") + ")"
	err := s.each(ctx, query, func(r row) error {
		have[r.at(0)] = r.at(1)
		return nil
	})
	if err != nil {
		return sessionSettings{}, err
	}
	var plan sessionSettings
	if !binlog {
		plan.first = append(plan.first, "SET SESSION sql_log_bin=0")
	}
	always := []string{"NAMES utf8mb4"}
	for _, v := range loadVariables {
		value, known := have[v.name]
		scripted := slices.Contains(scriptVariables, v.name)
		switch {
		case !known:
		case scripted && !(value == v.value && v.name == "explicit_defaults_for_timestamp"):
			always = append(always, "SESSION "+v.name+"="+settingValue(v.value))
		case value == v.value:
		case v.name == "enforce_storage_engine":
			plan.first = append(plan.first, "SET SESSION "+v.name+"=NULL")
		default:
			plan.first = append(plan.first, "SET SESSION "+v.name+"="+settingValue(v.value))
		}
	}
	plan.always = "SET " + strings.Join(always, ", ")
	return plan, nil
}

// settingValue writes a value as SET takes it: numbers bare, everything else in quotes.
func settingValue(value string) string {
	if value != "" && strings.Trim(value, "0123456789.") == "" {
		return value
	}
	return "'" + value + "'"
}

// prepare applies the settings to a new session.
func (p sessionSettings) prepare(ctx context.Context, s *session) error {
	for _, statement := range append(slices.Clone(p.first), p.always) {
		if err := s.exec(ctx, statement); err != nil {
			return privilegeError(err, "the load needs this session setting")
		}
	}
	return nil
}

// privilegeError marks an error that a missing privilege caused, and says what the privilege is for.
func privilegeError(err error, purpose string) error {
	switch errorNumber(err) {
	case errDBAccessDenied, errTableAccessDenied, errColumnAccessDenied, errSpecificAccess, errAccessDeniedNoPassword, errProcAccessDenied:
		return fmt.Errorf("%s: %w: %w", purpose, dbdump.ErrPrivilege, err)
	}
	return err
}

// Error numbers that a load decides by.
const (
	errUnknownDatabase        = 1049
	errBadField               = 1054
	errUnknownTable           = 1109
	errNoSuchGrant            = 1141
	errNoSuchRoutine          = 1305
	errDeadlock               = 1213
	errInvalidView            = 1356
	errProcAccessDenied       = 1370
	errCannotUser             = 1396
	errNoSuchUser             = 1449
	errAccessDeniedNoPassword = 1698
	errReadOnly               = 1290
	errLocalDisabledMariaDB   = 4166
	errLocalDisabledMySQL     = 3948
	errCommandNotAllowed      = 1148
	errWrongArguments         = 1318
	errServerExists           = 1476
	errTablespaceExists       = 3120
	errReferenceSystemExists  = 3712
)
