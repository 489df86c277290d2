package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	"gopkg.in/yaml.v3"
)

// Registries is the schema of registries.yaml (RKE2 docs, "Private Registry
// Configuration").
type Registries struct {
	Mirrors map[string]struct {
		Endpoint []string          `yaml:"endpoint"`
		Rewrite  map[string]string `yaml:"rewrite"`
	} `yaml:"mirrors"`
	Configs map[string]struct {
		Auth *struct {
			Username      string `yaml:"username"`
			Password      string `yaml:"password"`
			Auth          string `yaml:"auth"`
			IdentityToken string `yaml:"identity_token"`
		} `yaml:"auth"`
		TLS *struct {
			CAFile             string `yaml:"ca_file"`
			CertFile           string `yaml:"cert_file"`
			KeyFile            string `yaml:"key_file"`
			InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
		} `yaml:"tls"`
	} `yaml:"configs"`
}

// CheckRegistries refuses a registries.yaml that RKE2 could not use: unknown
// keys, endpoints that are no URL, certificate files that do not exist. A
// missing file is no error.
func CheckRegistries(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var r Registries
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&r); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", path, err)
	}
	var problems []error
	for host, mirror := range r.Mirrors {
		for _, endpoint := range mirror.Endpoint {
			u, err := url.Parse(endpoint)
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				problems = append(problems, fmt.Errorf("%s: mirrors.%s.endpoint: %q is no http(s) URL", path, host, endpoint))
			}
		}
	}
	for host, c := range r.Configs {
		if c.TLS == nil {
			continue
		}
		for key, file := range map[string]string{"ca_file": c.TLS.CAFile, "cert_file": c.TLS.CertFile, "key_file": c.TLS.KeyFile} {
			if file == "" {
				continue
			}
			if _, err := os.Stat(file); err != nil {
				problems = append(problems, fmt.Errorf("%s: configs.%s.tls.%s: %w", path, host, key, err))
			}
		}
	}
	return errors.Join(problems...)
}
