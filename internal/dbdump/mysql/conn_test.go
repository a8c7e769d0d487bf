package mysql

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

func TestTLSWithAuthorityAndClientCertificate(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			s := f.start(t, servers.WithTLS())
			s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)", "INSERT INTO app.t VALUES (1)",
				"CREATE USER strict@'%' IDENTIFIED BY 'x' REQUIRE X509", "GRANT ALL ON *.* TO strict@'%' WITH GRANT OPTION")
			if f.name == "mysql" {
				s.Exec(t, "GRANT BACKUP_ADMIN, SHOW_ROUTINE ON *.* TO strict@'%'")
			}
			o := options(t, s)
			o.User, o.Password = "strict", "x"
			o.TLS = TLS{CA: s.TLS.CA, Cert: s.TLS.ClientCert, Key: s.TLS.ClientKey}
			_, report := dumpWith(t, o)
			require.EqualValues(t, 1, report.Rows)

			o.TLS = TLS{CA: s.TLS.CA}
			_, err := tryDump(t, o, newMemSink())
			require.ErrorIs(t, err, dbdump.ErrAccess, "the account wants a certificate")
			o.TLS = TLS{Required: true}
			_, err = tryDump(t, o, newMemSink())
			require.ErrorIs(t, err, dbdump.ErrUntrusted, "nobody known has signed the server's certificate")
			o.TLS = TLS{CA: s.TLS.CA, Cert: s.TLS.ClientCert, Key: s.TLS.ClientKey, ServerName: "another.example"}
			_, err = tryDump(t, o, newMemSink())
			require.ErrorContains(t, err, "another.example")
			require.ErrorIs(t, err, dbdump.ErrUntrusted)
			o.TLS = TLS{Cert: s.TLS.ClientCert}
			_, err = New(o)
			require.ErrorContains(t, err, "both the certificate and its key")
		})
	}
}

func TestASocketIsAnAddress(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		o := options(t, s)
		o.Address = s.Socket
		_, report := dumpWith(t, o)
		require.Contains(t, report.Warnings, "the server holds no database apart from its own")
	})
}

// Networks that keep pods apart do so in silence or by a refusal; neither's own words lead there.
func TestAnUnreachableServerMayBeThePoliciesDoing(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	o := Options{Address: listener.Addr().String(), User: "anybody", ConnectTimeout: 300 * time.Millisecond}
	_, err = newEngine(t, o).openSession(t.Context()) // the kernel takes the connection, and nobody answers
	require.ErrorIs(t, err, dbdump.ErrUnreachable)
	require.ErrorContains(t, err, "no answer within 300ms; check the address, and the network policies of both ends")
	require.NoError(t, listener.Close())
	_, err = newEngine(t, o).openSession(t.Context())
	require.ErrorIs(t, err, dbdump.ErrUnreachable)
	require.ErrorContains(t, err, "either no server listens there, or a network policy refuses the connection")
	require.ErrorContains(t, err, o.Address)
}

// When the connection that holds the lock or one that reads is killed in the
// server, the dump fails.
func TestAKilledConnectionFailsTheDump(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v LONGBLOB)",
			"INSERT INTO app.t VALUES (1, REPEAT('x', 8000000)), (2, REPEAT('x', 8000000)), (3, REPEAT('x', 8000000))",
			"CREATE USER victim@'%' IDENTIFIED BY 'x'", "GRANT ALL ON *.* TO victim@'%'")
		if !strings.Contains(s.Value(t, "SELECT VERSION()"), "MariaDB") {
			s.Exec(t, "GRANT BACKUP_ADMIN, SHOW_ROUTINE ON *.* TO victim@'%'")
		}
		o := options(t, s)
		o.User, o.Password = "victim", "x"
		for what, which := range map[string]string{
			"the connection that held the lock was lost": "ORDER BY ID LIMIT 1",
			"read table `app`.`t`":                       "AND INFO LIKE '%FROM `app`.`t`%'",
		} {
			sink := newMemSink()
			var once sync.Once
			sink.onWrite = func(name string, _ []byte) error {
				if strings.HasSuffix(name, ".tsv") {
					once.Do(func() {
						s.Exec(t, "KILL "+s.Value(t, "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'victim' "+which))
					})
				}
				return nil
			}
			_, err := tryDump(t, o, sink)
			require.ErrorContains(t, err, what)
		}
	})
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"10.11.14-MariaDB-0+deb12u2-log": 101114, "9.7.4-2": 90704, "8.0.36-28": 80036, "5.7.44-log": 50744, "11.8-MariaDB": 110800,
	} {
		_, n, err := parseVersion(text)
		require.NoError(t, err)
		require.Equal(t, want, n, text)
	}
	for _, text := range []string{"", "MariaDB", "10", "x.y"} {
		_, _, err := parseVersion(text)
		require.Error(t, err, text)
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	f := Filter{Include: []string{"shop", "app.user*", "a/b"}, Exclude: []string{"shop.log_*", "app.users_old", "*.tmp"}}
	require.True(t, f.Whole("shop"))
	require.False(t, f.Whole("app"))
	for name, want := range map[string]bool{
		"shop.orders": true, "shop.log_1": false, "app.users": true, "app.users_old": false, "app.other": false,
		"shop.tmp": false, "a/b.c": true, "nothing.x": false,
	} {
		s, table, _ := strings.Cut(name, ".")
		require.Equal(t, want, f.Table(s, table), name)
	}
	require.True(t, Filter{Exclude: []string{"old"}}.Schema("new"))
	require.False(t, Filter{Exclude: []string{"old"}}.Schema("old"))
	for _, bad := range []string{"", ".t", "s.", "[", "s.[a"} {
		require.Error(t, Filter{Include: []string{bad}}.validate(), bad)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	good := Options{Address: "localhost:3306", User: "u"}
	_, err := New(good)
	require.NoError(t, err)
	for _, bad := range []func(o *Options){
		func(o *Options) { o.Address = "" }, func(o *Options) { o.Address = "localhost" }, func(o *Options) { o.User = "" },
		func(o *Options) { o.LockMode = "hard" }, func(o *Options) { o.NonTransactional = "x" }, func(o *Options) { o.LockWait = 1 },
		func(o *Options) { o.Filter.Exclude = []string{"a."} }, func(o *Options) { o.TLS.CA = "/does/not/exist" },
	} {
		o := good
		bad(&o)
		_, err := New(o)
		require.Error(t, err)
	}
}

func TestNamesBecomePathElements(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"plain_Name-1.x": "plain_Name-1.x", ".hidden": "%2Ehidden", "..": "%2E.", "a/b": "a%2Fb", "é": "%C3%A9", "50%": "50%25", "": "", "a b": "a%20b",
	} {
		require.Equal(t, want, escapeElement(name), name)
	}
	require.Equal(t, "schemas/a%2Fb/data/t/00002-00000007.tsv", dataStream("a/b", "t", 2, 7))
}
