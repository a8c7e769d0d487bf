package statefulset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
)

// OriginPrefix begins the origins that nobody has chosen.
const OriginPrefix = "ca-"

// Origin is a name for the cluster that nobody has to choose: "ca-" and 16 hex
// digits of the SHA-256 of the public key of its certificate authority. A
// pod's service account and a kubeconfig of the same cluster give the same
// one, and a certificate that is renewed for the same key does. It is empty
// when the API server is not verified by an authority of its own. Only who
// writes backups needs it: that the authority cannot be read stops nobody else.
func (c *Client) Origin() (string, error) { return c.origin() }

// originOf reads the authority's first certificate.
func originOf(config *rest.Config) (string, error) {
	data := config.CAData
	if len(data) == 0 && config.CAFile != "" {
		var err error
		if data, err = os.ReadFile(config.CAFile); err != nil {
			return "", fmt.Errorf("read the cluster's certificate authority: %w", err)
		}
	}
	if len(data) == 0 {
		return "", nil
	}
	certificates, err := cert.ParseCertsPEM(data)
	if err != nil {
		return "", fmt.Errorf("read the cluster's certificate authority: %w; mend the bundle, or name the cluster by --origin", err)
	}
	sum := sha256.Sum256(certificates[0].RawSubjectPublicKeyInfo)
	return OriginPrefix + hex.EncodeToString(sum[:8]), nil
}
