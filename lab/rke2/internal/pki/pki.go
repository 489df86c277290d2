// Package pki makes the certificate authorities and leaf certificates that
// RKE2 keeps under server/tls: ECDSA P-256, CAs for 10 years, leaves for 365
// days, leaves made anew at a start within 120 days of their end.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	caLife     = 3650 * 24 * time.Hour
	leafLife   = 365 * 24 * time.Hour
	renewUnder = 120 * 24 * time.Hour
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	key  crypto.Signer
	PEM  []byte
}

// Leaf describes a certificate to issue.
type Leaf struct {
	CommonName    string
	Organizations []string
	Names         []string // DNS names and IP addresses
	Server        bool
	Client        bool
}

// WriteFile writes atomically with the given mode and makes the folder.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	if _, err = temporary.Write(data); err == nil {
		err = temporary.Chmod(mode)
	}
	if closing := temporary.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err)
	}
	return n
}

func encodeKey(key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// EnsureAuthority loads the authority at base.crt and base.key, or makes it.
func EnsureAuthority(base, commonName string) (*Authority, error) {
	if _, err := os.Stat(base + ".key"); errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		now := time.Now().UTC()
		template := &x509.Certificate{
			SerialNumber: serial(), Subject: pkix.Name{CommonName: fmt.Sprintf("%s@%d", commonName, now.Unix())},
			NotBefore: now.Add(-time.Minute), NotAfter: now.Add(caLife), IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return nil, err
		}
		if err := WriteFile(base+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
			return nil, err
		}
		if err := WriteFile(base+".key", encodeKey(key), 0o600); err != nil {
			return nil, err
		}
	}
	certPEM, err := os.ReadFile(base + ".crt")
	if err != nil {
		return nil, err
	}
	cert, err := ParseCert(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s.crt: %w", base, err)
	}
	keyPEM, err := os.ReadFile(base + ".key")
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s.key: %w", base, err)
	}
	return &Authority{Cert: cert, key: key, PEM: certPEM}, nil
}

// ParseCert reads the first certificate of a PEM file.
func ParseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("holds no PEM block")
	}
	return x509.ParseCertificate(block.Bytes)
}

// parseKey accepts the three PEM forms of private keys, since RKE2 lets an
// administrator put CAs of their own into server/tls before the first start.
func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("holds no PEM block")
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("unsupported key type %T", key)
	}
	return signer, nil
}

func (a *Authority) sign(leaf Leaf, public any) ([]byte, error) {
	now := time.Now().UTC()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organizations},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(leafLife), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	if leaf.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if leaf.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, name := range leaf.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, public, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// SignRequest issues leaf for the public key of a certificate request (PEM).
func (a *Authority) SignRequest(leaf Leaf, requestPEM []byte) ([]byte, error) {
	block, _ := pem.Decode(requestPEM)
	if block == nil {
		return nil, errors.New("certificate request holds no PEM block")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	return a.sign(leaf, request.PublicKey)
}

// EnsureLeaf keeps base.crt and base.key when they are signed by a, carry the
// names and subject asked for and live long enough; else it makes them anew.
func (a *Authority) EnsureLeaf(base string, leaf Leaf) error {
	if current, err := os.ReadFile(base + ".crt"); err == nil {
		cert, err := ParseCert(current)
		_, missing := os.Stat(base + ".key")
		if err == nil && missing == nil && cert.CheckSignatureFrom(a.Cert) == nil && time.Until(cert.NotAfter) > renewUnder &&
			cert.Subject.CommonName == leaf.CommonName && slices.Equal(names(cert), sorted(leaf.Names)) {
			return nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	certPEM, err := a.sign(leaf, key.Public())
	if err != nil {
		return err
	}
	if err := WriteFile(base+".key", encodeKey(key), 0o600); err != nil {
		return err
	}
	return WriteFile(base+".crt", append(certPEM, a.PEM...), 0o644)
}

func sorted(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

func names(cert *x509.Certificate) []string {
	all := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	return sorted(all)
}

// NewRequest makes a key and a certificate request for it, both PEM.
func NewRequest() (keyPEM, requestPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, err
	}
	return encodeKey(key), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// EnsureServiceKey makes the RSA key that signs service account tokens.
func EnsureServiceKey(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600)
}
