package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// grant is a statement on an account that waits for an object to exist.
type grant struct {
	statement string
	// settings are the SET statements of the script that came before it.
	settings []string
	err      error
}

// account is an account's or a role's name as the server compares it; host is "" for a role of MariaDB.
type account struct{ user, host string }

// String writes the account as it is usually written.
func (a account) String() string {
	if a.host == "" {
		return a.user
	}
	return a.user + "@" + a.host
}

// ownAccounts are the server's own; every server of the version has them, and those of Percona one for its telemetry.
var ownAccounts = []string{"mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "percona.telemetry"}

// volumeAccounts are accounts of images whose secret lies on the volume and nowhere else. The official MariaDB image
// makes them with a random password, which its healthcheck.sh reads from .my-healthcheck.cnf in the data directory: with
// the source's password the pod would never be Ready. (docker-library, mariadb/healthcheck.sh.)
var volumeAccounts = []account{{"healthcheck", "localhost"}, {"healthcheck", "127.0.0.1"}, {"healthcheck", "::1"}}

// imageAccounts are made with every server and serve its own administration; PUBLIC cannot be dropped.
var imageAccounts = []account{{"root", "localhost"}, {"mysql", "localhost"}, {"PUBLIC", ""}}

// loadAccounts creates accounts and roles and gives them their rights. A statement that fails because a table, view or
// routine is not there yet waits for it.
//
// The account that the load uses stays as it is, whatever the policy: the load would lock itself out. So do those whose
// secret is on the volume.
func (l *loader) loadAccounts(ctx context.Context) error {
	streams := make([]string, 0, 1)
	for _, o := range l.plan.users {
		if !slices.Contains(streams, o.DDL) {
			streams = append(streams, o.DDL)
		}
	}
	return l.session(ctx, func(s *session) error {
		have, self, err := readAccounts(ctx, s)
		if err != nil {
			return privilegeError(err, "read the target's accounts")
		}
		kept := make(map[account]bool)
		for name := range have {
			volume := l.server.MariaDB() && slices.Contains(volumeAccounts, name)
			if l.opts.Accounts == AccountsKeep || name == self || volume || slices.Contains(ownAccounts, name.user) {
				kept[name] = true
			}
			if volume && l.opts.Accounts == AccountsReplace && l.dumps(name) {
				l.warn("account %s was kept as it is on the target: its password is on the target's volume", name)
			}
		}
		if l.opts.Accounts == AccountsReplace && l.opts.Seed {
			if err := l.dropOthers(ctx, s, have, kept); err != nil {
				return err
			}
		}
		for _, stream := range streams {
			if err := l.loadAccountStream(ctx, s, stream, have, kept); err != nil {
				return fmt.Errorf("create accounts: %w", err)
			}
		}
		if kept[self] && l.opts.Accounts == AccountsReplace && l.dumps(self) {
			l.warn("account %s is the one that the load uses: its password and rights were kept as they are on the target", self)
		}
		return nil
	})
}

// dropOthers drops the accounts that the dump lacks: what the upstream does to an account of that name, and it did not
// have it when it was dumped, would fail here and end replication.
func (l *loader) dropOthers(ctx context.Context, s *session, have, kept map[account]bool) error {
	if len(l.plan.users) == 0 {
		return nil // the dump holds no accounts at all
	}
	var dropped []string
	for name := range have {
		if kept[name] || l.dumps(name) || slices.Contains(imageAccounts, name) {
			continue
		}
		if err := l.dropAccount(ctx, s, name); err != nil {
			return err
		}
		delete(have, name)
		dropped = append(dropped, name.String())
	}
	if len(dropped) > 0 {
		slices.Sort(dropped)
		l.warn("accounts that the backup does not hold were dropped: %s", shorten(dropped))
	}
	return nil
}

// dumps tells whether the dump has the account.
func (l *loader) dumps(a account) bool {
	for _, o := range l.plan.users {
		if o.Name == a.String() {
			return true
		}
	}
	return false
}

// readAccounts returns the accounts of the target, and the one that the session uses.
func readAccounts(ctx context.Context, s *session) (have map[account]bool, self account, err error) {
	have = make(map[account]bool)
	err = s.each(ctx, "SELECT User, Host FROM mysql.user", func(r row) error {
		have[account{r.at(0), r.at(1)}] = true
		return nil
	})
	if err != nil {
		return nil, account{}, err
	}
	var current string
	if err := s.queryRow(ctx, "SELECT CURRENT_USER()", &current); err != nil {
		return nil, account{}, err
	}
	at := strings.LastIndexByte(current, '@')
	return have, account{current[:at], current[at+1:]}, nil
}

// loadAccountStream runs users.sql statement by statement.
func (l *loader) loadAccountStream(ctx context.Context, s *session, stream string, have, kept map[account]bool) error {
	statements, err := l.statements(ctx, stream)
	if err != nil {
		return err
	}
	if err := l.begin(ctx, s, ""); err != nil {
		return err
	}
	quote := quoting{}
	var settings []string
	for _, statement := range statements {
		next := quote.after(statement)
		name, ok, err := accountOf(statement, quote)
		if err != nil {
			return err
		}
		switch {
		case ok && kept[name]:
			quote = next
			continue
		case ok && have[name] && creates(statement):
			if err := l.dropAccount(ctx, s, name); err != nil {
				return err
			}
			delete(have, name)
		}
		if len(l.opts.Rename) > 0 {
			if statement, err = l.renameIn(statement, quote, loadObject{Object: record.Object{Kind: KindUser}}); err != nil {
				return err
			}
		}
		if !ok && strings.EqualFold(statement[:min(4, len(statement))], "SET ") {
			settings = append(settings, statement)
		}
		if err := l.grant(ctx, s, grant{statement: statement, settings: settings}); err != nil {
			return err
		}
		quote = next
	}
	return nil
}

// creates reports whether the statement creates an account or role.
func creates(statement string) bool {
	return strings.EqualFold(statement[:min(6, len(statement))], "CREATE")
}

// dropAccount removes an account of the target to make room for that of the dump.
func (l *loader) dropAccount(ctx context.Context, s *session, a account) error {
	statement := "DROP USER " + quoteString(a.user) + "@" + quoteString(a.host)
	if a.host == "" {
		statement = "DROP ROLE " + quoteString(a.user)
	}
	if err := s.exec(ctx, statement); err != nil {
		return privilegeError(err, fmt.Sprintf("replace account %s", a))
	}
	return nil
}

// errProxyDenied: the account may not grant PROXY (MariaDB and MySQL say "access denied").
const errProxyDenied = 1698

// grant runs a statement on an account; one that misses an object waits.
func (l *loader) grant(ctx context.Context, s *session, g grant) error {
	err := s.exec(ctx, g.statement)
	if errorNumber(err) == errNoSuchGrant && strings.HasPrefix(strings.ToUpper(g.statement), "REVOKE ") {
		if again, allowErr := l.allowPartialRevokes(ctx, s); allowErr != nil {
			return allowErr
		} else if again {
			err = s.exec(ctx, g.statement)
		}
	}
	if errorNumber(err) == errProxyDenied && strings.HasPrefix(strings.ToUpper(g.statement), "GRANT PROXY") {
		// GRANT ALL does not include it, so that the root account of an image rarely has it.
		l.warn("a right to act as another account was not given, since the account of the load does not have it: GRANT PROXY ON ''@'%%' TO it WITH GRANT OPTION to keep such rights")
		return nil
	}
	switch errorNumber(err) {
	case 0:
		return secretError(err)
	case errNoSuchTable, errNoSuchRoutine, errBadField, errInvalidView, errUnknownDatabase, errNoSuchUser, errNoSuchGrant, errCannotUser:
		g.err = err
		l.grants = append(l.grants, g)
		return nil
	}
	return privilegeError(secretError(err), "the account of the load lacks a privilege to create accounts or give rights")
}

// secretError takes the statement out of an error: it may hold a password, or the hash of one.
func secretError(err error) error {
	if err == nil {
		return nil
	}
	if number := errorNumber(err); number != 0 {
		return fmt.Errorf("run a statement that may hold a secret: %w", rootError(err))
	}
	return err
}

// retryGrants runs the statements that waited for objects which may be there by now.
func (l *loader) retryGrants(ctx context.Context) error {
	if len(l.grants) == 0 {
		return nil
	}
	return l.session(ctx, func(s *session) error {
		waiting := l.grants
		l.grants = nil
		for _, g := range waiting {
			if err := l.runStatements(ctx, s, "", g.settings); err != nil {
				return err
			}
			if err := l.grant(ctx, s, g); err != nil {
				return err
			}
		}
		return nil
	})
}

// finishGrants runs them for the last time. A right on something that does not exist on the target is lost when only
// a part of the dump was loaded or of the server was dumped, and an error otherwise.
func (l *loader) finishGrants(ctx context.Context) error {
	if err := l.retryGrants(ctx); err != nil {
		return err
	}
	partial := slices.ContainsFunc(l.dump.Omitted, func(o string) bool { return strings.HasPrefix(o, omittedExcluded) })
	for _, g := range l.grants {
		if l.opts.Filter.Empty() && !partial {
			return fmt.Errorf("%w: a right could not be given: %w", dbdump.ErrMismatch, secretError(g.err))
		}
		l.warn("a right was not given, its object is not among what was loaded: %v", rootError(g.err))
	}
	return nil
}

// accountOf returns the account that the statement is about.
func accountOf(statement string, quote quoting) (a account, ok bool, err error) {
	tokens, err := tokenize(statement, quote)
	if err != nil || len(tokens) == 0 {
		return account{}, false, err
	}
	at := -1
	switch {
	case tokens[0].is(statement, "CREATE"), tokens[0].is(statement, "ALTER"), tokens[0].is(statement, "DROP"):
		at = slices.IndexFunc(tokens, func(t token) bool { return t.is(statement, "USER") || t.is(statement, "ROLE") }) + 1
		for at > 0 && at < len(tokens) && (tokens[at].is(statement, "IF") || tokens[at].is(statement, "NOT") || tokens[at].is(statement, "EXISTS")) {
			at++
		}
	case tokens[0].is(statement, "GRANT"), tokens[0].is(statement, "REVOKE"):
		at = lastWord(statement, tokens, "TO", "FROM") + 1
	case tokens[0].is(statement, "SET"):
		at = lastWord(statement, tokens, "FOR", "TO") + 1
	}
	if at <= 0 || at >= len(tokens) {
		return account{}, false, nil
	}
	a.user, ok = literalName(statement, tokens[at], quote)
	if ok && at+2 < len(tokens) && tokens[at+1].is(statement, "@") {
		a.host, ok = literalName(statement, tokens[at+2], quote)
	}
	return a, ok, nil
}

// lastWord returns the position of the last of the words outside quotes, -1 without any.
func lastWord(statement string, tokens []token, words ...string) int {
	for i, tok := range slices.Backward(tokens) {
		if slices.ContainsFunc(words, func(w string) bool { return tok.is(statement, w) }) {
			return i
		}
	}
	return -1
}

// literalName reads a name written as an identifier or as a string.
func literalName(statement string, tok token, quote quoting) (string, bool) {
	if tok.kind != tokenString {
		return tok.name(statement)
	}
	raw := statement[tok.start:tok.end]
	inner := strings.ReplaceAll(raw[1:len(raw)-1], raw[:1]+raw[:1], raw[:1])
	if !quote.noBackslash {
		inner = strings.NewReplacer(`\\`, `\`, `\'`, `'`, `\"`, `"`, `\0`, "\x00").Replace(inner)
	}
	return inner, true
}
