package mysql

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
	"keepset/test/servers"
)

// What a backup holds can be loaded with the vendor's own client, stream by stream in the order of the report: no
// Keepset is needed. Only broken views are out of its reach.
func TestLoadByHand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flavour
		client string
		other  []string
	}{{mariadb1011, "mariadb", otherDefaultsMariaDB}, {mysql97, "mysql", otherDefaultsMySQL}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			source := c.server(t, "default_time_zone=+00:00")
			allowProxy(t, source)
			fixture(t, source, c.fixture...)
			m, report := dumpMemory(t, options(t, source))
			target := c.server(t, append([]string{"local_infile=ON", "log_bin_trust_function_creators=ON"}, c.other...)...)
			hand := byHand{t: t, target: target, client: c.client, memory: m, dir: t.TempDir()}
			for _, o := range report.Objects {
				hand.load(o)
			}
			if c.flavour.name == mysql97.name {
				target.Exec(t, "SET GLOBAL partial_revokes=ON") // as docs/mysql.md says
			}
			hand.run("", m.Bytes(usersStream), "--force")
			want, got := describe(t, source), describe(t, target)
			for name, text := range want {
				for _, prefix := range []string{"rows ", "sequence ", "definition ", "procedure ", "function ", "package ", "trigger ", "event ", "database ", "grants "} {
					if strings.HasPrefix(name, prefix) {
						require.Equal(t, text, got[name], name)
					}
				}
			}
		})
	}
}

// byHand runs the client as a person would.
type byHand struct {
	t      *testing.T
	target *servers.MySQL
	client string
	memory *dbdumptest.Memory
	dir    string
	done   []string
}

// load creates an object from its stream and loads its rows.
func (h *byHand) load(o record.Object) {
	if o.Attributes[AttrBroken] != "" || o.DDL == "" {
		return
	}
	schema := o.Schema
	if o.Kind == KindSchema || o.Kind == KindUser || o.Kind == KindServer {
		schema = ""
		if slices.Contains(h.done, o.DDL) {
			return // many accounts share a stream
		}
		h.done = append(h.done, o.DDL)
	}
	if o.Kind == KindUser {
		// Grants on objects that are not there yet fail: the client goes on, and the same stream is run again at the end.
		h.run("", h.memory.Bytes(o.DDL), "--force")
		return
	}
	h.run(schema, h.memory.Bytes(o.DDL))
	for _, stream := range o.Data {
		file := filepath.Join(h.dir, "rows")
		require.NoError(h.t, os.WriteFile(file, h.memory.Bytes(stream), 0o600))
		columns, set := loadColumns(loadObject{Object: o})
		h.run(schema, []byte("SET time_zone='+00:00', sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', foreign_key_checks=0"+handSettings(o)+";\n"+
			"LOAD DATA LOCAL INFILE '"+file+"' INTO TABLE "+quoteIdentifier(o.Name)+" CHARACTER SET binary ("+columns+")"+set+";\n"))
	}
	for stream := range strings.FieldsSeq(o.Attributes[AttrTyped]) {
		h.run(schema, h.memory.Bytes(stream))
	}
}

// handSettings are what MariaDB wants for rows with a history, and for rows older than a constraint.
func handSettings(o record.Object) string {
	if o.Attributes[AttrSystemVersioned] == "history" {
		return ", system_versioning_insert_history=ON"
	}
	if o.Name == "checked" {
		return ", check_constraint_checks=OFF"
	}
	return ""
}

func (h *byHand) run(schema string, script []byte, options ...string) {
	h.t.Helper()
	tool, err := servers.FindTool(h.client)
	require.NoError(h.t, err)
	args := []string{"--no-defaults", "--protocol=tcp", "-h", h.target.Host, "-P", strconv.Itoa(h.target.Port), "-u", h.target.User, "--local-infile=1", "--binary-mode", "--comments"}
	args = append(args, options...)
	if schema != "" {
		args = append(args, schema)
	}
	cmd := exec.CommandContext(h.t.Context(), tool, args...)
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+h.target.Password)
	cmd.Stdin = bytes.NewReader(script)
	out, err := cmd.CombinedOutput()
	if len(options) > 0 {
		return // --force: what fails is seen by what is missing
	}
	require.NoError(h.t, err, "%s\n%.2000s", out, script)
}
