package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOneFaultOneMessage(t *testing.T) {
	for _, c := range []struct{ name, command, text, want string }{
		{"unknown key", "server", "tls-sans: [a]", `config.yaml:1: flag provided but not defined: -tls-sans (no such key; did you mean "tls-san"?)`},
		{"underscore", "server", "\ntls_san: a", `config.yaml:2: flag provided but not defined: -tls_san (no such key; did you mean "tls-san"?)`},
		{"server's key on an agent", "agent", "cni: calico", "flag provided but not defined: -cni (a key of rke2 server, which rke2 agent does not have)"},
		{"list for a string", "server", "token: [a, b]", `key "token" takes a string, not a list`},
		{"map for a list", "server", "tls-san: {a: b}", `key "tls-san" takes a list of strings, not a nested structure`},
		{"text for a bool", "server", "selinux: maybe", `invalid value "maybe" for flag -selinux: parse error`},
		{"text for a number", "server", "etcd-snapshot-retention: five", `invalid value "five" for flag -etcd-snapshot-retention`},
		{"twice", "server", "token: a\ntoken: b", `config.yaml:2: key "token" is there twice, first on line 1`},
		{"no mapping", "server", "- a", "expected keys with values"},
		{"no YAML", "server", "a: [", "not valid YAML"},
		{"k3s' own key", "server", "flannel-backend: none", "flag provided but not defined: -flannel-backend"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.command, []string{"--config", write(t, "config.yaml", c.text)})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := Parse("server", []string{"--config", write(t, "config.yaml", "nonsense: 1\nselinux: maybe\n")})
	for _, want := range []string{"-nonsense", "-selinux"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%v does not name %s", err, want)
		}
	}
}

func TestMerge(t *testing.T) {
	file := write(t, "config.yaml", "token: file\ntls-san: [one]\nnode-label: [a=1]\nwrite-kubeconfig-mode: 0600\ndebug: true\n")
	drops := file + ".d"
	if err := os.Mkdir(drops, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"10.yaml": "tls-san+: [two]\nnode-label: [b=2]\n", "20.yaml": "token: drop\n", "ignored.txt": "nonsense: 1\n"} {
		if err := os.WriteFile(filepath.Join(drops, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("RKE2_NODE_NAME", "from-environment")
	t.Setenv("RKE2_TOKEN", "from-environment")
	v, err := Parse("server", []string{"--config=" + file, "--tls-san", "three"})
	if err != nil {
		t.Fatal(err)
	}
	if got := v.List("tls-san", true); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("tls-san %v", got)
	}
	if got := v.List("node-label", false); !slices.Equal(got, []string{"b=2"}) {
		t.Errorf("node-label %v: a later file replaces", got)
	}
	for name, want := range map[string]string{"token": "drop", "node-name": "from-environment", "write-kubeconfig-mode": "384", "debug": "true"} {
		if got := v.String(name, ""); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestMissingFileThatWasAskedFor(t *testing.T) {
	if _, err := Parse("server", []string{"--config", "/nonexistent/config.yaml"}); err == nil {
		t.Fatal("a configuration file given by name must exist")
	}
}

func TestRegistries(t *testing.T) {
	ca := write(t, "ca.pem", "x")
	good := "mirrors:\n  '*':\n    endpoint: [https://mirror.example:5000]\nconfigs:\n  mirror.example:5000:\n    auth: {username: a, password: b}\n    tls: {ca_file: " + ca + "}\n"
	if err := CheckRegistries(write(t, "registries.yaml", good)); err != nil {
		t.Error(err)
	}
	if err := CheckRegistries("/nonexistent/registries.yaml"); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"mirrors: {a: {endpoints: [https://b]}}":          "endpoints",
		"mirrors: {a: {endpoint: [mirror.example]}}":      "no http(s) URL",
		"configs: {a: {tls: {ca_file: /nonexistent/ca}}}": "configs.a.tls.ca_file",
	} {
		if err := CheckRegistries(write(t, "registries.yaml", text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
