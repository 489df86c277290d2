package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	runners = "Runners-value-012345"
	reader  = "Reader--value-012345"
)

var day = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// made runs gitlab-rails with the script of the double's build and what is wanted; its output.
func made(t *testing.T, folder, wanted string) (string, error) {
	t.Helper()
	script := filepath.Join(folder, "script.rb")
	if err := os.WriteFile(script, []byte("the script"), 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("the script"))
	program = hex.EncodeToString(sum[:])
	out := &bytes.Buffer{}
	err := rails([]string{"runner", script}, strings.NewReader(wanted), out, filepath.Join(folder, "access.json"), day)
	return out.String(), err
}

func wanted(scope, expires, value string) string {
	return `{"accounts": [{"username": "a", "name": "A", "email_domain": "g", "administrator": true}, {"username": "r", "name": "R", "email_domain": "g", "administrator": false}],
	"tokens": [{"name": "opstella one", "account": "a", "scopes": ["` + scope + `"], "value": "` + value + `"}, {"name": "opstella two", "account": "r", "scopes": ["create_runner"], "value": "` + reader + `"}],
	"expires": "` + expires + `"}`
}

func call(t *testing.T, folder, method, path, token, body string, at time.Time) (int, map[string]any) {
	t.Helper()
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		request.Header.Set("PRIVATE-TOKEN", token)
	}
	recorder := httptest.NewRecorder()
	api(filepath.Join(folder, "access.json"), func() time.Time { return at }).ServeHTTP(recorder, request)
	found := map[string]any{}
	json.Unmarshal(recorder.Body.Bytes(), &found)
	return recorder.Code, found
}

func TestTokensAreMadeOnceRenewedAndReplaced(t *testing.T) {
	folder := t.TempDir()
	first, err := made(t, folder, wanted("create_runner", "2027-07-01", runners))
	if err != nil || strings.Count(first, "changed: ") != 4 {
		t.Fatalf("%q %v", first, err)
	}
	if again, err := made(t, folder, wanted("create_runner", "2027-07-01", runners)); err != nil || strings.Count(again, "unchanged: ") != 4 {
		t.Errorf("%q %v", again, err)
	}
	if text, _ := os.ReadFile(filepath.Join(folder, "access.json")); strings.Contains(string(text), runners) {
		t.Error("a token is kept in clear")
	}
	renewed, _ := made(t, folder, wanted("create_runner", "2027-11-21", runners))
	if !strings.Contains(renewed, "changed: token 'opstella one' until 2027-11-21") {
		t.Errorf("%q", renewed)
	}
	replaced, _ := made(t, folder, wanted("create_runner", "2027-11-21", "Another-value-012345"))
	if !strings.Contains(replaced, "changed: former token 'opstella one' revoked") {
		t.Errorf("%q", replaced)
	}
	if code, _ := call(t, folder, "GET", "/api/v4/personal_access_tokens/self", runners, "", day); code != http.StatusUnauthorized {
		t.Errorf("the former value still works: %d", code)
	}
	if said, err := made(t, folder, wanted("create_runner", "2027-11-21", runners)); err == nil || !strings.Contains(said, "error: the token 'opstella one' was revoked") {
		t.Errorf("%q %v", said, err)
	}
}

