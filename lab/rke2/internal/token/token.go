// Package token implements RKE2's join tokens: a plain secret, or
// K10<SHA-256 of the cluster CA>::<user>:<secret>.
//
// Format: k3s-io/k3s pkg/clientaccess/token.go.
package token

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const prefix = "K10"

// Token is a parsed join token. CAHash is empty for a plain secret, User too.
type Token struct {
	CAHash string
	User   string
	Secret string
}

// Parse reads a token in either form.
func Parse(text string) (Token, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Token{}, errors.New("token must not be empty")
	}
	rest, full := strings.CutPrefix(text, prefix)
	if !full {
		return Token{Secret: text}, nil
	}
	hash, credentials, found := strings.Cut(rest, "::")
	if !found {
		return Token{}, errors.New("invalid token format: a token that begins with K10 is K10<CA hash>::<user>:<secret>")
	}
	if len(hash) != 2*sha256.Size {
		return Token{}, fmt.Errorf("invalid token CA hash length: %d digits instead of %d", len(hash), 2*sha256.Size)
	}
	if _, err := hex.DecodeString(hash); err != nil {
		return Token{}, errors.New("invalid token CA hash: not hexadecimal")
	}
	user, secret, found := strings.Cut(credentials, ":")
	if !found || secret == "" {
		return Token{}, errors.New("invalid token format: no <user>:<secret> behind the CA hash")
	}
	return Token{CAHash: hash, User: user, Secret: secret}, nil
}

// Format makes the full form of a token for a CA bundle (PEM).
func Format(user, secret string, caPEM []byte) string {
	return prefix + Hash(caPEM) + "::" + user + ":" + secret
}

// Hash is the digest of a CA bundle that full tokens carry: over the bytes of
// the file, which holds one certificate.
func Hash(caPEM []byte) string {
	sum := sha256.Sum256(caPEM)
	return hex.EncodeToString(sum[:])
}

// VerifyCA compares the CA bundle that a server presents with the token's
// hash. A plain secret carries none, so nothing can be verified.
func (t Token) VerifyCA(caPEM []byte) error {
	if t.CAHash == "" {
		return nil
	}
	if got := Hash(caPEM); got != t.CAHash {
		return fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", t.CAHash, got)
	}
	return nil
}
