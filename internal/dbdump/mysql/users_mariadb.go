package mysql

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// accountTexts are those texts of an account in mysql.global_priv that may hold anything.
type accountTexts struct {
	loginText
	Others  []loginText `json:"auth_or"`
	Cipher  string      `json:"ssl_cipher"`
	Issuer  string      `json:"x509_issuer"`
	Subject string      `json:"x509_subject"`
}

// loginText is a password's hash, or what a plugin wants to know: a service, a user of the system.
type loginText struct {
	Text string `json:"authentication_string"`
}

// quoteTexts makes the answer to SHOW CREATE USER a statement where it is none: several versions of MariaDB (10.5.29
// and 11.8.6, not 10.11.19) write texts as they are, where quotes end them and backslashes are swallowed.
func quoteTexts(create, privileges string) (string, error) {
	var texts accountTexts
	if err := json.Unmarshal([]byte(privileges), &texts); err != nil {
		return "", fmt.Errorf("read its line of mysql.global_priv: %w", err)
	}
	create, err := quoteBehind(create, "USING", texts.Text)
	for _, other := range texts.Others {
		if err == nil {
			create, err = quoteBehind(create, "USING", other.Text)
		}
	}
	for _, t := range []struct{ keyword, text string }{{"CIPHER", texts.Cipher}, {"ISSUER", texts.Issuer}, {"SUBJECT", texts.Subject}} {
		if err == nil {
			create, err = quoteBehind(create, t.keyword, t.text)
		}
	}
	return create, err
}

// quoteBehind quotes the text that stands behind the keyword, unless it is quoted already.
func quoteBehind(statement, keyword, text string) (string, error) {
	before := " " + keyword + " "
	if !strings.ContainsAny(text, `'\`) || !strings.Contains(statement, before+"'") {
		return statement, nil
	}
	right, wrong := before+quoteString(text), before+"'"+text+"'"
	switch {
	case strings.Contains(statement, right):
		return statement, nil
	case strings.Contains(statement, wrong):
		return strings.Replace(statement, wrong, right, 1), nil
	}
	return "", fmt.Errorf("the text behind %s in its SHOW CREATE USER is not the one of mysql.global_priv", keyword)
}

// readProxies reads MariaDB's rights to act as another account.
func (d *dump) readProxies(ctx context.Context, s *session, parts *userScript) error {
	if !d.server.MariaDB() {
		return nil
	}
	dumped := make(map[string]bool, len(d.users))
	for _, u := range d.users {
		dumped[u.name()] = true
	}
	err := s.each(ctx, "SELECT User, Host, Proxied_user, IF(Proxied_host = '', '%', Proxied_host), With_grant FROM mysql.proxies_priv ORDER BY User, Host, Proxied_user, Proxied_host", func(r row) error {
		u, proxied := userObject{user: r.at(0), host: r.at(1)}, userObject{user: r.at(2), host: r.at(3)}
		if !dumped[u.name()] {
			return nil // left behind by an account that is gone
		}
		grant := "GRANT PROXY ON " + proxied.sql() + " TO " + u.sql()
		if r.at(4) == "1" {
			grant += " WITH GRANT OPTION"
		}
		parts.grants = append(parts.grants, grant)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read rights to act as another account: %w", err)
	}
	return nil
}
