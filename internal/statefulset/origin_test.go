package statefulset

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// authority is a certificate authority's certificate, PEM.
func authority(t *testing.T, key *ecdsa.PrivateKey, serial int64) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true,
		NotBefore: time.Unix(serial, 0), NotAfter: time.Unix(serial+1e9, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// TestOrigin: a pod's file and a kubeconfig's data name the same cluster, in
// spite of white space and a renewed certificate; another key, another one.
func TestOrigin(t *testing.T) {
	key := newKey(t)
	one := authority(t, key, 1)
	origin, err := originOf(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: one}})
	require.NoError(t, err)
	assert.Regexp(t, `^ca-[0-9a-f]{16}$`, origin)

	file := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(file, append([]byte("# the cluster's\n\n"), authority(t, key, 2)...), 0o600))
	same, err := originOf(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: file}})
	require.NoError(t, err)
	assert.Equal(t, origin, same)

	other, err := originOf(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: authority(t, newKey(t), 1)}})
	require.NoError(t, err)
	assert.NotEqual(t, origin, other)

	none, err := originOf(&rest.Config{})
	require.NoError(t, err)
	assert.Empty(t, none)
	_, err = originOf(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: []byte("?")}})
	require.ErrorContains(t, err, "certificate authority")
	_, err = originOf(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: file + "x"}})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// kubeconfig names a cluster that is never reached.
func kubeconfig(t *testing.T, ca string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(path, []byte(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1", certificate-authority: "`+ca+`"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: shop}}]
current-context: x
`), 0o600))
	return path
}

// TestConnectKnowsTheOrigin of the cluster that a kubeconfig names.
func TestConnectKnowsTheOrigin(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.crt")
	data := authority(t, newKey(t), 1)
	require.NoError(t, os.WriteFile(ca, data, 0o600))
	want, err := originOf(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: data}})
	require.NoError(t, err)
	c, err := Connect(Options{Kubeconfig: kubeconfig(t, ca)})
	require.NoError(t, err)
	origin, err := c.Origin()
	require.NoError(t, err)
	assert.Equal(t, want, origin)
}

// TestConnectWithABundle of which client-go can use a part: only who needs the
// origin is told.
func TestConnectWithABundle(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.crt")
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("?")})
	require.NoError(t, os.WriteFile(ca, append(authority(t, newKey(t), 1), broken...), 0o600))
	c, err := Connect(Options{Kubeconfig: kubeconfig(t, ca)})
	require.NoError(t, err)
	_, err = c.Origin()
	require.ErrorContains(t, err, "certificate authority")
	require.ErrorContains(t, err, "--origin")
}
