package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// program is the SHA-256 of the one script that this double knows, scripts/gitlab-tokens.rb; set when it is built.
var program string

const (
	prefix    = "opstella "
	stackMark = "made by the Opstella stack"
	lifetime  = 365 // days
	length    = 20  // of a token whose value is given
)

type wantedAccess struct {
	Accounts []struct {
		Username, Name string
		Administrator  bool
		EmailDomain    string `json:"email_domain"`
	} `json:"accounts"`
	Tokens []struct {
		Name, Account, Value string
		Scopes               []string
	} `json:"tokens"`
	Expires string `json:"expires"`
}

// refusal is an error that the script itself would report, on standard output.
type refusal struct{ what, remedy string }

func (r refusal) Error() string { return r.what }

// rails is gitlab-rails: it runs no Ruby, but does what its one script does.
func rails(arguments []string, in io.Reader, out io.Writer, path string, now time.Time) error {
	if len(arguments) != 2 || arguments[0] != "runner" {
		return errors.New("gitlab-rails of the " + label + " knows only: gitlab-rails runner FILE")
	}
	text, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	if info, err := os.Stat(arguments[1]); err != nil || info.Mode().Perm()&0o004 == 0 {
		return fmt.Errorf("the user git cannot read %s", arguments[1])
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != program {
		return fmt.Errorf("%s is not the script that this double was built for", arguments[1])
	}
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	wanted := wantedAccess{}
	if err := decoder.Decode(&wanted); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	said := &bytes.Buffer{}
	err = withAccess(path, func(state *access) error { return makeAccess(state, wanted, said, now) })
	var refused refusal
	if errors.As(err, &refused) {
		fmt.Fprintf(out, "%serror: %s\nwhat to do: %s\n", said, refused.what, refused.remedy)
		return exitStatus(1)
	}
	if err == nil {
		io.Copy(out, said)
	}
	return err
}

// available are GitLab's scopes, as far as the platform might ask for one.
var available = []string{"api", "read_api", "read_user", "create_runner", "manage_runner", "read_repository", "write_repository", "sudo", "admin_mode"}

// usernames are the paths that a user's own namespace can have; what follows a dot is looked at apart.
var usernames = regexp.MustCompile(`^[a-zA-Z0-9_.][a-zA-Z0-9_.-]*$`)

// refusesUser is why GitLab does not make such a user, or nothing.
func (a *access) refusesUser(username, name, domain string) string {
	taken := func(group string) bool { return strings.EqualFold(group, username) }
	switch lower := strings.ToLower(username); {
	case !usernames.MatchString(username) || len(username) > 255, strings.HasSuffix(lower, ".git"), strings.HasSuffix(lower, ".atom"), strings.HasSuffix(lower, "."):
		return "Username is not one that GitLab takes"
	case slices.ContainsFunc(a.Groups, taken):
		return "Username has already been taken"
	case strings.TrimSpace(name) == "" || len([]rune(name)) > 255:
		return "Name is blank or too long"
	case domain == "" || strings.ContainsAny(domain, "@ \t\n"):
		return "Email is invalid"
	}
	return ""
}

// random is an address that nobody knows.
func random(username, domain string) string {
	text := make([]byte, 16)
	rand.Read(text)
	return username + "-" + hex.EncodeToString(text) + "@" + domain
}

func makeAccess(state *access, wanted wantedAccess, out io.Writer, now time.Time) error {
	limit := now.UTC().AddDate(0, 0, lifetime).Format(time.DateOnly)
	if _, err := time.Parse(time.DateOnly, wanted.Expires); err != nil {
		return err
	}
	for _, one := range wanted.Accounts {
		former := one.Username + "@" + one.EmailDomain
		user, word := state.account(one.Username), "unchanged"
		if user == nil {
			if why := state.refusesUser(one.Username, one.Name, one.EmailDomain); why != "" {
				return refusal{"GitLab did not make the user " + one.Username + ": " + why, "mend what it names; a group of that name is in the way, too"}
			}
			user, word = &account{Username: one.Username, Email: random(one.Username, one.EmailDomain), Administrator: one.Administrator, Note: stackMark}, "changed"
			state.Accounts = append(state.Accounts, user)
		}
		ours := strings.Contains(user.Note, stackMark)
		if !ours && user.Email != former {
			return refusal{"the user " + one.Username + " exists and is not the platform's: its admin note does not hold '" + stackMark + "'", "rename that user, or write these words into its note to have it taken over: Admin, Users, Edit"}
		}
		if user.state() != "active" {
			return refusal{"the user " + one.Username + " is " + user.State, "activate it, or its tokens are refused: Admin, Users"}
		}
		if user.Administrator != one.Administrator {
			user.Administrator, word = one.Administrator, "changed"
		}
		if !ours {
			if len(state.Domains) > 0 && !slices.Contains(state.Domains, one.EmailDomain) {
				return refusal{"GitLab does not take the user " + one.Username + " with another address: Validation failed: Email is not allowed",
					"let it have one of " + one.EmailDomain + ": Admin, Settings, General, Sign-up restrictions"}
			}
			user.Others = append(user.Others, user.Email)
			user.Note, user.Email, word = stackMark, random(one.Username, one.EmailDomain), "changed"
		}
		if len(user.Others) > 0 {
			user.Others, word = nil, "changed"
			fmt.Fprintf(out, "changed: user %s: former addresses removed\n", one.Username)
		}
		if len(user.Identities) > 0 {
			user.Identities, word = nil, "changed"
			fmt.Fprintf(out, "changed: user %s: logins by other providers disconnected\n", one.Username)
		}
		fmt.Fprintf(out, "%s: user %s\n", word, one.Username)
	}
	var kept []int
	for _, one := range wanted.Tokens {
		if state.account(one.Account) == nil {
			return fmt.Errorf("key not found: %q", one.Account)
		}
		if len(one.Scopes) == 0 || one.Name == "" || len(one.Value) != length {
			return fmt.Errorf("Validation failed: the token %q has no name, no scope, or not %d characters", one.Name, length)
		}
		for _, scope := range one.Scopes {
			if !slices.Contains(available, scope) {
				return errors.New("Validation failed: Scopes can only contain available scopes")
			}
		}
		found, word := state.token(one.Value), "unchanged"
		switch {
		case found == nil:
			if wanted.Expires > limit {
				return errors.New("Validation failed: Expires at must be before " + limit)
			}
			found, word = &accessToken{ID: state.next(), Name: one.Name, Account: one.Account, Value: keep(one.Value)}, "changed"
			state.Tokens = append(state.Tokens, found)
		case found.Name != one.Name || found.Account != one.Account:
			return refusal{"the value of the token '" + one.Name + "' is that of another token", "generate another value"}
		case found.Revoked:
			return refusal{"the token '" + one.Name + "' was revoked in GitLab", "generate another value: pulumi up --replace, with the URN of its password"}
		case found.Expires != wanted.Expires || !slices.Equal(slices.Sorted(slices.Values(found.Scopes)), slices.Sorted(slices.Values(one.Scopes))):
			word = "changed"
		}
		found.Scopes, found.Expires = one.Scopes, wanted.Expires
		kept = append(kept, found.ID)
		fmt.Fprintf(out, "%s: token '%s' until %s\n", word, one.Name, wanted.Expires)
	}
	names := map[string]bool{}
	for _, one := range wanted.Accounts {
		names[one.Username] = true
	}
	for _, old := range state.Tokens {
		ours := names[old.Account]
		if ours && !old.Revoked && !slices.Contains(kept, old.ID) && strings.HasPrefix(old.Name, prefix) {
			old.Revoked = true
			fmt.Fprintf(out, "changed: former token '%s' revoked\n", old.Name)
		}
	}
	return nil
}
