package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

type answer struct {
	status int
	body   map[string]any
}

func message(status int, text string) answer { return answer{status, map[string]any{"message": text}} }

var (
	unauthorized = message(http.StatusUnauthorized, "401 Unauthorized")
	forbidden    = message(http.StatusForbidden, "403 Forbidden")
)

// api is the part of /api/v4 that the platform uses. What it does not know is a 404, an unknown field a 400.
func api(path string, now func() time.Time) http.Handler {
	mux := http.NewServeMux()
	serve := func(pattern string, handle func(*access, *http.Request) answer) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			var given answer
			if err := withAccess(path, func(state *access) error { given = handle(state, r); return nil }); err != nil {
				given = message(http.StatusInternalServerError, "500 Internal Server Error")
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(given.status)
			if given.body != nil {
				json.NewEncoder(w).Encode(given.body)
			}
		})
	}
	serve("GET /api/v4/personal_access_tokens/self", func(state *access, r *http.Request) answer {
		token, refused := state.held(r, now())
		if refused != nil {
			return *refused
		}
		return answer{http.StatusOK, map[string]any{
			"id": token.ID, "name": token.Name, "revoked": false, "scopes": token.Scopes, "active": true, "expires_at": token.Expires,
		}}
	})
	serve("POST /api/v4/user/runners", func(state *access, r *http.Request) answer {
		token, refused := state.held(r, now(), "api", "create_runner")
		if refused != nil {
			return *refused
		}
		wanted := struct {
			Kind        string `json:"runner_type"`
			Description string `json:"description"`
			Tags        string `json:"tag_list"`
			Untagged    *bool  `json:"run_untagged"`
		}{}
		if fault := decode(r, &wanted); fault != nil {
			return *fault
		}
		if wanted.Kind != "instance_type" {
			return answer{http.StatusBadRequest, map[string]any{"error": "runner_type does not have a valid value"}}
		}
		if user := state.account(token.Account); user == nil || !user.Administrator {
			return message(http.StatusForbidden, "403 Forbidden - Insufficient permissions")
		}
		untagged := wanted.Untagged == nil || *wanted.Untagged
		if !untagged && wanted.Tags == "" {
			return message(http.StatusBadRequest, "400 Bad request - Tags list can not be empty when runner is not allowed to pick untagged jobs")
		}
		random := make([]byte, 15)
		rand.Read(random)
		value := "glrt-" + base64.RawURLEncoding.EncodeToString(random)
		made := &ciRunner{ID: state.next(), Kind: wanted.Kind, Description: wanted.Description, Untagged: untagged, Value: keep(value)}
		if wanted.Tags != "" {
			made.Tags = strings.Split(wanted.Tags, ",")
		}
		state.Runners = append(state.Runners, made)
		return answer{http.StatusCreated, map[string]any{"id": made.ID, "token": value, "token_expires_at": nil}}
	})
	serve("POST /api/v4/runners/verify", func(state *access, r *http.Request) answer {
		found, value, fault := state.ofRunner(r)
		if fault != nil {
			return *fault
		}
		return answer{http.StatusOK, map[string]any{"id": found.ID, "token": value, "token_expires_at": nil}}
	})
	serve("DELETE /api/v4/runners", func(state *access, r *http.Request) answer {
		found, _, fault := state.ofRunner(r)
		if fault != nil {
			return *fault
		}
		state.forget(found)
		return answer{status: http.StatusNoContent}
	})
	return mux
}

// held is the token of a request, if it is active and has one of scopes (none named: any); otherwise the refusal.
func (a *access) held(r *http.Request, now time.Time, scopes ...string) (*accessToken, *answer) {
	value := r.Header.Get("PRIVATE-TOKEN")
	if value == "" {
		value = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	token := a.token(value)
	invalid := func(why string) (*accessToken, *answer) {
		return nil, &answer{http.StatusUnauthorized, map[string]any{"error": "invalid_token", "error_description": why}}
	}
	switch {
	case value == "" || token == nil:
		return nil, &unauthorized
	case token.Revoked:
		return invalid("Token was revoked. You have to re-authorize from the user.")
	case token.expired(now):
		return invalid("Token is expired. You can either do re-authorization or token refresh.")
	case len(scopes) > 0 && !slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(token.Scopes, s) }):
		return nil, &answer{http.StatusForbidden, map[string]any{
			"error": "insufficient_scope", "error_description": "The request requires higher privileges than provided by the access token.",
			"scope": strings.Join(scopes, " "),
		}}
	}
	if user := a.account(token.Account); user != nil && user.state() == "deactivated" {
		refused := message(http.StatusForbidden, "403 Forbidden - Your account has been deactivated by your administrator.")
		return nil, &refused
	} else if user != nil && user.state() != "active" {
		refused := message(http.StatusForbidden, "403 Forbidden - Your account has been blocked.")
		return nil, &refused
	}
	return token, nil
}

// ofRunner is the runner whose own token a request brings.
func (a *access) ofRunner(r *http.Request) (*ciRunner, string, *answer) {
	given := struct {
		Token string `json:"token"`
	}{}
	if fault := decode(r, &given); fault != nil {
		return nil, "", fault
	}
	if given.Token == "" {
		return nil, "", &answer{http.StatusBadRequest, map[string]any{"error": "token is missing"}}
	}
	if found := a.runner(given.Token); found != nil {
		return found, given.Token, nil
	}
	return nil, "", &forbidden
}

// decode reads a JSON body; the real one also reads forms, and passes over fields it does not know.
func decode(r *http.Request, into any) *answer {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return &answer{http.StatusBadRequest, map[string]any{"error": err.Error()}}
	}
	return nil
}
