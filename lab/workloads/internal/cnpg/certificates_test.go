package cnpg

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/cloudnative-pg/cloudnative-pg/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// signed is a certificate with its key; text is what a Secret holds: the chain without the root, as cert-manager writes it.
type signed struct {
	made      *x509.Certificate
	key       *ecdsa.PrivateKey
	text, pem []byte
}

func sign(t *testing.T, by *signed, template x509.Certificate) *signed {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-2*time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	template.BasicConstraintsValid = true
	parent, signer := &template, key
	if by != nil {
		parent, signer = by.made, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text := own
	if by != nil && by.made.Issuer.String() != by.made.Subject.String() {
		text = append(append([]byte{}, own...), by.text...)
	}
	return &signed{made, key, text, own}
}

func (s *signed) private(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func named(name string) pkix.Name { return pkix.Name{CommonName: name} }

func data(name string, values map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Data: values}
}

// platform is what the product gives a database: a bundle in which the root of the platform stands behind another one, and a
// certificate of an intermediate that may sign for one name of it alone.
func platform(t *testing.T, change func(*x509.Certificate)) (bundle, pair *corev1.Secret) {
	t.Helper()
	authority := x509.Certificate{Subject: named("root"), IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	root := sign(t, nil, authority)
	authority.Subject = named("another")
	another := sign(t, nil, authority)
	authority.Subject, authority.PermittedDNSDomains, authority.PermittedDNSDomainsCritical = named("intermediate"), []string{"svc"}, true
	intermediate := sign(t, root, authority)
	leaf := x509.Certificate{
		DNSNames: []string{"db-rw.n.svc"}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(&leaf)
	}
	server := sign(t, intermediate, leaf)
	bundle = data("authorities", map[string][]byte{"ca.crt": append(append([]byte{}, another.pem...), root.pem...)})
	pair = data("tls", map[string][]byte{"tls.crt": server.text, "tls.key": server.private(t), "ca.crt": intermediate.pem})
	return bundle, pair
}

func certified(c apiv1.CertificatesConfiguration) *apiv1.Cluster {
	made := cluster(1, "mine")
	made.Spec.Certificates = &c
	return made
}

var product = apiv1.CertificatesConfiguration{ServerTLSSecret: "tls", ServerCASecret: "authorities"}

// held checks that a cluster does not come up, and why.
func (w world) held(phase, reason string) {
	w.Helper()
	s := w.round()
	if s.Phase != phase || !strings.Contains(s.PhaseReason, reason) || len(w.pods()) != 0 {
		w.Errorf("phase %q, reason %q, want %q with %q; pods %v", s.Phase, s.PhaseReason, phase, reason, w.pods())
	}
	for _, c := range s.Conditions {
		if c.Type == "Ready" && c.Status == metav1.ConditionTrue {
			w.Error("ready all the same")
		}
	}
}

func TestAClusterWaitsForTheCertificatesThatItNames(t *testing.T) {
	bundle, pair := platform(t, nil)
	w := newWorld(t, certified(product), basicAuth())
	for _, one := range []struct {
		reason string
		then   client.Object
	}{
		{`missing specified server CA secret authorities: secrets "authorities" not found`, bundle},
		{`missing specified server TLS secret tls: secrets "tls" not found`, pair},
	} {
		w.held("Unable to create required cluster objects", one.reason)
		if err := w.o.Client.Create(context.Background(), one.then); err != nil {
			t.Fatal(err)
		}
	}
	w.round("db-1")
	if s := w.round(); s.Phase != apiv1.PhaseHealthy {
		t.Errorf("%s: %s", s.Phase, s.PhaseReason)
	}
	// What clients log in by is signed by an authority of its own, which nobody named.
	if err := w.o.Client.Get(context.Background(), client.ObjectKey{Namespace: "n", Name: "db-ca"}, &corev1.Secret{}); err != nil {
		t.Error(err)
	}
}

func TestCertificatesThatDoNotFitHoldTheClusterBack(t *testing.T) {
	bundle, pair := platform(t, nil)
	_, foreign := platform(t, nil)
	_, late := platform(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	without := func(from *corev1.Secret, key string) *corev1.Secret {
		made := from.DeepCopy()
		delete(made.Data, key)
		return made
	}
	mixed := pair.DeepCopy()
	mixed.Data["tls.key"] = foreign.Data["tls.key"]
	alone := pair.DeepCopy()
	block, _ := pem.Decode(pair.Data["tls.crt"])
	alone.Data["tls.crt"] = pem.EncodeToMemory(block)
	for reason, objects := range map[string][]client.Object{
		"generating server CA certificate: missing ca.crt secret data":                              {without(bundle, "ca.crt"), pair},
		"generating server CA certificate: invalid public key PEM block type":                       {data("authorities", map[string][]byte{"ca.crt": []byte("text")}), pair},
		"generating server TLS certificate: missing tls.key secret data":                            {bundle, without(pair, "tls.key")},
		"generating server TLS certificate: missing tls.crt secret data":                            {bundle, without(pair, "tls.crt")},
		"generating server TLS certificate: tls: private key does not match":                        {bundle, mixed},
		"generating server TLS certificate: failed to verify certificate: x509: certificate signed": {bundle, foreign},
		"generating server TLS certificate: failed to verify certificate":                           {bundle, late},
		"failed to verify certificate: x509: certificate signed by unknown authority":               {bundle, alone},
	} {
		newWorld(t, append(objects, certified(product), basicAuth())...).held("Unable to create required cluster objects", reason)
	}
	newWorld(t, certified(apiv1.CertificatesConfiguration{ServerCASecret: "authorities"}), basicAuth(), bundle).
		held("Unable to create required cluster objects", "missing ca.key secret data")
}

func TestTheUsageOfACertificateCountsAndItsNamesDoNot(t *testing.T) {
	bundle, pair := platform(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	newWorld(t, certified(product), basicAuth(), bundle, pair).
		held("Unable to create required cluster objects", "incompatible key usage")
	bundle, pair = platform(t, func(c *x509.Certificate) { c.DNSNames = []string{"elsewhere.svc"} })
	w := newWorld(t, certified(product), basicAuth(), bundle, pair)
	w.round("db-1")
	if s := w.round(); s.Phase != apiv1.PhaseHealthy {
		t.Errorf("another name: %s: %s", s.Phase, s.PhaseReason)
	}
	bundle, pair = platform(t, func(c *x509.Certificate) { c.DNSNames = []string{"db.example.com"} })
	newWorld(t, certified(product), basicAuth(), bundle, pair).
		held("Unable to create required cluster objects", "is not permitted")
}

func TestCertificatesOfClientsAreWaitedForToo(t *testing.T) {
	bundle, pair := platform(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	w := newWorld(t, certified(apiv1.CertificatesConfiguration{ClientCASecret: "authorities", ReplicationTLSSecret: "tls"}), basicAuth())
	w.held("Unable to create required cluster objects", "missing specified client CA secret authorities")
	for _, one := range []client.Object{bundle, pair} {
		if err := w.o.Client.Create(context.Background(), one); err != nil {
			t.Fatal(err)
		}
		if one == client.Object(bundle) {
			w.held("Unable to create required cluster objects", "missing specified streaming replication client TLS secret tls")
		}
	}
	w.round("db-1")
	if s := w.round(); s.Phase != apiv1.PhaseHealthy {
		t.Errorf("%s: %s", s.Phase, s.PhaseReason)
	}
}

func TestNamesOfCertificatesThatDoNotGoTogetherAreRefused(t *testing.T) {
	for reason, one := range map[string]apiv1.CertificatesConfiguration{
		"serverTLSSecret without serverCASecret":      {ServerTLSSecret: "tls"},
		"replicationTLSSecret without clientCASecret": {ReplicationTLSSecret: "tls"},
		"serverTLSSecret and serverAltDNSNames":       {ServerTLSSecret: "tls", ServerCASecret: "authorities", ServerAltDNSNames: []string{"a"}},
	} {
		newWorld(t, certified(one), basicAuth()).held("Invalid cluster definition", reason)
	}
}
