package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// TLSFiles are the PEM files of one server: its authority, its own certificate and one for a client.
type TLSFiles struct {
	CA         string
	Cert       string // for 127.0.0.1, ::1 and localhost
	Key        string
	ClientCert string // common name keepset-client
	ClientKey  string
}

// writeTLS makes an authority and the certificates that it signs, valid for a day, and writes them into dir/tls.
func writeTLS(dir string) (TLSFiles, error) {
	dir = filepath.Join(dir, "tls")
	files := TLSFiles{
		CA:   filepath.Join(dir, "ca.pem"),
		Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server-key.pem"),
		ClientCert: filepath.Join(dir, "client.pem"), ClientKey: filepath.Join(dir, "client-key.pem"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return TLSFiles{}, fmt.Errorf("make certificates: %w", err)
	}
	authority := certificate(1, "keepset test authority")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage = x509.KeyUsageCertSign
	authorityKey, err := writeCertificate(files.CA, "", authority, authority, nil)
	if err != nil {
		return TLSFiles{}, err
	}
	server := certificate(2, "keepset test server")
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.DNSNames = []string{"localhost"}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if _, err := writeCertificate(files.Cert, files.Key, server, authority, authorityKey); err != nil {
		return TLSFiles{}, err
	}
	client := certificate(3, "keepset-client")
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := writeCertificate(files.ClientCert, files.ClientKey, client, authority, authorityKey); err != nil {
		return TLSFiles{}, err
	}
	return files, nil
}

// certificate returns the fields that all three have in common.
func certificate(serial int64, name string) *x509.Certificate {
	now := time.Now() // a certificate is valid by the machine's own clock
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// writeCertificate makes a key, writes the certificate that the parent's key signs (its own without one) and, when
// keyFile is not empty, the key.
func writeCertificate(certFile, keyFile string, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", keyFile, err)
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", certFile, err)
	}
	if err := writePEM(certFile, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	if keyFile == "" {
		return key, nil
	}
	if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, fmt.Errorf("make %s: %w", keyFile, err)
	}
	return key, writePEM(keyFile, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
