package token

import (
	"strings"
	"testing"
)

var ca = []byte("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")

func TestFullTokenSurvivesARoundTrip(t *testing.T) {
	full := Format("server", "a:b", ca)
	got, err := Parse(full + "\n")
	if err != nil || got.User != "server" || got.Secret != "a:b" {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := got.VerifyCA(ca); err != nil {
		t.Error(err)
	}
	if err := got.VerifyCA(append(ca, '\n')); err == nil || !strings.Contains(err.Error(), "CA hash does not match") {
		t.Errorf("another CA was accepted: %v", err)
	}
}

func TestPlainSecret(t *testing.T) {
	got, err := Parse("secret")
	if err != nil || got.Secret != "secret" || got.CAHash != "" || got.VerifyCA(ca) != nil {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestBrokenTokens(t *testing.T) {
	hash := Hash(ca)
	for text, want := range map[string]string{
		"": "empty", "  \n": "empty", "K10abc::server:x": "hash length", "K10" + hash: "invalid token format",
		"K10" + hash + "::server:": "no <user>:<secret>", "K10" + strings.Repeat("z", 64) + "::server:x": "not hexadecimal",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
