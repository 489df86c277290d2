package pki

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLeavesAreKeptUntilTheirNamesChange(t *testing.T) {
	base := filepath.Join(t.TempDir(), "ca")
	authority, err := EnsureAuthority(base, "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	leaf := Leaf{CommonName: "api", Names: []string{"a.example", "192.0.2.1", "a.example"}, Server: true}
	path := filepath.Join(filepath.Dir(base), "tls", "leaf")
	if err := authority.EnsureLeaf(path, leaf); err != nil {
		t.Fatal(err)
	}
	first := read(t, path+".crt")
	cert, err := ParseCert([]byte(first))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority.Cert)
	for _, name := range []string{"a.example", "192.0.2.1"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Error(err)
		}
	}
	again, err := EnsureAuthority(base, "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.EnsureLeaf(path, leaf); err != nil {
		t.Fatal(err)
	}
	if read(t, path+".crt") != first {
		t.Error("made anew without a reason")
	}
	leaf.Names = append(leaf.Names, "b.example")
	if err := again.EnsureLeaf(path, leaf); err != nil {
		t.Fatal(err)
	}
	if read(t, path+".crt") == first {
		t.Error("kept although a name was added")
	}
	if info, err := os.Stat(path + ".key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v %v", info, err)
	}
}

func TestRequestsMustBeSignedByTheirKey(t *testing.T) {
	authority, err := EnsureAuthority(filepath.Join(t.TempDir(), "ca"), "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	_, request, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority.SignRequest(Leaf{CommonName: "x", Client: true}, request); err != nil {
		t.Error(err)
	}
	if _, err := authority.SignRequest(Leaf{CommonName: "x"}, []byte("nonsense")); err == nil {
		t.Error("nonsense was signed")
	}
}
