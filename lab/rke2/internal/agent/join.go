// Package agent is the node's side of the double: it joins through a server's
// supervisor port, registers the node, and keeps KWOK in the kubelet's place.
package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"opstella.invalid/lab/rke2/internal/log"
	"opstella.invalid/lab/rke2/internal/token"
)

// Supervisor is an authenticated connection to a server's port 9345.
type Supervisor struct {
	URL    string
	CA     []byte // the cluster's server CA, PEM
	user   string
	secret string
	http   *http.Client
}

// Refused is an answer of the supervisor other than 2xx.
type Refused struct {
	Code int
	Text string
}

func (r *Refused) Error() string {
	return fmt.Sprintf("%d %s: %s", r.Code, http.StatusText(r.Code), r.Text)
}

// Connect fetches the CA from url, verifies it with the token's hash, and
// makes a client that trusts nothing else. user is "node" or "server"; a full
// token's own user has precedence.
func Connect(ctx context.Context, url string, t token.Token, user string) (*Supervisor, error) {
	blind := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		// Only the CA itself is fetched this way; what is fetched is verified below.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	s := &Supervisor{URL: url, user: user, secret: t.Secret, http: blind}
	ca, err := s.Call(ctx, http.MethodGet, "/cacerts", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("failed to get CA certs from %s: %w", url, err)
	}
	if t.CAHash == "" {
		log.Warn("Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. Use the full token from the server's node-token file to enable Cluster CA validation.")
	}
	if err := t.VerifyCA(ca); err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s/cacerts holds no certificate", url)
	}
	s.CA = ca
	s.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
	}}
	if t.User != "" {
		s.user = t.User
	}
	// A server's token also admits agents, but only under the agents' name.
	if _, err := s.Call(ctx, http.MethodGet, "/ping", nil, nil); err != nil {
		return nil, fmt.Errorf("CA cert validation failed for %s: %w", url, err)
	}
	return s, nil
}

// Call sends a request with the token's credentials and returns the body.
func (s *Supervisor) Call(ctx context.Context, method, path string, headers map[string]string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if path != "/cacerts" && path != "/ping" {
		request.SetBasicAuth(s.user, s.secret)
	}
	for key, value := range headers {
		request.Header.Set(key, value)
	}
	answer, err := s.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode/100 != 2 {
		return nil, &Refused{answer.StatusCode, strings.TrimSpace(string(data))}
	}
	return data, nil
}

// JSON is Call for a GET whose answer is decoded into out.
func (s *Supervisor) JSON(ctx context.Context, path string, out any) error {
	data, err := s.Call(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, out)
}

// ClusterConfig is what servers tell agents about the cluster.
type ClusterConfig struct {
	ClusterCIDR   string   `json:"clusterCIDR"`
	ServiceCIDR   string   `json:"serviceCIDR"`
	ClusterDNS    string   `json:"clusterDNS"`
	ClusterDomain string   `json:"clusterDomain"`
	CNI           []string `json:"cni"`
}
