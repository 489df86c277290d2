package main

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"
)

const rounds = 200_000

func hashPassword(password string) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	key, err := pbkdf2.Key(sha256.New, password, salt, rounds, 32)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(salt) + " " + hex.EncodeToString(key) + "\n", nil
}

func checkPassword(hash, password string) error {
	salt, want, ok := strings.Cut(strings.TrimSpace(hash), " ")
	rawSalt, err := hex.DecodeString(salt)
	rawWant, err2 := hex.DecodeString(want)
	if !ok || err != nil || err2 != nil {
		return fmt.Errorf("%s is damaged", hashes)
	}
	key, err := pbkdf2.Key(sha256.New, password, rawSalt, rounds, 32)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(key, rawWant) != 1 {
		return fmt.Errorf("Invalid login or password.")
	}
	return nil
}
