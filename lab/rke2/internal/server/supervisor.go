package server

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"opstella.invalid/lab/rke2/internal/agent"
	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/log"
	"opstella.invalid/lab/rke2/internal/pki"
)

type tlsConfig = *tls.Config

// supervisor is the HTTPS service on port 9345 that nodes join through.
type supervisor struct {
	v      *Server
	http   *http.Server
	client atomic.Pointer[kube.Client] // nil until the API server answers
}

func serve(v *Server) (*supervisor, error) {
	u := &supervisor{v: v}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cacerts", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(v.serverCA.PEM) })
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "pong") })
	mux.HandleFunc("GET /v1-rke2/readyz", u.allow("node server", func(w http.ResponseWriter, _ *http.Request) {
		if u.client.Load() == nil {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok")
	}))
	mux.HandleFunc("GET /v1-rke2/config", u.allow("node server", u.config))
	mux.HandleFunc("POST /v1-rke2/client-kubelet.crt", u.allow("node server", u.issue(func(name string) (*pki.Authority, pki.Leaf) {
		return v.clientCA, pki.Leaf{CommonName: "system:node:" + name, Organizations: []string{"system:nodes"}, Client: true}
	})))
	mux.HandleFunc("POST /v1-rke2/serving-kubelet.crt", u.allow("node server", u.issueServing))
	mux.HandleFunc("POST /v1-rke2/double-workloads.crt", u.allow("node server", u.issue(func(name string) (*pki.Authority, pki.Leaf) {
		return v.clientCA, pki.Leaf{CommonName: "opstella-lab:double:" + name, Organizations: []string{"system:masters"}, Client: true}
	})))
	mux.HandleFunc("GET /v1-rke2/server-bootstrap", u.allow("server", u.bootstrap))
	mux.HandleFunc("GET /db/info", u.allowLocal("server", u.members))
	mux.HandleFunc("POST /db/snapshot", u.allow("server", u.snapshot))
	pair, err := tls.LoadX509KeyPair(v.tls("serving-rke2.crt"), v.tls("serving-rke2.key"))
	if err != nil {
		return nil, err
	}
	u.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		// Health checks of load balancers open and close connections all day.
		ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	address := net.JoinHostPort(v.s.Values.String("bind-address", "0.0.0.0"), "9345")
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	go func() {
		if err := u.http.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal("supervisor on %s: %v", address, err)
		}
	}()
	return u, nil
}

func (u *supervisor) open(client *kube.Client) { u.client.Store(client) }

func (u *supervisor) close() { _ = u.http.Close() }

