package ingress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Certificates chooses a certificate by the name a client asks for.
type Certificates struct {
	byName   map[string]*tls.Certificate
	fallback *tls.Certificate
}

// NewCertificates indexes the certificates by their own names (a certificate
// serves the names in it, whatever its Ingress says). Earlier ones win.
// fallback answers all other names.
func NewCertificates(served []*tls.Certificate, fallback *tls.Certificate) *Certificates {
	c := &Certificates{byName: map[string]*tls.Certificate{}, fallback: fallback}
	for _, certificate := range served {
		names := certificate.Leaf.DNSNames
		if len(names) == 0 && certificate.Leaf.Subject.CommonName != "" {
			names = []string{certificate.Leaf.Subject.CommonName}
		}
		for _, name := range names {
			name = strings.ToLower(name)
			if c.byName[name] == nil {
				c.byName[name] = certificate
			}
		}
	}
	return c
}

// For returns the certificate for a server name: an exact name first, then a
// wildcard for its first label, then the default.
func (c *Certificates) For(serverName string) *tls.Certificate {
	name := strings.ToLower(strings.TrimSuffix(serverName, "."))
	if found := c.byName[name]; found != nil {
		return found
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if found := c.byName["*."+parent]; found != nil {
			return found
		}
	}
	return c.fallback
}

// ParseCertificate reads a TLS secret's tls.crt and tls.key (PEM).
func ParseCertificate(certificate, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &pair, nil
}

// DefaultCertificate makes the self-signed certificate that Traefik serves
// when nobody gave it another: the same subject and form of name.
func DefaultCertificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	random := make([]byte, 32)
	if _, err = rand.Read(random); err != nil {
		return nil, err
	}
	text := hex.EncodeToString(random)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(random[:16]),
		Subject:      pkix.Name{CommonName: "TRAEFIK DEFAULT CERT"},
		DNSNames:     []string{fmt.Sprintf("%s.%s.traefik.default", text[:32], text[32:])},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
