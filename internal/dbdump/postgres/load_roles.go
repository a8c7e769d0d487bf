package postgres

import (
	"bytes"
	"context"
	"slices"
)

// loadRoles creates the roles of the dump as the policy says.
func (l *loader) loadRoles(ctx context.Context, admin *session) error {
	if len(l.plan.roles) == 0 {
		return nil
	}
	existing, err := names(ctx, admin, "SELECT rolname FROM pg_catalog.pg_roles")
	if err != nil {
		return err
	}
	self, err := admin.value(ctx, "SELECT CURRENT_USER")
	if err != nil {
		return err
	}
	settled, err := admin.value(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting WHERE setrole = 0 AND setdatabase = 0)")
	if err != nil {
		return err
	}
	return l.runStream(ctx, admin, l.plan.roles[0].DDL, func(code []byte, st statement) []byte {
		if bytes.HasPrefix(code, []byte(allRoles)) {
			switch {
			case settled == "t" && l.opts.Roles == RolesKeep:
				return nil
			case !l.server.superuser:
				l.warn("left out, since the account of the load is no superuser: %s", code)
				return nil
			}
			return code
		}
		role := roleOf(code, st)
		switch {
		case role == "" || !slices.Contains(existing, role):
			return code
		case st.verb == "create", l.opts.Roles == RolesKeep, role == self:
			return nil
		default:
			return code
		}
	})
}

// roleOf is the role that a statement is about: the one that is created or
// changed, or that is given something; "" for other statements.
func roleOf(code []byte, st statement) string {
	switch {
	case st.kind == "role":
		return st.name
	case st.verb == "grant":
		tokens := tokensOf(code, 40)
		for i := 0; i+1 < len(tokens); i++ {
			if tokens[i].is("to") {
				return tokens[i+1].text
			}
		}
	}
	return ""
}
