package site

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
	"strings"
	"testing"
	"time"
)

const host = "gitlab.example.com"

func pair(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// etc makes an /etc/gitlab with a good pair for host.
func etc(t *testing.T, rb string) string {
	t.Helper()
	folder := t.TempDir()
	certificate, key := pair(t, host)
	write(t, folder, "gitlab.rb", []byte(rb))
	write(t, folder, "ssl/"+host+".crt", certificate)
	write(t, folder, "ssl/"+host+".key", key)
	return folder
}

func write(t *testing.T, folder, name string, content []byte) {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

const good = "external_url 'https://" + host + "'\nletsencrypt['enable'] = false\n"

func TestListensWhereGitLabWould(t *testing.T) {
	folder := etc(t, good+"prometheus['listen_address'] = '0.0.0.0:9090'\n")
	site, err := Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	if site.HTTPPort != "80" || site.HTTPSPort != "443" || site.Prometheus != "0.0.0.0:9090" {
		t.Errorf("%+v", site)
	}
	if site.Certificate != filepath.Join(folder, "ssl", host+".crt") || !site.StorePassword || len(site.Warnings) != 0 {
		t.Errorf("%+v", site)
	}
}

func TestPrometheusListensOnLoopbackUnlessTold(t *testing.T) {
	site, err := Load(etc(t, good))
	if err != nil || site.Prometheus != "localhost:9090" {
		t.Errorf("%+v %v", site, err)
	}
}

func TestRefuses(t *testing.T) {
	_, other := pair(t, host)
	for name, one := range map[string]struct {
		rb    string
		spoil func(folder string)
		want  string
	}{
		"no external_url":      {rb: "letsencrypt['enable'] = false\n", want: "external_url is not set"},
		"no scheme":            {rb: "external_url 'gitlab.example.com'\n", want: "must include a schema"},
		"missing certificate":  {rb: good, spoil: func(f string) { os.Remove(f + "/ssl/" + host + ".crt") }, want: "no such file"},
		"missing key":          {rb: good, spoil: func(f string) { os.Remove(f + "/ssl/" + host + ".key") }, want: "private key"},
		"key of another":       {rb: good, spoil: func(f string) { os.WriteFile(f+"/ssl/"+host+".key", other, 0o600) }, want: "are no pair"},
		"http beside TLS":      {rb: "external_url 'http://" + host + "'\n", want: "write https://"},
		"http with a key name": {rb: "external_url 'http://other.example.com'\nnginx['ssl_certificate'] = '/x'\n", want: "serves no TLS"},
		"a port that is text":  {rb: good + "gitlab_rails['gitlab_shell_ssh_port'] = 'ssh'\n", want: "not a port number"},
		"a flag that is text":  {rb: good + "letsencrypt['enable'] = 'no'\n", want: "neither true nor false"},
		"a bad trusted CA":     {rb: good, spoil: func(f string) { write(t, f, "trusted-certs/a.crt", []byte("x")) }, want: "not a valid certificate"},
		"a short password":     {rb: good + "gitlab_rails['initial_root_password'] = 'short'\n", want: "shorter than 8"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := etc(t, one.rb)
			if one.spoil != nil {
				one.spoil(folder)
			}
			if _, err := Load(folder); err == nil || !strings.Contains(err.Error(), one.want) {
				t.Errorf("error %v, want one with %q", err, one.want)
			}
		})
	}
}

func TestWarnsOfACertificateForAnotherName(t *testing.T) {
	folder := etc(t, good)
	certificate, key := pair(t, "other.example.com")
	write(t, folder, "ssl/"+host+".crt", certificate)
	write(t, folder, "ssl/"+host+".key", key)
	site, err := Load(folder)
	if err != nil || len(site.Warnings) != 1 {
		t.Errorf("%+v %v", site, err)
	}
}

func TestNewNginxSettingsCountBeforeOldOnes(t *testing.T) {
	folder := etc(t, good+"nginx['redirect_http_to_https'] = true\ngitlab_rails['nginx']['redirect_http_to_https'] = false\n")
	site, err := Load(folder)
	if err != nil || site.HTTPPort != "" {
		t.Errorf("%+v %v", site, err)
	}
}
