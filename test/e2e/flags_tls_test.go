package e2e

import (
	"database/sql"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

const (
	caughtUpWithin = 30 * time.Second
	pollEvery      = 100 * time.Millisecond
)

func portOf(s *servers.MySQL) string { return strconv.Itoa(s.Port) }

// tlsServer is a MariaDB whose account "strict" wants a client certificate.
func tlsServer(t *testing.T) *servers.MySQL {
	t.Helper()
	s := servers.MariaDB(t, servers.WithTLS())
	s.Exec(t, "CREATE USER strict@'%' IDENTIFIED BY 'strict-secret' REQUIRE X509", "GRANT ALL ON *.* TO strict@'%' WITH GRANT OPTION")
	return s
}

// secretFile is a file as `kubectl create secret --from-file` leaves it.
func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte(content+"\n"), 0o600))
	return path
}

// tlsArgs are the flags of one side that is to be verified and shows a certificate.
func tlsArgs(side string, s *servers.MySQL, password string) []string {
	return []string{
		"--" + side + "-tls-ca-file", s.TLS.CA, "--" + side + "-tls-cert-file", s.TLS.ClientCert, "--" + side + "-tls-key-file", s.TLS.ClientKey,
		"--" + side + "-password-file", password,
	}
}

// replicaStatus is a column of SHOW SLAVE STATUS.
func replicaStatus(t *testing.T, s *servers.MySQL, column string) string {
	t.Helper()
	rows, err := s.DB(t).QueryContext(t.Context(), "SHOW SLAVE STATUS")
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	names, err := rows.Columns()
	require.NoError(t, err)
	values, dest := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range values {
		dest[i] = &values[i]
	}
	require.True(t, rows.Next(), "it follows somebody")
	require.NoError(t, rows.Scan(dest...))
	for i, n := range names {
		if n == column {
			return values[i].String
		}
	}
	require.Fail(t, "no column "+column)
	return ""
}

