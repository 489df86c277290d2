package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const accessFile = data + "/double/access.json"

// secret is a token as it is kept: a salted hash. Tokens are random, so one round is enough.
type secret struct{ Salt, Hash string }

func keep(value string) secret {
	salt := make([]byte, 16)
	rand.Read(salt)
	return secret{hex.EncodeToString(salt), digest(hex.EncodeToString(salt), value)}
}

func digest(salt, value string) string {
	sum := sha256.Sum256([]byte(salt + value))
	return hex.EncodeToString(sum[:])
}

func (s secret) is(value string) bool {
	return subtle.ConstantTimeCompare([]byte(s.Hash), []byte(digest(s.Salt, value))) == 1
}

// account is a user of GitLab, as far as tokens need one.
type account struct {
	Username, Email string
	Administrator   bool
	Note            string   // of administrators, on the user
	Identities      []string // login providers that are connected to it
	Others          []string // further addresses; a former one stays among them
	State           string   // active, when empty
}

func (a *account) state() string {
	if a.State == "" {
		return "active"
	}
	return a.State
}

// accessToken is a personal access token; Expires is a date.
type accessToken struct {
	ID      int
	Name    string
	Account string
	Scopes  []string
	Expires string
	Revoked bool
	Value   secret
}

// expired is true from the day on that the token names, as in GitLab (midnight UTC).
func (t *accessToken) expired(now time.Time) bool {
	return t.Expires <= now.UTC().Format(time.DateOnly)
}

type ciRunner struct {
	ID          int
	Kind        string
	Description string
	Tags        []string
	Untagged    bool
	Value       secret
}

// access is what the double remembers of users, tokens and runners.
type access struct {
	Accounts []*account
	Tokens   []*accessToken
	Runners  []*ciRunner
	Last     int
	Groups   []string // whose paths no user can have
	Domains  []string // of addresses that people may sign up with, or change theirs to; none: any
}

// withAccess gives change the remembered state, one at a time among all processes, and keeps it when change returns nil.
func withAccess(path string, change func(*access) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	state := &access{}
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		if err := json.Unmarshal(before, state); err != nil {
			return err
		}
	}
	if err := change(state); err != nil {
		return err
	}
	text, err := json.MarshalIndent(state, "", " ")
	if err != nil || string(text) == string(before) {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (a *access) next() int {
	a.Last++
	return a.Last
}

func (a *access) account(username string) *account {
	for _, one := range a.Accounts {
		if strings.EqualFold(one.Username, username) {
			return one
		}
	}
	return nil
}

func (a *access) token(value string) *accessToken {
	for _, one := range a.Tokens {
		if one.Value.is(value) {
			return one
		}
	}
	return nil
}

func (a *access) runner(value string) *ciRunner {
	for _, one := range a.Runners {
		if one.Value.is(value) {
			return one
		}
	}
	return nil
}

func (a *access) forget(gone *ciRunner) {
	a.Runners = slices.DeleteFunc(a.Runners, func(one *ciRunner) bool { return one == gone })
}
