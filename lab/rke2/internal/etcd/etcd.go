// Package etcd talks to etcd through the JSON gateway on its client port.
package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Client reaches one etcd member, or several one after the other.
type Client struct {
	endpoints []string
	http      *http.Client
}

// Member is a member of the cluster. Name is empty until it has started.
type Member struct {
	ID         string   `json:"ID"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

// New makes a client for endpoints (https://address:2379).
func New(config *tls.Config, endpoints ...string) *Client {
	return &Client{endpoints, &http.Client{Transport: &http.Transport{TLSClientConfig: config, IdleConnTimeout: 10 * time.Second}}}
}

func (c *Client) post(ctx context.Context, path string, body, out any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var last error
	for _, endpoint := range c.endpoints {
		answer, err := c.send(ctx, endpoint+path, data)
		if err == nil {
			return json.Unmarshal(answer, out)
		}
		last = err
		var refused *Refusal
		if errors.As(err, &refused) && !refused.unavailable() {
			return err
		}
	}
	return last
}

// Refusal is an error that etcd itself answered with.
type Refusal struct{ Message string }

func (r *Refusal) Error() string { return "etcd: " + r.Message }

func (r *Refusal) unavailable() bool {
	return strings.Contains(r.Message, "no leader") || strings.Contains(r.Message, "timed out") ||
		strings.Contains(r.Message, "not supported for learner") || strings.Contains(r.Message, "not available to learner")
}

func (c *Client) send(ctx context.Context, url string, data []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		var status struct{ Message, Error string }
		if json.Unmarshal(text, &status) != nil {
			status.Message = answer.Status
		}
		if status.Message == "" {
			status.Message = status.Error
		}
		return nil, &Refusal{status.Message}
	}
	return text, nil
}

// Healthy reports an error unless the member answers a linearizable read.
func (c *Client) Healthy(ctx context.Context) error {
	var out map[string]any
	return c.post(ctx, "/v3/kv/range", map[string]any{"key": "aGVhbHRo", "limit": 1}, &out)
}

// Members lists the cluster's members as this member knows them.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var out struct{ Members []Member }
	err := c.post(ctx, "/v3/cluster/member/list", map[string]any{"linearizable": false}, &out)
	return out.Members, err
}

// AddLearner adds a member that does not vote yet and returns all members.
func (c *Client) AddLearner(ctx context.Context, peerURL string) ([]Member, error) {
	var out struct{ Members []Member }
	err := c.post(ctx, "/v3/cluster/member/add", map[string]any{"peerURLs": []string{peerURL}, "isLearner": true}, &out)
	return out.Members, err
}

// Promote gives a learner a vote; etcd refuses until it has caught up.
func (c *Client) Promote(ctx context.Context, id string) error {
	var out map[string]any
	return c.post(ctx, "/v3/cluster/member/promote", map[string]any{"ID": id}, &out)
}

// Remove takes a member out of the cluster.
func (c *Client) Remove(ctx context.Context, id string) error {
	var out map[string]any
	return c.post(ctx, "/v3/cluster/member/remove", map[string]any{"ID": id}, &out)
}

// Snapshot writes the member's database to a file, with the SHA-256 that etcd
// appends, and verifies that digest. It returns the size in bytes.
func (c *Client) Snapshot(ctx context.Context, path string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoints[0]+"/v3/maintenance/snapshot", strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("etcd snapshot: %s", answer.Status)
	}
	part := path + ".part"
	file, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer os.Remove(part)
	defer file.Close()
	digest := sha256.New()
	var held []byte // the last 32 bytes, which may be the digest
	var size int64
	decoder := json.NewDecoder(answer.Body)
	for {
		var message struct {
			Result struct{ Blob []byte }
			Error  *struct{ Message string }
		}
		if err := decoder.Decode(&message); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, fmt.Errorf("etcd snapshot: %w", err)
		}
		if message.Error != nil {
			return 0, fmt.Errorf("etcd snapshot: %s", message.Error.Message)
		}
		if _, err := file.Write(message.Result.Blob); err != nil {
			return 0, err
		}
		size += int64(len(message.Result.Blob))
		held = append(held, message.Result.Blob...)
		if over := len(held) - sha256.Size; over > 0 {
			digest.Write(held[:over])
			held = append([]byte(nil), held[over:]...)
		}
	}
	if len(held) != sha256.Size || !bytes.Equal(digest.Sum(nil), held) {
		return 0, errors.New("etcd snapshot: the stream ended early or its SHA-256 does not match")
	}
	if err := file.Close(); err != nil {
		return 0, err
	}
	return size, os.Rename(part, path)
}
