package servers_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	driver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// products are the database servers; every test of what they have in common runs on each.
func products() map[string]func(testing.TB, ...servers.MySQLOption) *servers.MySQL {
	return map[string]func(testing.TB, ...servers.MySQLOption) *servers.MySQL{
		"10.5.": servers.MariaDB105, "10.11.": servers.MariaDB, "11.8.": servers.MariaDB118, "9.7.": servers.MySQL97,
	}
}

func TestDatabaseServer(t *testing.T) {
	for version, start := range products() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			require.True(t, strings.HasPrefix(s.Value(t, "SELECT VERSION()"), version))
			require.Equal(t, "1", s.Value(t, "SELECT @@log_bin"))
			require.Equal(t, "0", s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE user NOT IN ('root') AND user NOT LIKE 'm%'"))

			s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1), (2)")
			db := s.DB(t)
			var n int
			require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM d.t").Scan(&n))
			require.Equal(t, 2, n)

			s.Restart(t)
			require.Equal(t, "2", s.Value(t, "SELECT COUNT(*) FROM d.t"))
			s.Kill(t)
			require.False(t, s.Running())
			require.Error(t, db.PingContext(t.Context()))
			s.Restart(t)
			require.Equal(t, "2", s.Value(t, "SELECT COUNT(*) FROM d.t"))
		})
	}
}

func TestDatabaseServersDiffer(t *testing.T) {
	for version, start := range products() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			a, b := start(t, servers.WithServerID(7)), start(t)
			require.Equal(t, "7", a.Value(t, "SELECT @@server_id"))
			require.NotEqual(t, "7", b.Value(t, "SELECT @@server_id"))
			require.NotEqual(t, a.Port, b.Port)
			if version == "9.7." {
				require.NotEqual(t, a.Value(t, "SELECT @@server_uuid"), b.Value(t, "SELECT @@server_uuid"))
			}
		})
	}
}

func TestDatabaseServerEmpty(t *testing.T) {
	for version, start := range products() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.Exec(t, "CREATE DATABASE d")
			require.Error(t, s.Empty(t.Context()), "while it runs")
			s.Kill(t)
			require.NoError(t, s.Empty(t.Context()))
			s.Restart(t)
			require.Equal(t, "0", s.Value(t, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'd'"))
		})
	}
}

func TestDatabaseServerConfig(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t, servers.WithConfig("local_infile=OFF", "skip_log_bin", "sort_buffer_size=1234567"))
	require.Equal(t, "0", s.Value(t, "SELECT @@local_infile"))
	require.Equal(t, "0", s.Value(t, "SELECT @@log_bin"))
	require.Equal(t, "1234567", s.Value(t, "SELECT @@sort_buffer_size"))
}

func TestDatabaseServerRefusesWrongConfig(t *testing.T) {
	t.Parallel()
	_, err := servers.StartMariaDB(t.Context(), t.TempDir(), servers.WithConfig("no_such_setting=1"))
	require.ErrorContains(t, err, "no_such_setting")
}

func TestDatabaseServerTLS(t *testing.T) {
	for version, start := range products() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := start(t, servers.WithTLS())
			s.Exec(t, "CREATE USER x@'%' IDENTIFIED BY 'secret' REQUIRE X509")
			certificate, err := tls.LoadX509KeyPair(s.TLS.ClientCert, s.TLS.ClientKey)
			require.NoError(t, err)
			with := &tls.Config{RootCAs: pool(t, s.TLS.CA), ServerName: s.Host, Certificates: []tls.Certificate{certificate}}
			require.NoError(t, connect(t, s, with))
			require.Error(t, connect(t, s, &tls.Config{RootCAs: with.RootCAs, ServerName: s.Host}), "without the client's certificate")
			require.Error(t, connect(t, s, nil), "without TLS")
		})
	}
}

func connect(t *testing.T, s *servers.MySQL, config *tls.Config) error {
	t.Helper()
	c := driver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.TLS = "x", "secret", "tcp", s.Addr, config
	connector, err := driver.NewConnector(c)
	require.NoError(t, err)
	conn, err := connector.Connect(t.Context())
	if err != nil {
		return err
	}
	return conn.Close()
}

func pool(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	p := x509.NewCertPool()
	require.True(t, p.AppendCertsFromPEM(data))
	return p
}

func TestS3(t *testing.T) {
	t.Parallel()
	s := servers.S3(t, servers.WithBuckets("one", "two"), servers.WithVersioning(), servers.WithAccount("other", "other-secret", "user"))
	require.DirExists(t, filepath.Join(s.Dir, "one"))
	require.DirExists(t, filepath.Join(s.Dir, "two"))
	body := filepath.Join(t.TempDir(), "body")
	require.NoError(t, os.WriteFile(body, []byte("hello"), 0o600))
	// curl signs requests by itself.
	put := func(key, secret string) string {
		out, err := exec.CommandContext(t.Context(), servers.Tool(t, "curl"), "-s", "-o", os.DevNull, "-w", "%{http_code}",
			"--aws-sigv4", "aws:amz:"+s.Region+":s3", "-u", key+":"+secret, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
			"-T", body, s.Endpoint+"/one/object").Output()
		if err != nil {
			return err.Error()
		}
		return string(out)
	}
	require.Equal(t, "200", put(s.AccessKey, s.SecretKey))
	require.FileExists(t, filepath.Join(s.Dir, "one", "object"))
	require.Equal(t, "403", put(s.AccessKey, "wrong"))
	require.Equal(t, "403", put("other", "other-secret"))
	s.Stop(t)
	require.Equal(t, "exit status 7", put(s.AccessKey, s.SecretKey), "connection refused")
	s.Start(t)
	require.Equal(t, "200", put(s.AccessKey, s.SecretKey))
}

func TestS3TLS(t *testing.T) {
	t.Parallel()
	s := servers.S3(t, servers.WithS3TLS(), servers.WithBuckets("one"))
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool(t, s.CAFile)},
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Endpoint+"/one/nothing", http.NoBody)
	require.NoError(t, err)
	response, err := client.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusForbidden, response.StatusCode)
	_, err = http.DefaultClient.Do(request) //nolint:bodyclose // there is no response
	require.ErrorContains(t, err, "certificate")
}

// TestTools runs every tool: a missing library shows only then.
func TestTools(t *testing.T) {
	t.Parallel()
	for _, command := range []string{
		"age --version", "age-keygen --version", "curl --version", "jq --version", "zstd --version", "mariadb --version",
		"mariadb-dump --version", "mariadb-admin --version", "mariadb-backup --version", "mydumper --version",
		"myloader --version", "sysbench --version", "sysbench oltp_read_only help", "mysql --version",
		"mysqldump --version", "mysqladmin --version", "restic version", "mbstream --help",
	} {
		words := strings.Fields(command)
		out, err := exec.CommandContext(t.Context(), servers.Tool(t, words[0]), words[1:]...).CombinedOutput()
		require.NoError(t, err, "%s: %s", command, out)
	}
}

func TestMissingCache(t *testing.T) {
	t.Setenv("KEEPSET_CACHE", t.TempDir())
	_, err := servers.FindTool("age")
	require.ErrorIs(t, err, servers.ErrNotInstalled)
	require.ErrorContains(t, err, "make servers")
	_, err = servers.StartMariaDB(t.Context(), t.TempDir())
	require.ErrorIs(t, err, servers.ErrNotInstalled)
}
