package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
