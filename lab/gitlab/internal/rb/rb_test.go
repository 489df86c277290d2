package rb

import (
	"reflect"
	"strings"
	"testing"
)

func TestReadsWhatAGitlabRbConsistsOf(t *testing.T) {
	file, err := Parse("gitlab.rb", `
# a comment
external_url 'https://gitlab.example.com' # and another
letsencrypt['enable'] = false
gitlab_rails['nginx']['ssl_certificate'] = "/etc/gitlab/ssl/a.crt"
gitlab_rails['gitlab_shell_ssh_port'] = 22
gitlab_rails['smtp_enable'] = nil
gitlab_rails['monitoring_whitelist'] = ['127.0.0.0/8',
  '10.0.0.0/8', # office
]
gitlab_rails['object_store'] = { 'enabled' => true, "connection": { provider: 'AWS' } }
gitlab_rails['quoted'] = 'it\'s \\ a \n'
prometheus['scrape'] = :some
puma['ratio'] = 0.5
`)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]any{
		"letsencrypt/enable":                            false,
		"gitlab_rails/nginx/ssl_certificate":            "/etc/gitlab/ssl/a.crt",
		"gitlab_rails/gitlab_shell_ssh_port":            int64(22),
		"gitlab_rails/smtp_enable":                      nil,
		"gitlab_rails/monitoring_whitelist":             []any{"127.0.0.0/8", "10.0.0.0/8"},
		"gitlab_rails/object_store/enabled":             true,
		"gitlab_rails/object_store/connection/provider": "AWS",
		"gitlab_rails/quoted":                           `it's \ a \n`,
		"prometheus/scrape":                             "some",
		"puma/ratio":                                    0.5,
	} {
		keys := strings.Split(path, "/")
		got, ok := file.Lookup(keys[0], keys[1:]...)
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %#v, want %#v", path, got, want)
		}
	}
	if file.Calls["external_url"] != "https://gitlab.example.com" {
		t.Errorf("external_url is %#v", file.Calls["external_url"])
	}
}

func TestRefusesWhatRubyOrGitLabWouldRefuse(t *testing.T) {
	for text, want := range map[string]string{
		"external_url 'https://x\n":           "gitlab.rb:1: unterminated string",
		"external_url \"https://x'\nputs 1\n": "unterminated string",
		"\nexternal_urll 'https://x'\n":       "gitlab.rb:2: undefined local variable or method `external_urll'",
		"external_url = 'https://x'\n":        "takes no =",
		"gitlab_rail['x'] = 1\n":              "unsupported config value gitlab_rail",
		"gitlab_rails['x' = 1\n":              "missing ]",
		"gitlab_rails['x'] 1\n":               "expected =",
		"gitlab_rails['x'] =\n":               "a value is missing",
		"gitlab_rails['x'] = yes\n":           "undefined local variable or method `yes'",
		"gitlab_rails['x'] = [1, 2\n":         "not closed",
		"gitlab_rails['x'] = {'a' 1}\n":       "expected =>",
		"gitlab_rails['x'] = 'a' 'b'\n":       "unexpected",
		"gitlab_rails['x'] = \"a#{1}\"\n":     "does not evaluate",
		"gitlab_rails['x'] = 12ab!\n":         "not a number",
		"gitlab_rails['x'] = 'it's'\n":        "not closed?",
		"<<<<<<< HEAD\n":                      "expected a setting",
		"gitlab_rails['x'] = %w(a b)\n":       "no literal that this double reads",
	} {
		_, err := Parse("gitlab.rb", text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
}

func TestMessagesDoNotQuoteValues(t *testing.T) {
	_, err := Parse("gitlab.rb", "gitlab_rails['initial_root_password'] = 'hunter2-is-the-password'x\n")
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}
