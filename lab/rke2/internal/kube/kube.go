// Package kube talks to the Kubernetes API in plain JSON.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Object is a Kubernetes object.
type Object = map[string]any

// Strategic is a body that is patched in by the rules of Kubernetes' own types: conditions by their type.
type Strategic Object

// Client is an authenticated connection to one API server.
type Client struct {
	base string
	http *http.Client
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.Code, e.Message) }

// Is reports whether err is an answer with one of the given HTTP codes.
func Is(err error, codes ...int) bool {
	status, ok := err.(*StatusError)
	if !ok {
		return false
	}
	for _, code := range codes {
		if status.Code == code {
			return true
		}
	}
	return false
}

// TLS makes a configuration that trusts caFile and presents certBase.crt/.key.
func TLS(caFile, certBase string) (*tls.Config, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	config := &tls.Config{RootCAs: pool}
	if certBase != "" {
		pair, err := tls.LoadX509KeyPair(certBase+".crt", certBase+".key")
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// New connects to base (https://host:port) with a client certificate.
func New(base, caFile, certBase string) (*Client, error) {
	config, err := TLS(caFile, certBase)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, MaxIdleConns: 2, IdleConnTimeout: time.Minute}
	return &Client{base: base, http: &http.Client{Transport: transport, Timeout: 20 * time.Second}}, nil
}

// Do sends body (marshalled unless nil) and decodes the answer into out
// (unless nil). PATCH bodies are sent as merge patches, a Strategic one as such.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return err
	}
	kind := "application/json"
	if method == http.MethodPatch {
		kind = "application/merge-patch+json"
	}
	if _, strategic := body.(Strategic); strategic {
		kind = "application/strategic-merge-patch+json"
	}
	request.Header.Set("Content-Type", kind)
	request.Header.Set("Accept", "application/json")
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return refusal(answer.StatusCode, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

func refusal(code int, data []byte) error {
	var status struct{ Message string }
	if json.Unmarshal(data, &status) != nil || status.Message == "" {
		status.Message = strings.TrimSpace(string(data[:min(len(data), 300)]))
	}
	return &StatusError{Code: code, Message: status.Message}
}

// Watch calls each with the type and object of every change under path (a list's, with watch=true) until the
// server ends the answer, which is nil, or until each or the connection fails. Only ctx bounds its time.
func (c *Client) Watch(ctx context.Context, path string, each func(kind string, object json.RawMessage) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	answer, err := (&http.Client{Transport: c.http.Transport}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		data, _ := io.ReadAll(answer.Body)
		return refusal(answer.StatusCode, data)
	}
	decoder := json.NewDecoder(answer.Body)
	for {
		var event struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := decoder.Decode(&event); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(event.Type, event.Object); err != nil {
			return err
		}
	}
}

// Get reads an object.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.Do(ctx, http.MethodGet, path, nil, out)
}

// Ready reports whether the API server answers /readyz with ok.
func (c *Client) Ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return &StatusError{Code: answer.StatusCode, Message: "not ready"}
	}
	return nil
}

// At walks nested maps; it returns nil where a step is missing.
func At(object any, path ...string) any {
	for _, step := range path {
		m, ok := object.(map[string]any)
		if !ok {
			return nil
		}
		object = m[step]
	}
	return object
}

// Text is At for a string, "" where missing.
func Text(object any, path ...string) string {
	s, _ := At(object, path...).(string)
	return s
}

// Number is At for a number, 0 where missing.
func Number(object any, path ...string) int {
	n, _ := At(object, path...).(float64)
	return int(n)
}

// Items returns the objects of a list.
func Items(list any) []Object {
	all, _ := At(list, "items").([]any)
	out := make([]Object, 0, len(all))
	for _, item := range all {
		if o, ok := item.(map[string]any); ok {
			out = append(out, o)
		}
	}
	return out
}