// allow lets only the named users through. Agents that use the servers' token
// are admitted as agents, since that token is theirs too unless they have one.
func (u *supervisor) allow(users string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, secret, _ := r.BasicAuth()
		known := u.secrets()
		if want := known[user]; want == "" || subtle.ConstantTimeCompare([]byte(want), []byte(secret)) != 1 {
			log.Warn("Refused %s %s from %s: wrong token", r.Method, r.URL.Path, r.RemoteAddr)
			http.Error(w, "not authorized: the token is not the one of this cluster; take it from /var/lib/rancher/rke2/server/node-token on a server", http.StatusUnauthorized)
			return
		}
		if !strings.Contains(users, user) {
			log.Warn("Refused %s %s from %s: an agent's token does not admit servers", r.Method, r.URL.Path, r.RemoteAddr)
			http.Error(w, "not authorized: an agent token does not admit servers", http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

// allowLocal lets everyone on this host through, and from elsewhere only the
// named users.
func (u *supervisor) allowLocal(users string, next http.HandlerFunc) http.HandlerFunc {
	named := u.allow(users, next)
	return func(w http.ResponseWriter, r *http.Request) {
		if host, _, _ := net.SplitHostPort(r.RemoteAddr); host == "127.0.0.1" || host == "::1" {
			next(w, r)
			return
		}
		named(w, r)
	}
}

// secrets are the passwords by user, read from disk so that all parts agree.
func (u *supervisor) secrets() map[string]string {
	out := map[string]string{}
	data, err := os.ReadFile(u.v.s.Path("server", "cred", "passwd"))
	if err != nil {
		return out
	}
	for _, line := range strings.Split(string(data), "\n") {
		if f := strings.Split(line, ","); len(f) >= 2 {
			out[f[1]] = f[0]
		}
	}
	return out
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func (u *supervisor) config(w http.ResponseWriter, _ *http.Request) {
	s := u.v.s
	answer(w, agent.ClusterConfig{
		ClusterCIDR: s.ClusterCIDR.String(), ServiceCIDR: s.ServiceCIDR.String(), ClusterDNS: s.ClusterDNS.String(),
		ClusterDomain: s.ClusterDomain, CNI: s.CNI,
	})
}

func (u *supervisor) issueServing(w http.ResponseWriter, r *http.Request) {
	address := r.Header.Get("Rke2-Node-Ip")
	u.issue(func(name string) (*pki.Authority, pki.Leaf) {
		return u.v.serverCA, pki.Leaf{CommonName: name, Names: []string{name, "localhost", "127.0.0.1", address}, Server: true}
	})(w, r)
}

// issue signs a node's certificate request after the node has proven that it
// owns its name.
func (u *supervisor) issue(describe func(name string) (*pki.Authority, pki.Leaf)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, password := r.Header.Get("Rke2-Node-Name"), r.Header.Get("Rke2-Node-Password")
		if name == "" || password == "" {
			http.Error(w, "node name or node password is missing", http.StatusBadRequest)
			return
		}
		client := u.client.Load()
		if client == nil {
			http.Error(w, "runtime core not ready", http.StatusServiceUnavailable)
			return
		}
		if err := checkNodePassword(r.Context(), client, name, password); err != nil {
			code := http.StatusServiceUnavailable
			if errors.Is(err, errNodePassword) {
				code = http.StatusForbidden
				log.Warn("Node %s at %s: %v", name, r.RemoteAddr, err)
			}
			http.Error(w, err.Error(), code)
			return
		}
		request, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		authority, leaf := describe(name)
		certificate, err := authority.SignRequest(leaf, request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(certificate)
	}
}

var errNodePassword = errors.New("node password rejected")

// passwordSuffix names the secret that holds a node's hashed password.
const passwordSuffix = ".node-password.rke2"

const pbkdf2Rounds = 20000

func hashPassword(password string, salt []byte) string {
	key, err := pbkdf2.Key(sha256.New, password, salt, pbkdf2Rounds, 32)
	if err != nil {
		panic(err)
	}
	return "$pbkdf2-sha256$" + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(key)
}

func passwordMatches(hash, password string) bool {
	parts := strings.Split(hash, "$")
	if len(parts) != 4 {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[2])
	return err == nil && subtle.ConstantTimeCompare([]byte(hash), []byte(hashPassword(password, salt))) == 1
}

// checkNodePassword keeps the first password that comes for a node name, in an
// immutable secret, and accepts no other until the secret is deleted.
func checkNodePassword(ctx context.Context, client *kube.Client, name, password string) error {
	path := "/api/v1/namespaces/kube-system/secrets"
	var secret kube.Object
	err := client.Get(ctx, path+"/"+name+passwordSuffix, &secret)
	if kube.Is(err, http.StatusNotFound) {
		salt := make([]byte, 16)
		_, _ = rand.Read(salt)
		err = client.Do(ctx, http.MethodPost, path, kube.Object{
			"apiVersion": "v1", "kind": "Secret", "immutable": true, "type": "Opaque",
			"metadata":   map[string]any{"name": name + passwordSuffix},
			"stringData": map[string]any{"hash": hashPassword(password, salt)},
		}, &secret)
	}
	if err != nil {
		return fmt.Errorf("node password of %s cannot be checked yet: %w", name, err)
	}
	hash, err := base64.StdEncoding.DecodeString(kube.Text(secret, "data", "hash"))
	if err != nil || !passwordMatches(string(hash), password) {
		return fmt.Errorf("%w: a node named %s has joined with another password; duplicate hostname, or /etc/rancher/node/password was lost. "+
			"Give this node another name (node-name, with-node-id), or, if it replaces the old one, delete the old one: kubectl delete node %s", errNodePassword, name, name)
	}
	return nil
}

func (u *supervisor) bootstrap(w http.ResponseWriter, _ *http.Request) {
	data := bootstrapData{Files: map[string][]byte{}, Critical: critical(u.v.s)}
	for _, name := range shared {
		content, err := os.ReadFile(u.v.s.Path("server", name))
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		data.Files[name] = content
	}
	answer(w, data)
}

func (u *supervisor) members(w http.ResponseWriter, r *http.Request) {
	if u.client.Load() == nil {
		http.Error(w, "runtime core not ready", http.StatusServiceUnavailable)
		return
	}
	members, err := u.v.db.Members(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, map[string]any{"members": members})
}
