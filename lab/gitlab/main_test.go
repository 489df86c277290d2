package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"opstella.dev/lab/gitlab/internal/site"
)

func TestPasswordIsKeptAsAHashOnly(t *testing.T) {
	hash, err := hashPassword("correct horse")
	if err != nil || strings.Contains(hash, "correct") {
		t.Fatalf("%q %v", hash, err)
	}
	if err := checkPassword(hash, "correct horse"); err != nil {
		t.Error(err)
	}
	if checkPassword(hash, "wrong") == nil || checkPassword("damaged", "x") == nil {
		t.Error("a wrong password or a damaged file was taken")
	}
}

func get(t *testing.T, handler http.Handler, path, from string) (int, string, http.Header) {
	t.Helper()
	request := httptest.NewRequest("GET", path, nil)
	request.RemoteAddr = from
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	body, _ := io.ReadAll(recorder.Result().Body)
	return recorder.Code, string(body), recorder.Result().Header
}

func TestPagesNameTheDouble(t *testing.T) {
	handler := application(&site.Site{Host: "g", Whitelist: []string{"127.0.0.0/8"}})
	code, body, header := get(t, handler, "/users/sign_in", "10.0.0.1:1")
	if code != 200 || !strings.Contains(body, "GitLab double") || header.Get("X-Gitlab-Double") == "" {
		t.Errorf("%d %q", code, body)
	}
	if code, _, header := get(t, handler, "/", "10.0.0.1:1"); code != 302 || header.Get("Location") != "/users/sign_in" {
		t.Errorf("%d", code)
	}
	if code, _, _ := get(t, handler, "/nothing", "10.0.0.1:1"); code != 404 {
		t.Errorf("%d", code)
	}
}

func TestHealthAnswersTheWhitelistOnly(t *testing.T) {
	handler := application(&site.Site{Host: "g", Whitelist: []string{"127.0.0.0/8"}})
	if code, body, _ := get(t, handler, "/-/health", "127.0.0.1:1"); code != 200 || body != "GitLab OK" {
		t.Errorf("%d %q", code, body)
	}
	if code, _, _ := get(t, handler, "/-/readiness", "10.0.0.1:1"); code != 404 {
		t.Errorf("%d", code)
	}
}

func TestPlainHTTPRedirects(t *testing.T) {
	code, _, header := get(t, redirect(&site.Site{Host: "g.example.com", HTTPSPort: "443"}), "/a?b=1", "10.0.0.1:1")
	if code != 301 || header.Get("Location") != "https://g.example.com/a?b=1" {
		t.Errorf("%d %s", code, header.Get("Location"))
	}
}

func TestUnknownCommandsAndServicesAreRefused(t *testing.T) {
	for _, arguments := range [][]string{{"reconfigur"}, {"restart", "ngin"}} {
		if control(arguments) == nil {
			t.Errorf("%v was taken", arguments)
		}
	}
}
