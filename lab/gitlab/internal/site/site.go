// Package site is what a gitlab.rb means: where to listen and with which certificate.
package site

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"opstella.dev/lab/gitlab/internal/rb"
)

// Site is a configuration that was checked. Paths are absolute.
type Site struct {
	Host          string
	HTTPS         bool
	HTTPPort      string // where plain HTTP listens: redirecting, or serving when not HTTPS; "" for nowhere
	HTTPSPort     string
	Certificate   string
	Key           string
	Prometheus    string // listen address; "" when switched off
	Whitelist     []string
	StorePassword bool
	RootPassword  string `json:"-"`
	Warnings      []string
}

// Load reads and checks etc/gitlab.rb and what it names. Every fault found is in the error.
func Load(etc string) (*Site, error) {
	path := filepath.Join(etc, "gitlab.rb")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	file, err := rb.Parse(path, string(text))
	if err != nil {
		return nil, err
	}
	return fromFile(file, etc)
}

func fromFile(file *rb.File, etc string) (*Site, error) {
	var faults []error
	fault := func(format string, arguments ...any) { faults = append(faults, fmt.Errorf(format, arguments...)) }
	text := func(fallback, section string, keys ...string) string {
		value, ok := file.Lookup(section, keys...)
		if !ok || value == nil {
			return fallback
		}
		one, is := value.(string)
		if !is {
			fault("%s['%s'] is not a string", section, strings.Join(keys, "']['"))
		}
		return one
	}
	flag := func(fallback bool, section string, keys ...string) bool {
		value, ok := file.Lookup(section, keys...)
		if !ok || value == nil {
			return fallback
		}
		one, is := value.(bool)
		if !is {
			fault("%s['%s'] is neither true nor false", section, strings.Join(keys, "']['"))
		}
		return one
	}
	// Since 19.2 nginx' settings stand below gitlab_rails; the old ones still count.
	nginx := func(key string) (string, []string) {
		if _, ok := file.Lookup("gitlab_rails", "nginx", key); ok {
			return "gitlab_rails", []string{"nginx", key}
		}
		return "nginx", []string{key}
	}

	site := &Site{HTTPPort: "80", HTTPSPort: "443"}
	external, ok := file.Calls["external_url"].(string)
	if !ok || external == "" {
		return nil, errors.New("external_url is not set: write external_url 'https://NAME' in gitlab.rb")
	}
	place, err := url.Parse(external)
	if err != nil || place.Hostname() == "" || place.Scheme != "http" && place.Scheme != "https" {
		return nil, fmt.Errorf("external_url %q must include a schema and FQDN, e.g. https://gitlab.example.com/", external)
	}
	site.Host, site.HTTPS = place.Hostname(), place.Scheme == "https"

	section, keys := nginx("ssl_certificate")
	named := text("", section, keys...)
	site.Certificate = named
	section, keys = nginx("ssl_certificate_key")
	site.Key = text("", section, keys...)
	section, keys = nginx("redirect_http_to_https")
	redirect := flag(true, section, keys...)
	if site.HTTPS {
		if port := place.Port(); port != "" {
			site.HTTPSPort = port
		}
		if !redirect {
			site.HTTPPort = ""
		}
		if site.Certificate == "" {
			site.Certificate = filepath.Join(etc, "ssl", site.Host+".crt")
		}
		if site.Key == "" {
			site.Key = filepath.Join(etc, "ssl", site.Host+".key")
		}
		site.checkCertificate(flag(true, "letsencrypt", "enable"), fault)
	} else {
		site.HTTPSPort = ""
		if port := place.Port(); port != "" {
			site.HTTPPort = port
		}
		if named != "" || site.Key != "" {
			fault("external_url is %s, so nginx serves no TLS, yet a certificate is configured: write https:// or leave the certificate out", external)
		}
		if _, err := os.Stat(filepath.Join(etc, "ssl", site.Host+".crt")); err == nil {
			fault("external_url is %s, yet %s/ssl/%s.crt lies ready: write https://, or remove the certificate", external, etc, site.Host)
		}
	}
	if flag(true, "prometheus", "enable") && flag(true, "prometheus_monitoring", "enable") {
		site.Prometheus = text("localhost:9090", "prometheus", "listen_address")
		if _, _, err := net.SplitHostPort(site.Prometheus); err != nil {
			fault("prometheus['listen_address'] %q is not ADDRESS:PORT", site.Prometheus)
		}
	}
	whitelist, ok := file.Lookup("gitlab_rails", "monitoring_whitelist")
	if !ok {
		whitelist = []any{"127.0.0.0/8", "::1/128"}
	}
	list, _ := whitelist.([]any)
	for _, one := range list {
		network := fmt.Sprint(one)
		if !strings.Contains(network, "/") {
			if strings.Contains(network, ":") {
				network += "/128"
			} else {
				network += "/32"
			}
		}
		if _, _, err := net.ParseCIDR(network); err != nil {
			fault("gitlab_rails['monitoring_whitelist']: %q is no address or network", one)
			continue
		}
		site.Whitelist = append(site.Whitelist, network)
	}
	if port, ok := file.Lookup("gitlab_rails", "gitlab_shell_ssh_port"); ok {
		if number, is := port.(int64); !is || number < 1 || number > 65535 {
			fault("gitlab_rails['gitlab_shell_ssh_port'] is not a port number")
		}
	}
	site.RootPassword = text("", "gitlab_rails", "initial_root_password")
	if site.RootPassword != "" && len(site.RootPassword) < 8 {
		fault("gitlab_rails['initial_root_password'] is shorter than 8 characters")
	}
	site.StorePassword = flag(true, "gitlab_rails", "store_initial_root_password")
	checkTrusted(filepath.Join(etc, "trusted-certs"), fault)
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return site, nil
}

func (s *Site) checkCertificate(letsEncrypt bool, fault func(string, ...any)) {
	missing := false
	for what, path := range map[string]string{"certificate": s.Certificate, "private key": s.Key} {
		if _, err := os.Stat(path); err != nil {
			missing = true
			remedy := "put it there"
			if letsEncrypt {
				remedy = "put it there (Let's Encrypt, which is not switched off, cannot be had from this double)"
			}
			fault("nginx: cannot load %s %q: no such file; %s", what, path, remedy)
		}
	}
	if missing {
		return
	}
	pair, err := tls.LoadX509KeyPair(s.Certificate, s.Key)
	if err != nil {
		fault("nginx: %s and %s are no pair: %v", s.Certificate, s.Key, err)
		return
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		fault("nginx: %s: %v", s.Certificate, err)
		return
	}
	// The real nginx starts with these too; users' browsers and git would refuse.
	if err := leaf.VerifyHostname(s.Host); err != nil {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %v", s.Certificate, err))
	}
}

// checkTrusted refuses what the real reconfigure refuses: files that are no certificates.
func checkTrusted(folder string, fault func(string, ...any)) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		block, _ := pem.Decode(content)
		if block == nil {
			fault("%s is not a valid certificate: no PEM", path)
		} else if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			fault("%s is not a valid certificate: %v", path, err)
		}
	}
}
