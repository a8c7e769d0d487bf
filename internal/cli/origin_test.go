package cli

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage/dir"
)

// clusterCA is some cluster's certificate authority.
const clusterCA = `-----BEGIN CERTIFICATE-----
MIIBgTCCASegAwIBAgIUYgvP0XtQRXIecTNpNFXaX2dLPuMwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjAxNzA2MjRaGA8yMTI2MTAy
NzE3MDYyNFowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABAiooGqXRvrJvQgHMMH5ltvtoPhyE1oWCjBl4r0gA1lc3Y/oZgSa
wa+P9Xm30tPAVYMivNGUNZYv/Sr9XeqntsajUzBRMB0GA1UdDgQWBBQ49GqvUYXP
I2ZyPKDXOwLBMUdfojAfBgNVHSMEGDAWgBQ49GqvUYXPI2ZyPKDXOwLBMUdfojAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIGYR4vMaXGArTsCjWkB5
ZkDAl6WXKaO1ghBjHbPQ278bAiEA2ic0UJ4qiE+PPWIR3vbaQak4YpPNFQrONkmL
SVc8vzc=
-----END CERTIFICATE-----
`

// backupJob makes the job of `backup run` with flags.
func backupJob(t *testing.T, args ...string) (origin string, err error) {
	t.Helper()
	root := t.TempDir()
	store, err := dir.Create(dir.Options{Path: root})
	require.NoError(t, err)
	_, err = repository.Init(t.Context(), store, repository.InitOptions{})
	require.NoError(t, err)
	a, _ := app()
	var f BackupFlags
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.Add(fs)
	require.NoError(t, fs.Parse(append(args, "--repository", "file://"+root)))
	b, done, err := f.Job(t.Context(), a)
	if err != nil {
		return "", err
	}
	done()
	return b.Plan.Origin, nil
}

// TestOriginOfABackup is the cluster's by default, and what --origin says.
func TestOriginOfABackup(t *testing.T) {
	directory := t.TempDir()
	kubeconfig := filepath.Join(directory, "config")
	ca := filepath.Join(directory, "ca.crt")
	require.NoError(t, os.WriteFile(ca, []byte(clusterCA), 0o600))
	require.NoError(t, os.WriteFile(kubeconfig, []byte(`{apiVersion: v1, kind: Config, current-context: x,
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1", certificate-authority: ca.crt}}],
users: [{name: u, user: {token: t}}],
contexts: [{name: x, context: {cluster: c, user: u, namespace: shop}}]}
`), 0o600))
	inCluster := []string{"--set", "shop/mysql", "--kubeconfig", kubeconfig, "--source-user", "root"}
	origin, err := backupJob(t, inCluster...)
	require.NoError(t, err)
	assert.Regexp(t, `^ca-[0-9a-f]{16}$`, origin)
	origin, err = backupJob(t, append(inCluster, "--origin", "production")...)
	require.NoError(t, err)
	assert.Equal(t, "production", origin)

	plain := []string{"--set", "orders", "--source", "mysql://root@127.0.0.1:1"}
	origin, err = backupJob(t, plain...)
	require.NoError(t, err)
	assert.Empty(t, origin)
	origin, err = backupJob(t, append(plain, "--origin", "production")...)
	require.NoError(t, err)
	assert.Equal(t, "production", origin)
}

// TestWhoAdoptsASet of an earlier version, whose origin is empty: a Job, and
// whoever says the name; not somebody with a kubeconfig, which may name the
// authority of a proxy.
func TestWhoAdoptsASet(t *testing.T) {
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/apis/batch/v1/namespaces/shop/jobs/nightly", r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		_, err := w.Write([]byte(`{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "nightly", "namespace": "shop",
"uid": "11111111-2222-3333-4444-555555555555", "creationTimestamp": "2026-11-20T02:30:00Z"}}`))
		assert.NoError(t, err)
	}))
	t.Cleanup(api.Close)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	directory := t.TempDir()
	kubeconfig := filepath.Join(directory, "config")
	require.NoError(t, os.WriteFile(filepath.Join(directory, "ca.crt"), authority, 0o600))
	require.NoError(t, os.WriteFile(kubeconfig, []byte(`{apiVersion: v1, kind: Config, current-context: x,
clusters: [{name: c, cluster: {server: "`+api.URL+`", certificate-authority: ca.crt}}],
users: [{name: u, user: {token: t}}],
contexts: [{name: x, context: {cluster: c, user: u, namespace: shop}}]}
`), 0o600))
	inJob := []string{"KEEPSET_JOB_NAME=nightly", "KEEPSET_POD_NAME=nightly-x", "KEEPSET_POD_UID=99999999-2222-3333-4444-555555555555"}
	for name, c := range map[string]struct {
		env, args []string
		adopts    bool
	}{
		"laptop":           {nil, nil, false},
		"laptop, by name":  {nil, []string{"--origin", "production"}, true},
		"a Job of Keepset": {inJob, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			store, err := dir.Create(dir.Options{Path: root})
			require.NoError(t, err)
			_, err = repository.Init(t.Context(), store, repository.InitOptions{})
			require.NoError(t, err)
			plain, err := repository.Open(t.Context(), store, repository.Keys{}, repository.Options{})
			require.NoError(t, err)
			plan := record.Plan{
				Set: record.SetID{Namespace: "shop", Name: "mysql"}, CreatedAt: time.Now().UTC(), ID: record.NewBackupID(time.Now(), ""),
				Method: record.MethodDump, Engine: "mysql", Members: []record.PlannedMember{{Ordinal: 0, Name: "mysql-0"}}, Replicas: 1,
			}
			begin := func(r *repository.Repository, origin string) {
				plan.Origin = origin
				b, err := r.Begin(t.Context(), plan, record.NewAttemptID())
				require.NoError(t, err)
				require.NoError(t, b.Close())
			}
			begin(plain, "")
			a, _ := app(c.env...)
			var f BackupFlags
			fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
			f.Add(fs)
			require.NoError(t, fs.Parse(append(c.args, "--set", "shop/mysql", "--kubeconfig", kubeconfig, "--source-user", "root", "--repository", "file://"+root)))
			b, done, err := f.Job(t.Context(), a)
			require.NoError(t, err)
			defer done()
			require.NotEmpty(t, b.Plan.Origin)
			begin(b.Repository, b.Plan.Origin)
			_, err = os.Stat(filepath.Join(root, "sets/shop/mysql/origin.1"))
			if c.adopts {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, os.ErrNotExist)
			}
		})
	}
}