func TestWhatTheScriptOrGitLabWouldRefuse(t *testing.T) {
	for name, text := range map[string]string{
		"a field": `{"accounts": [], "tokens": [], "expires": "2027-01-01", "more": 1}`,
		"scope":   wanted("everything", "2027-07-01", runners),
		"length":  wanted("api", "2027-07-01", "short"),
		"expires": wanted("api", "2028-07-01", runners),
	} {
		if _, err := made(t, t.TempDir(), text); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	folder := t.TempDir()
	for _, arguments := range [][]string{{"console"}, {"runner", "puts 1"}, {"runner", "/etc/passwd"}} {
		if rails(arguments, strings.NewReader("{}"), &bytes.Buffer{}, filepath.Join(folder, "a"), day) == nil {
			t.Errorf("%v was taken", arguments)
		}
	}
	keepAccounts(t, folder, &account{Username: "a", Email: "somebody@elsewhere", Administrator: true})
	if said, err := made(t, folder, wanted("api", "2027-07-01", runners)); err == nil || !strings.Contains(said, "is not the platform's") {
		t.Errorf("%q %v", said, err)
	}
}

func keepAccounts(t *testing.T, folder string, accounts ...*account) {
	t.Helper()
	if err := withAccess(filepath.Join(folder, "access.json"), func(state *access) error { state.Accounts = accounts; return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestNobodyCanClaimThePlatformsAccounts(t *testing.T) {
	folder := t.TempDir()
	// As a former version left it, and somebody who gave himself its address logged in to it.
	keepAccounts(t, folder, &account{Username: "a", Email: "a@g", Administrator: true, Identities: []string{"openid_connect"}})
	said, err := made(t, folder, wanted("api", "2027-07-01", runners))
	if err != nil || !strings.Contains(said, "changed: user a: logins by other providers disconnected") {
		t.Errorf("%q %v", said, err)
	}
	text, _ := os.ReadFile(filepath.Join(folder, "access.json"))
	if strings.Contains(string(text), "a@g") || strings.Contains(string(text), "openid_connect") || !strings.Contains(string(text), stackMark) {
		t.Errorf("%s", text)
	}
	if again, _ := made(t, folder, wanted("api", "2027-07-01", runners)); strings.Contains(strings.ReplaceAll(again, "unchanged: ", ""), "changed: ") {
		t.Errorf("%q", again)
	}
}

func TestRunnersAreMadeByWhoMayAndKnownByTheirToken(t *testing.T) {
	folder := t.TempDir()
	made(t, folder, wanted("create_runner", "2027-07-01", runners))
	body := `{"runner_type": "instance_type", "description": "d", "tag_list": "", "run_untagged": true}`
	for name, one := range map[string]struct {
		token  string
		at     time.Time
		body   string
		status int
	}{
		"nobody":           {"", day, body, 401},
		"a wrong token":    {"Unknown-value-012345", day, body, 401},
		"expired":          {runners, day.AddDate(1, 0, 0), body, 401},
		"no administrator": {reader, day, body, 403},
		"unknown field":    {runners, day, `{"runner_type": "instance_type", "tags": []}`, 400},
		"no tag at all":    {runners, day, `{"runner_type": "instance_type", "run_untagged": false}`, 400},
		"made":             {runners, day, body, 201},
	} {
		if status, found := call(t, folder, "POST", "/api/v4/user/runners", one.token, one.body, one.at); status != one.status {
			t.Errorf("%s: %d %v", name, status, found)
		}
	}
	_, found := call(t, folder, "POST", "/api/v4/user/runners", runners, body, day)
	token, _ := found["token"].(string)
	if !strings.HasPrefix(token, "glrt-") {
		t.Fatalf("%v", found)
	}
	own := `{"token": "` + token + `"}`
	if status, _ := call(t, folder, "POST", "/api/v4/runners/verify", "", own, day); status != 200 {
		t.Errorf("%d", status)
	}
	if status, _ := call(t, folder, "DELETE", "/api/v4/runners", "", own, day); status != 204 {
		t.Errorf("%d", status)
	}
	if status, _ := call(t, folder, "POST", "/api/v4/runners/verify", "", own, day); status != 403 {
		t.Errorf("%d", status)
	}
}

func TestATokenOfAnotherScopeSeesItselfAndMakesNoRunner(t *testing.T) {
	folder := t.TempDir()
	made(t, folder, wanted("read_api", "2027-07-01", runners))
	if status, found := call(t, folder, "GET", "/api/v4/personal_access_tokens/self", runners, "", day); status != 200 || found["name"] != "opstella one" {
		t.Errorf("%d %v", status, found)
	}
	if status, found := call(t, folder, "POST", "/api/v4/user/runners", runners, "{}", day); status != 403 || found["error"] != "insufficient_scope" {
		t.Errorf("%d %v", status, found)
	}
}

func change(t *testing.T, folder string, edit func(*access)) {
	t.Helper()
	if err := withAccess(filepath.Join(folder, "access.json"), func(state *access) error { edit(state); return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestAnAccountThatIsNotActiveIsRefusedByScriptAndAPI(t *testing.T) {
	for _, kind := range []string{"blocked", "banned", "ldap_blocked", "blocked_pending_approval", "deactivated"} {
		folder := t.TempDir()
		made(t, folder, wanted("api", "2027-07-01", runners))
		change(t, folder, func(state *access) { state.account("a").State = kind })
		if status, found := call(t, folder, "GET", "/api/v4/personal_access_tokens/self", runners, "", day); status != http.StatusForbidden {
			t.Errorf("%s: %d %v", kind, status, found)
		}
		if said, err := made(t, folder, wanted("api", "2027-07-01", runners)); err == nil || !strings.Contains(said, "error: the user a is "+kind) {
			t.Errorf("%q %v", said, err)
		}
	}
}

func TestUsersThatGitLabWouldNotMake(t *testing.T) {
	for old, bad := range map[string]string{
		`"username": "a"`: `"username": "a b"`,
		`"username": "r"`: `"username": "r.git"`,
		`"name": "A"`:     `"name": " "`,
		`"name": "R"`:     `"name": "` + strings.Repeat("x", 256) + `"`,
		`"email_domain": "g", "administrator": t`: `"email_domain": "g@h", "administrator": t`,
	} {
		said, err := made(t, t.TempDir(), strings.Replace(wanted("api", "2027-07-01", runners), old, bad, 1))
		if err == nil || !strings.Contains(said, "error: GitLab did not make the user") {
			t.Errorf("%s: %q %v", bad, said, err)
		}
	}
	folder := t.TempDir()
	change(t, folder, func(state *access) { state.Groups = []string{"A"} })
	if said, err := made(t, folder, wanted("api", "2027-07-01", runners)); err == nil || !strings.Contains(said, "already been taken") {
		t.Errorf("%q %v", said, err)
	}
}

func TestRulesForWhoSignsUpHoldForAnAddressThatIsChangedOnly(t *testing.T) {
	folder := t.TempDir()
	change(t, folder, func(state *access) { state.Domains = []string{"example.com"} })
	if said, err := made(t, folder, wanted("api", "2027-07-01", runners)); err != nil {
		t.Errorf("a new user: %q %v", said, err)
	}
	keepAccounts(t, folder, &account{Username: "a", Email: "a@g", Administrator: true})
	if said, err := made(t, folder, wanted("api", "2027-07-01", runners)); err == nil || !strings.Contains(said, "Sign-up restrictions") {
		t.Errorf("a former version's: %q %v", said, err)
	}
}

func TestAddressesThatAFormerVersionLeftAreRemoved(t *testing.T) {
	folder := t.TempDir()
	made(t, folder, wanted("api", "2027-07-01", runners))
	change(t, folder, func(state *access) { state.account("a").Others = []string{"a@g"} })
	if said, err := made(t, folder, wanted("api", "2027-07-01", runners)); err != nil || !strings.Contains(said, "changed: user a: former addresses removed") {
		t.Errorf("%q %v", said, err)
	}
	if text, _ := os.ReadFile(filepath.Join(folder, "access.json")); strings.Contains(string(text), "a@g") {
		t.Errorf("%s", text)
	}
}

func TestTheOrderOfScopesIsNoChange(t *testing.T) {
	folder := t.TempDir()
	made(t, folder, wanted(`api", "read_user`, "2027-07-01", runners))
	if said, err := made(t, folder, wanted(`read_user", "api`, "2027-07-01", runners)); err != nil || strings.Count(said, "unchanged: ") != 4 {
		t.Errorf("%q %v", said, err)
	}
}
