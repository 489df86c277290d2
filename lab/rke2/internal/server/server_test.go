package server

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"opstella.invalid/lab/rke2/internal/agent"
	"opstella.invalid/lab/rke2/internal/etcd"
	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/pki"
	"opstella.invalid/lab/rke2/internal/settings"
	"opstella.invalid/lab/rke2/internal/token"
)

func TestInitialClusterNamesThisMember(t *testing.T) {
	members := []etcd.Member{
		{Name: "b", PeerURLs: []string{"https://192.0.2.2:2380"}},
		{Name: "a", PeerURLs: []string{"https://192.0.2.1:2380"}},
		{Name: "", PeerURLs: []string{"https://192.0.2.3:2380"}, IsLearner: true},
	}
	got := initialCluster(members, "c", "https://192.0.2.3:2380")
	if want := "a=https://192.0.2.1:2380,b=https://192.0.2.2:2380,c=https://192.0.2.3:2380"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := voters(got, "https://192.0.2.3:2380"); !slices.Equal(got, []string{"https://192.0.2.1:2379", "https://192.0.2.2:2379"}) {
		t.Errorf("voters %v", got)
	}
}

func TestArgumentsOfTheAdministratorWin(t *testing.T) {
	got := arguments(map[string]string{"profiling": "false", "v": "0"}, []string{"v=2", "feature-gates=A=true", "feature-gates=B=true"})
	slices.Sort(got)
	if want := []string{"--feature-gates=A=true", "--feature-gates=B=true", "--profiling=false", "--v=2"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestPruneKeepsTheNewest(t *testing.T) {
	folder := t.TempDir()
	for i := range 4 {
		for _, base := range []string{"etcd-snapshot-node", "on-demand-node"} {
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%s-170000000%d", base, i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	deleted, err := pruneSnapshots(folder, "etcd-snapshot-node", 3)
	if err != nil || !slices.Equal(deleted, []string{"etcd-snapshot-node-1700000000"}) {
		t.Errorf("%v, %v", deleted, err)
	}
	if deleted, err := pruneSnapshots(folder, "etcd-snapshot-node", 0); err != nil || deleted != nil {
		t.Errorf("a retention of 0 keeps all: %v, %v", deleted, err)
	}
	left, err := listSnapshots(folder)
	if err != nil || len(left) != 7 {
		t.Errorf("%d left, %v", len(left), err)
	}
}

// cluster is a supervisor over a fake API server that only keeps secrets.
func cluster(t *testing.T) (*supervisor, *agent.Supervisor) {
	t.Helper()
	folder := t.TempDir()
	v := &Server{s: &settings.Settings{Server: true, DataDir: folder}}
	var err error
	if v.serverCA, err = pki.EnsureAuthority(v.tls("server-ca"), "server"); err != nil {
		t.Fatal(err)
	}
	if v.clientCA, err = pki.EnsureAuthority(v.tls("client-ca"), "client"); err != nil {
		t.Fatal(err)
	}
	if err := v.serverCA.EnsureLeaf(v.tls("serving-rke2"), pki.Leaf{CommonName: "rke2", Names: []string{"127.0.0.1"}, Server: true}); err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteFile(v.s.Path("server", "cred", "passwd"), []byte("of-servers,server,server,rke2:server\nof-agents,node,node,rke2:agent\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := &supervisor{v: v}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cacerts", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(v.serverCA.PEM) })
	mux.HandleFunc("GET /ping", func(http.ResponseWriter, *http.Request) {})
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }
	mux.HandleFunc("GET /agents", u.allow("node server", ok))
	mux.HandleFunc("GET /servers", u.allow("server", ok))
	mux.HandleFunc("POST /sign", u.issue(func(name string) (*pki.Authority, pki.Leaf) {
		return v.clientCA, pki.Leaf{CommonName: name, Client: true}
	}))
	listener := httptest.NewUnstartedServer(mux)
	pair, err := tls.LoadX509KeyPair(v.tls("serving-rke2.crt"), v.tls("serving-rke2.key"))
	if err != nil {
		t.Fatal(err)
	}
	listener.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	listener.StartTLS()
	t.Cleanup(listener.Close)
	full, err := token.Parse(token.Format("server", "of-servers", v.serverCA.PEM))
	if err != nil {
		t.Fatal(err)
	}
	sup, err := agent.Connect(t.Context(), listener.URL, full, "node")
	if err != nil {
		t.Fatal(err)
	}
	return u, sup
}

func TestTokens(t *testing.T) {
	_, sup := cluster(t)
	for _, c := range []struct {
		user, secret, path string
		code               int
	}{
		{"server", "of-servers", "/servers", 200}, {"server", "of-servers", "/agents", 200}, {"node", "of-agents", "/agents", 200},
		{"node", "of-agents", "/servers", 401}, {"node", "of-servers", "/agents", 401}, {"server", "of-agents", "/servers", 401},
		{"server", "", "/servers", 401}, {"", "", "/agents", 401}, {"root", "of-servers", "/agents", 401},
	} {
		other, err := agent.Connect(t.Context(), sup.URL, token.Token{Secret: c.secret}, c.user)
		if err != nil {
			t.Fatal(err)
		}
		_, err = other.Call(t.Context(), http.MethodGet, c.path, nil, nil)
		code := 200
		if refused, is := err.(*agent.Refused); is {
			code = refused.Code
		} else if err != nil {
			t.Fatal(err)
		}
		if code != c.code {
			t.Errorf("%s:%s at %s: %d, want %d", c.user, c.secret, c.path, code, c.code)
		}
	}
}

func TestWhoIsOnTheHostNeedsNoToken(t *testing.T) {
	u, _ := cluster(t)
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }
	for address, code := range map[string]int{"127.0.0.1:40000": 200, "[::1]:40000": 200, "192.0.2.1:40000": 401} {
		request, answer := httptest.NewRequest(http.MethodGet, "/db/info", nil), httptest.NewRecorder()
		request.RemoteAddr = address
		u.allowLocal("server", ok)(answer, request)
		if answer.Code != code {
			t.Errorf("from %s: %d, want %d", address, answer.Code, code)
		}
	}
}

func TestAnotherClustersCAIsRefused(t *testing.T) {
	_, sup := cluster(t)
	wrong, err := token.Parse(token.Format("server", "of-servers", []byte("another")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Connect(t.Context(), sup.URL, wrong, "node"); err == nil || !strings.Contains(err.Error(), "CA hash does not match") {
		t.Errorf("got %v", err)
	}
}

func TestNodePassword(t *testing.T) {
	u, sup := cluster(t)
	_, request, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	sign := func(name, password string) error {
		_, err := sup.Call(t.Context(), http.MethodPost, "/sign", map[string]string{"Rke2-Node-Name": name, "Rke2-Node-Password": password}, request)
		return err
	}
	if err := sign("a", "one"); err == nil || err.(*agent.Refused).Code != http.StatusServiceUnavailable {
		t.Errorf("before the API server is up: %v", err)
	}
	secrets, kept := map[string]kube.Object{}, ""
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := filepath.Base(r.URL.Path)
		if r.Method == http.MethodPost {
			var secret kube.Object
			_ = json.NewDecoder(r.Body).Decode(&secret)
			name = kube.Text(secret, "metadata", "name")
			hash := kube.Text(secret, "stringData", "hash")
			kept += hash
			secrets[name] = kube.Object{"data": map[string]any{"hash": []byte(hash)}}
		}
		if secrets[name] == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(secrets[name])
	}))
	defer api.Close()
	client, err := kube.New(api.URL, u.v.tls("server-ca.crt"), "")
	if err != nil {
		t.Fatal(err)
	}
	u.open(client)
	for _, c := range []struct {
		name, password string
		refused        bool
	}{{"a", "password-one", false}, {"a", "password-one", false}, {"a", "password-two", true}, {"b", "password-two", false}} {
		err := sign(c.name, c.password)
		if refused := err != nil && err.(*agent.Refused).Code == http.StatusForbidden; refused != c.refused || !refused && err != nil {
			t.Errorf("%s with %s: %v", c.name, c.password, err)
		}
	}
	if secrets["a"+passwordSuffix] == nil || strings.Contains(kept, "password") {
		t.Errorf("the password is not kept hashed under RKE2's name: %v, %s", secrets, kept)
	}
}

func TestVolumeLeadsIntoTheShare(t *testing.T) {
	claim := kube.Object{
		"metadata": map[string]any{"name": "data", "namespace": "db", "uid": "u1"},
		"spec":     map[string]any{"accessModes": []any{"ReadWriteOnce"}, "resources": map[string]any{"requests": map[string]any{"storage": "1Gi"}}},
	}
	class := kube.Object{
		"metadata": map[string]any{"name": "nfs"}, "reclaimPolicy": "Retain", "mountOptions": []any{"nfsvers=4.1"},
		"parameters": map[string]any{"server": "192.0.2.13", "share": "/srv/nfs/"},
	}
	volume := volumeFor(claim, class)
	for path, want := range map[string]string{
		"metadata name": "pvc-u1", "spec persistentVolumeReclaimPolicy": "Retain", "spec storageClassName": "nfs", "spec claimRef uid": "u1",
		"spec csi volumeHandle": "192.0.2.13#srv/nfs#pvc-u1##", "spec csi volumeAttributes share": "/srv/nfs", "spec csi driver": "nfs.csi.k8s.io",
	} {
		if got := kube.Text(volume, strings.Fields(path)...); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}