// TestPlainTLS goes from a server with a certificate of its own authority,
// which wants one of the client, through an S3 server that speaks HTTPS only,
// into another such server, which then follows the first and verifies it.
func TestPlainTLS(t *testing.T) {
	t.Parallel()
	db, target, s3 := tlsServer(t), tlsServer(t), servers.S3(t, servers.WithS3TLS(), servers.WithBuckets("backups"))
	shop(t, db, 2000)
	db.Exec(t, "CREATE USER repl@'%' IDENTIFIED BY 'repl-secret' REQUIRE SSL", "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO repl@'%'")
	p := newPlain(t, append(s3Env(s3), "AWS_CA_BUNDLE="+s3.CAFile)...)
	const repository = "s3://backups/shop"
	password := secretFile(t, "strict-secret")
	p.ok("backup", "init", "--repository", repository)
	run := []string{"backup", "run", "--repository", repository, "--set", "shop", "--source", "mysql://strict@" + db.Addr}
	p.ok(append(run, tlsArgs("source", db, password)...)...)
	addOrders(t, db, 500)

	load := []string{"restore", "load", "--repository", repository, "--set", "shop", "--target", "mysql://strict@" + target.Addr}
	follow := append(append(append([]string{}, load...), tlsArgs("target", target, password)...),
		"--as-follower-of", db.Addr, "--replication-user", "repl", "--replication-password-file", secretFile(t, "repl-secret"), "--replication-tls-ca", db.TLS.CA)
	line := p.fails(1, follow...)
	assert.Contains(t, line, "certificate is not trusted", "the authority of the target is not that of the upstream, and nothing was touched")
	assert.Equal(t, "0", target.Value(t, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'"))

	both := filepath.Join(t.TempDir(), "both.pem")
	require.NoError(t, os.WriteFile(both, []byte(readFile(t, db.TLS.CA)+readFile(t, target.TLS.CA)), 0o600))
	p.ok(append(follow, "--target-tls-ca-file", both)...)
	assert.Equal(t, checksum(t, db, "shop.orders"), checksum(t, target, "shop.orders"), "it has caught up")
	assert.Equal(t, "Yes", replicaStatus(t, target, "Master_SSL_Verify_Server_Cert"))
	assert.Equal(t, db.TLS.CA, replicaStatus(t, target, "Master_SSL_CA_File"))
}

// TestPlainTLSRefused is the table of what is wrong with certificates.
func TestPlainTLSRefused(t *testing.T) {
	t.Parallel()
	db, bare, s3 := tlsServer(t), servers.MariaDB(t), servers.S3(t, servers.WithS3TLS(), servers.WithBuckets("backups"))
	shop(t, db, 500)
	trusted := newPlain(t, append(s3Env(s3), "AWS_CA_BUNDLE="+s3.CAFile)...)
	const repository = "s3://backups/shop"
	password, rubbish := secretFile(t, "strict-secret"), secretFile(t, "no certificate")
	trusted.ok("backup", "init", "--repository", repository)
	run := []string{"backup", "run", "--repository", repository, "--set", "shop", "--source", "mysql://strict@" + db.Addr}
	good := append(append([]string{}, run...), tlsArgs("source", db, password)...)
	load := append([]string{"restore", "load", "--repository", repository, "--set", "shop", "--target", "mysql://strict@" + db.Addr}, tlsArgs("target", db, password)...)
	trusted.ok(good...)
	with := func(args []string, more ...string) []string { return append(append([]string{}, args...), more...) }

	for _, c := range []struct {
		name string
		env  []string
		args []string
		code int
		says []string
	}{
		{"another authority", nil, with(good, "--source-tls-ca-file", s3.CAFile), 1, []string{"certificate is not trusted", "unknown authority", "--source-tls-ca-file"}},
		{"no authority", nil, with(run, "--source-tls", "verify", "--source-password-file", password), 1, []string{"certificate is not trusted", "--source-tls-ca-file"}},
		{"no client certificate", nil, with(run, "--source-tls-ca-file", db.TLS.CA, "--source-password-file", password), 1, []string{"access denied by the server"}},
		{"no TLS at all", []string{"KEEPSET_SOURCE_PASSWORD=" + bare.Password}, []string{"backup", "run", "--repository", repository, "--set", "shop", "--source", "mysql://root@" + bare.Addr, "--source-tls", "required"}, 1, []string{"TLS", bare.Addr}},
		{"a file that is missing", nil, with(good, "--source-tls-ca-file", "/nowhere/ca.pem"), 64, []string{"/nowhere/ca.pem"}},
		{"a file without certificates", nil, with(good, "--source-tls-ca-file", rubbish), 64, []string{"no certificate in", rubbish}},
		{"a certificate without its key", nil, with(good, "--source-tls-key-file", ""), 64, []string{"both the certificate and its key"}},
		{"an empty password file", nil, with(good, "--source-password-file", os.DevNull), 64, []string{"secret file", "is empty"}},
		{"a mode that does not exist", nil, with(good, "--source-tls", "maybe"), 64, []string{`--source-tls "maybe" is not one of`}},
		{"another authority of the target", nil, with(load, "--target-tls-ca-file", s3.CAFile), 1, []string{"certificate is not trusted", "--target-tls-ca-file"}},
		{"another authority of the store", []string{"AWS_CA_BUNDLE=" + db.TLS.CA}, good, 1, []string{"certificate", "AWS_CA_BUNDLE"}},
		{"no authority of the store", []string{"AWS_CA_BUNDLE="}, good, 1, []string{"certificate", "AWS_CA_BUNDLE"}},
		{"no file of the store's authority", []string{"AWS_CA_BUNDLE=/nowhere/ca.pem"}, good, 64, []string{"/nowhere/ca.pem"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := trusted.with(c.env...)
			q.t = t
			line := q.fails(c.code, c.args...)
			for _, want := range c.says {
				assert.Contains(t, line, want)
			}
			assert.NotContains(t, line, "strict-secret")
		})
	}
}
