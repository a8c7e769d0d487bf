package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// TLS says how the connection is protected.
type TLS struct {
	// Required refuses a server that does not speak TLS. Implied by the files below.
	Required bool
	// CA, Cert and Key are PEM files; CA replaces the system's roots.
	CA, Cert, Key string
	// SkipVerify encrypts without checking whom one talks to.
	SkipVerify bool
	// AnyName takes what the authority of CA has signed for whatever name: a pod that
	// is asked at its address has that in no certificate. The system's sign for everybody.
	AnyName bool
}

// config is nil when nothing was asked for.
func (t TLS) config(address string) (*tls.Config, error) {
	if t == (TLS{}) {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.SkipVerify} //nolint:gosec // asked for by name
	if host, _, err := net.SplitHostPort(address); err == nil {
		c.ServerName = host
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read the CA of the server: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the CA of the server: no certificate in %s", t.CA)
		}
	}
	if t.AnyName && t.CA != "" && !t.SkipVerify {
		c.InsecureSkipVerify = true // but for what comes instead
		c.VerifyConnection = func(s tls.ConnectionState) error { return signed(s.PeerCertificates, c.RootCAs) }
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("a client certificate needs both the certificate and its key")
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// signed makes sure that a certificate is of one of the authorities.
func signed(chain []*x509.Certificate, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

// nowhere is a file that is not there: libpq would take what it finds in the home folder.
const nowhere = "/nonexistent/keepset"

// environment says the same to libpq.
func (t TLS) environment() []string {
	if t == (TLS{}) {
		return []string{"PGSSLMODE=prefer", "PGSSLROOTCERT=" + nowhere, "PGSSLCERT=" + nowhere}
	}
	env := []string{"PGSSLMODE=verify-full"}
	switch {
	case t.SkipVerify:
		env = []string{"PGSSLMODE=require", "PGSSLROOTCERT=" + nowhere}
	case t.CA != "":
		env = append(env, "PGSSLROOTCERT="+t.CA)
	default:
		env = append(env, "PGSSLROOTCERT=system") // libpq 16 and later; an earlier one says that there is no such file
	}
	if t.Cert != "" {
		return append(env, "PGSSLCERT="+t.Cert, "PGSSLKEY="+t.Key)
	}
	return env
}

// untrusted is why a certificate was not taken; nil when that is not what happened.
func untrusted(err error) error {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.Err
	}
	return nil
}
